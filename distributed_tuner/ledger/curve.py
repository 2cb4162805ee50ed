"""Numbers of a trial's rows in bounded memory: as they are while they are few, neighbours put together beyond that."""

import math
from array import array
from collections.abc import Sequence

import numpy as np

from distributed_tuner.values import Array64

MOST = 512
"""Rows that a curve holds; a report draws fewer."""


class Curve:
    """What each row of a kind adds to a trial: ``last`` is how things stand then, ``total`` adds up, ``best`` is kept.

    A row that is written again, after a resume, stands once, in its latest version. When there are more than ``MOST``,
    the older ones are put together with their neighbours: of ``last`` stays the later, of ``best`` the higher, and
    ``total`` becomes the sum. One of those that is written again is then taken for the row that it was, as it is the
    same wherever answers repeat. A number that is unknown is NaN; sums and bests leave it out.
    """

    def __init__(self, last: Sequence[str], total: Sequence[str] = (), best: Sequence[str] = ()) -> None:
        names = ("stage", "order", "rows", *last, *total, *best)
        self._columns = {name: place for place, name in enumerate(names)}
        self._totals = [2, *(self._columns[name] for name in total)]
        self._bests = [self._columns[name] for name in best]
        self._width = len(names)
        self._full = MOST * self._width
        self._numbers = array("d")
        self._merged_up_to: tuple[float, ...] = ()  # behind the last row that was merged with others

    def add(self, row: tuple[float, ...]) -> None:
        """Take a row: its stage, where it stands in that, 1, and the numbers in the order of their names."""
        if row > self._merged_up_to:
            self._numbers.extend(row)
            if len(self._numbers) >= self._full:
                self._make_room()

    def extend(self, rows: Array64) -> None:
        """Take many rows, shape (rows, numbers of a row), as ``add`` takes one after the other."""
        while len(rows):
            if self._merged_up_to:
                stage, order, _ = self._merged_up_to
                rows = rows[(rows[:, 0] > stage) | ((rows[:, 0] == stage) & (rows[:, 1] > order))]
            room = MOST - len(self._numbers) // self._width
            self._numbers.frombytes(rows[:room].tobytes())
            if len(rows) >= room:
                self._make_room()
            rows = rows[room:]

    def __getitem__(self, name: str) -> Array64:
        """Return a column, in the order of the rows."""
        column: Array64 = self._rows()[:, self._columns[name]]
        return column

    def columns(self, *names: str) -> Array64:
        """Return several columns, shape (rows, names)."""
        return self._rows()[:, [self._columns[name] for name in names]]

    def _rows(self) -> Array64:
        """Return the rows in their order, each once, in its latest version."""
        rows = np.array(self._numbers, dtype=np.float64).reshape(-1, self._width)
        rows = rows[np.lexsort((rows[:, 1], rows[:, 0]))]  # stable: versions of a row stay in their order
        again = (rows[1:, :2] == rows[:-1, :2]).all(axis=1)
        kept: Array64 = rows[~np.append(again, np.zeros(min(1, len(rows)), dtype=bool))]
        return kept

    def _make_room(self) -> None:
        """Merge the older rows, except the newest quarter, which a resumed trial may write again."""
        rows = self._rows()
        older, newer = rows[: -MOST // 4], rows[-MOST // 4 :]
        if len(older) > MOST // 4:
            older = self._joined(older, MOST // 4)
            self._merged_up_to = (older[-1, 0], older[-1, 1], math.inf)
        self._numbers = array("d", np.concatenate([older, newer]).tobytes())

    def _joined(self, rows: Array64, groups: int) -> Array64:
        """Join neighbours so that about ``groups`` rows stay, each made of as many."""
        counts = rows[:, 2]
        group = (np.cumsum(counts) - counts) // np.ceil(counts.sum() / groups)
        starts = np.flatnonzero(np.diff(group, prepend=-1))
        joined: Array64 = rows[np.append(starts[1:], len(rows)) - 1]
        joined[:, self._totals] = np.add.reduceat(np.nan_to_num(rows[:, self._totals]), starts)
        joined[:, self._bests] = np.fmax.reduceat(rows[:, self._bests], starts)
        return joined
