"""Packing plan.

Rows of unequal length in one flat sequence without padding, and the blocks in which attention sees them.

All linear layers of a model work on single tokens, so the rows of all candidates lie in one sequence, one behind the
other. Only attention needs to know where a row begins. It works block by block: a block holds rows of similar length,
padded to the longest of them, so that attention is a few batched products. What is padded is attention's alone.

Pure index arithmetic: the plan follows from the lengths alone, so the same rows always make the same blocks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

BUCKET = 16  # rows whose lengths, divided by this and rounded up, are equal share a block

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False, slots=True)
class BlockPlan:
    """``groups`` x ``members`` rows of ``slots`` places each, in that order in the flat sequence from ``start`` on.

    A group's members share keys and values beside their own. ``lengths`` (groups * members,): how many places of each
    row are real; the sequence holds only those.
    """

    start: int
    groups: int
    members: int
    slots: int
    lengths: Indices

    @property
    def tokens(self) -> int:
        """Places that the block takes in the sequence."""
        return int(self.lengths.sum())

    @property
    def padded(self) -> bool:
        """Whether any row is shorter than the block's slots."""
        return self.tokens < self.groups * self.members * self.slots

    def starts(self) -> Indices:
        """Return where each row begins in the sequence, (groups * members,)."""
        return self.start + np.cumsum(self.lengths) - self.lengths

    def places(self) -> Indices:
        """Return where each slot lies in the sequence, (groups * members * slots,); padding points at a row's start."""
        offsets = np.arange(self.slots)
        real = offsets[None, :] < self.lengths[:, None]
        return (self.starts()[:, None] + np.where(real, offsets[None, :], 0)).reshape(-1)

    def real(self) -> Indices:
        """Return which slots are real, as flat indices in the order of the sequence."""
        return np.flatnonzero((np.arange(self.slots)[None, :] < self.lengths[:, None]).reshape(-1))


@dataclass(frozen=True, eq=False, slots=True)
class RowPlan:
    """Blocks of the same rows for each of some candidates.

    ``blocks``: one a bucket; ``members``: the rows of each. ``candidate``, ``row`` and ``offset`` (tokens,): whose and
    which row a place of the sequence belongs to, and its place in that row, from the first block's start on. ``first``
    (candidates, rows): the place of each row's first token in the whole sequence.
    """

    blocks: tuple[BlockPlan, ...]
    members: tuple[list[int], ...]
    candidate: Indices
    row: Indices
    offset: Indices
    first: Indices


def buckets(lengths: Sequence[int]) -> list[list[int]]:
    """Return the rows of each bucket, shortest bucket first, in ascending order of length and row."""
    homes: dict[int, list[int]] = {}
    for row in sorted(range(len(lengths)), key=lambda row: (lengths[row], row)):
        homes.setdefault(-(-lengths[row] // BUCKET), []).append(row)
    return [homes[home] for home in sorted(homes)]


def plan_rows(lengths: Sequence[int], candidates: int, start: int) -> RowPlan:
    """Lay the rows out for every candidate, bucket by bucket and within it candidate by candidate, from ``start`` on.

    In every block a group is a candidate and its members are the bucket's rows.
    """
    at = start
    blocks: list[BlockPlan] = []
    parts: list[tuple[Indices, Indices, Indices]] = []
    first = np.zeros((candidates, len(lengths)), dtype=np.int64)
    members = tuple(buckets(lengths))
    for rows in members:
        own = np.array([lengths[row] for row in rows], dtype=np.int64)
        block = BlockPlan(at, candidates, len(rows), int(own.max()), np.tile(own, candidates))
        blocks.append(block)
        parts.append(
            (
                np.repeat(np.arange(candidates), int(own.sum())),
                np.tile(np.repeat(np.array(rows, dtype=np.int64), own), candidates),
                np.tile(np.concatenate([np.arange(n) for n in own]), candidates),
            )
        )
        first[:, rows] = block.starts().reshape(candidates, len(rows))
        at += block.tokens
    candidate, row, offset = (np.concatenate(part) for part in zip(*parts, strict=True))
    return RowPlan(tuple(blocks), members, candidate, row, offset, first)


def plan_even(groups: int, members: int, slots: int, start: int = 0) -> BlockPlan:
    """Return the block of rows that are all of one length."""
    return BlockPlan(start, groups, members, slots, np.full(groups * members, slots, dtype=np.int64))


def laid(lines: Sequence[Any], plan: RowPlan) -> Any:
    """Return what the lines have (tokens, positions) at each place of a plan."""
    flat = np.concatenate([np.asarray(line, dtype=np.int64) for line in lines])
    begins = np.cumsum([0, *map(len, lines)])
    return flat[begins[plan.row] + plan.offset]
