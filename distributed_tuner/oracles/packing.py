"""How rows of unequal length share a forward pass without padding: first-fit-decreasing bin packing.

Pure index arithmetic: the plan follows from the lengths alone, so the same rows always make the same packs.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

PACK_TOKENS = 96  # long enough for full-speed matrix products, short enough for cheap masked attention


@dataclass(frozen=True, slots=True)
class Packs:
    """G packs of S slots. ``row`` (G, S) is the row a slot belongs to (-1: padding), ``offset`` (G, S) its place in it.

    ``end`` (E,) holds for each row the flat index g * S + s of its last token.
    """

    row: npt.NDArray[np.int64]
    offset: npt.NDArray[np.int64]
    end: npt.NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, int]:
        """(G, S)."""
        groups, slots = self.row.shape
        return groups, slots


def pack(lengths: list[int], capacity: int = PACK_TOKENS) -> Packs:
    """Lay rows of the given lengths into packs of at least ``capacity`` slots (the longest row, if that is longer)."""
    capacity = max(capacity, max(lengths))
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    bins: list[list[int]] = []
    used: list[int] = []
    for row in order:
        home = next((b for b, filled in enumerate(used) if filled + lengths[row] <= capacity), None)
        if home is None:
            bins.append([])
            used.append(0)
            home = len(bins) - 1
        bins[home].append(row)
        used[home] += lengths[row]
    slots = max(used)
    row_G_S = np.full((len(bins), slots), -1, dtype=np.int64)
    offset_G_S = np.zeros((len(bins), slots), dtype=np.int64)
    end_E = np.zeros(len(lengths), dtype=np.int64)
    for g, rows in enumerate(bins):
        at = 0
        for row in rows:
            row_G_S[g, at : at + lengths[row]] = row
            offset_G_S[g, at : at + lengths[row]] = np.arange(lengths[row])
            at += lengths[row]
            end_E[row] = g * slots + at - 1
    return Packs(row_G_S, offset_G_S, end_E)
