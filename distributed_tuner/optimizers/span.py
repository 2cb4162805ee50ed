"""Points that are a start plus sums of random vectors, kept as the coefficients: the vectors are drawn when needed."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from distributed_tuner.optimizers.base import frozen_copy
from distributed_tuner.seeds import Key, standard_normal
from distributed_tuner.values import Array, Array64


class Span:
    """The points ``start + sum_j a_j z_j`` with z_j standard normal of the key j. Knows how the z_j lie to each other.

    A point of P coordinates is as many numbers as there are vectors, so that hundreds of points are kept for little.
    """

    def __init__(self, start: Array) -> None:
        self.start = frozen_copy(start)
        self._keys: list[Key] = []
        self.gram: Array64 = np.zeros((0, 0))

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, keys: Sequence[Key]) -> None:
        """Take further vectors in, behind those that are there."""
        if not keys:
            return
        fresh_M_P = np.stack([standard_normal(key, len(self.start)) for key in keys]).astype(np.float64)
        cross_J_M = np.array([fresh_M_P @ z for z in self._vectors()]).reshape(len(self._keys), len(keys))
        self.gram = np.block([[self.gram, cross_J_M], [cross_J_M.T, fresh_M_P @ fresh_M_P.T]])
        self._keys += keys

    def points(self, a_C_J: Array64) -> Array:
        """Return the points of coefficients (C, J), of the first J vectors, as (C, P); read-only."""
        x_C_P = np.repeat(self.start[None], len(a_C_J), axis=0)
        for a_C, z in zip(a_C_J.T.astype(np.float32), self._vectors(), strict=False):
            x_C_P += a_C[:, None] * z
        x_C_P.flags.writeable = False
        return x_C_P

    def _vectors(self) -> Iterator[Array]:
        return (standard_normal(key, len(self.start)) for key in self._keys)

    def save(self) -> dict[str, Any]:
        """Return a copy of the state."""
        return {"start": self.start.copy(), "keys": [list(key) for key in self._keys], "gram": self.gram.copy()}

    @classmethod
    def restored(cls, state: dict[str, Any]) -> "Span":
        """Return the span that ``save`` wrote."""
        span = cls(state["start"])
        span._keys = [tuple(key) for key in state["keys"]]
        span.gram = np.array(state["gram"], dtype=np.float64).reshape(len(span), len(span))
        return span
