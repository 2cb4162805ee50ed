"""Continuations of rows, of several tokens each: what stands behind a row, and where each token's probability is read.

The tokens behind a row are a tree: continuations that begin alike share their first tokens. The first token of a
continuation is read at the row's last token, each further one at the token before it, so that the last one is read and
never stands there itself. Index arithmetic alone.

E examples, W continuations of each, n tokens of the longest; A places that are read: of every example the end of its
row, then the tokens of its tree.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Indices: TypeAlias = npt.NDArray[np.int64]
Mask: TypeAlias = npt.NDArray[np.bool_]
Tokens: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class Tree:
    """Tokens behind a row. Each sees the row, its ancestors and itself.

    ``parents``: the place in ``tokens`` of each one's parent, which stands before it; -1: the row's last token.
    """

    tokens: Tokens = ()
    parents: Tokens = ()

    @cached_property
    def depths(self) -> Indices:
        """Each token's distance behind the row, from 0 on."""
        depths: list[int] = []
        for parent in self.parents:
            depths.append(0 if parent < 0 else depths[parent] + 1)
        return np.array(depths, dtype=np.int64)

    @property
    def depth(self) -> int:
        """Tokens of the longest path."""
        return int(self.depths.max(initial=-1)) + 1

    @property
    def is_chain(self) -> bool:
        """Whether each token stands behind the one before it, as in a row."""
        return self.depth == len(self.tokens)

    @cached_property
    def sees(self) -> Mask:
        """Which token sees which, (tokens, tokens)."""
        sees = np.eye(len(self.tokens), dtype=np.bool_)
        for place, parent in enumerate(self.parents):
            if parent >= 0:
                sees[place] |= sees[parent]
        return sees

    @cached_property
    def paths(self) -> tuple[Tokens, ...]:
        """Places of the tokens from the row to each leaf; one path without tokens where the tree has none."""
        leaves = [place for place in range(len(self.tokens)) if place not in self.parents]
        return tuple(tuple(np.flatnonzero(self.sees[leaf]).tolist()) for leaf in leaves) or ((),)


def hang(continuations: Sequence[Tokens]) -> tuple[Tree, tuple[Tokens, ...]]:
    """Return the tree of some continuations of a row, one token each at least.

    Also where the tokens of each are read: 0 at the row's end, 1 at the tree's first token, and so on.
    """
    places: dict[Tokens, int] = {(): -1}
    tokens: list[int] = []
    parents: list[int] = []
    for continuation in continuations:
        for end in range(1, len(continuation)):
            if continuation[:end] not in places:
                places[continuation[:end]] = len(tokens)
                tokens.append(continuation[end - 1])
                parents.append(places[continuation[: end - 1]])
    read = tuple(tuple(1 + places[own[:end]] for end in range(len(own))) for own in continuations)
    return Tree(tuple(tokens), tuple(parents)), read


@dataclass(frozen=True)
class Continuations:
    """Continuations of some examples, as many of each. See ``continuations_of``.

    ``tokens`` (E, W, n), ``places`` (E, W, n): where each is read, an index into A. ``real`` (E, W, n): False at
    padding, which reads what the continuation's first token does.
    """

    trees: tuple[Tree, ...]
    tokens: Indices
    places: Indices
    real: Mask

    @property
    def lengths(self) -> Indices:
        """Tokens of each continuation, (E, W)."""
        return np.asarray(self.real.sum(axis=-1))

    @cached_property
    def ends(self) -> Indices:
        """Where the ends of the rows are read, (E,)."""
        return starts([1 + len(tree.tokens) for tree in self.trees])


def continuations_of(each: Sequence[Sequence[Tokens]]) -> Continuations:
    """Return the continuations (E)(W) of some examples, those of one row in a tree."""
    known: dict[tuple[Tokens, ...], tuple[Tree, tuple[Tokens, ...]]] = {}
    hung = [known.get(own) or known.setdefault(own, hang(own)) for own in map(tuple, each)]
    ends = starts([1 + len(tree.tokens) for tree, _ in hung])
    widest = max(len(tokens) for own in each for tokens in own)
    shape = (len(each), len(each[0]), widest)
    tokens, places, real = np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(shape, np.bool_)
    for e, own in enumerate(each):
        for w, continuation in enumerate(own):
            count = len(continuation)
            tokens[e, w], places[e, w] = continuation[0], ends[e]
            tokens[e, w, :count] = continuation
            places[e, w, :count] = ends[e] + hung[e][1][w]
            real[e, w, :count] = True
    return Continuations(tuple(tree for tree, _ in hung), tokens, places, real)


def starts(counts: Sequence[int]) -> Indices:
    """Return where each of some parts of so many places begins."""
    return np.cumsum([0, *counts[:-1]], dtype=np.int64)


def in_order(order: Sequence[int], counts: Sequence[int]) -> Indices:
    """Return the indices that put parts which stand in ``order`` back: part 0 first.

    Args:
        order: which part stands at each place.
        counts: places of each part, by its number.
    """
    begins = np.empty(len(order), dtype=np.int64)
    begins[list(order)] = starts([counts[part] for part in order])
    return np.concatenate([begins[part] + np.arange(count) for part, count in enumerate(counts)])


def seen(lengths: Sequence[int], trees: Sequence[Tree], slots: int) -> Mask | None:
    """Return which of a row's own places sees which, (rows, slots, slots), of rows with trees behind them.

    None where all see what is before them, as in rows without branches. ``lengths``: of the rows without their trees.
    """
    if all(tree.is_chain for tree in trees):
        return None
    masks = np.tile(np.eye(slots, dtype=np.bool_), (len(lengths), 1, 1))  # padding sees itself
    for mask, length, tree in zip(masks, lengths, trees, strict=True):
        until = length + len(tree.tokens)
        mask[:until, :until] = np.tri(until, dtype=np.bool_)
        mask[length:until, length:until] = tree.sees
    return masks
