"""Search directions: gradient estimates made of all gradients seen so far.

The formulas are those of ``maths.zot`` and ``maths.trainable``; the state is kept here. Growing the family: one config
class, one class, one case in ``build_direction``.
"""

import math
from abc import ABC, abstractmethod
from typing import Any, assert_never

import numpy as np

from distributed_tuner.config.estimator import (
    TrainableDiagonalConfig,
    TrainableFullConfig,
    TrainableRankOneConfig,
    TrainedEstimatorConfig,
    TrainedEstimatorSettings,
)
from distributed_tuner.errors import ConfigError
from distributed_tuner.maths import trainable, zot
from distributed_tuner.maths.trainable import rate
from distributed_tuner.seeds import Key, standard_normal
from distributed_tuner.values import Array

FULL_LIMIT = 4096  # coordinates of a prompt with a full slope


class Direction(ABC):
    """Learns from a gradient g seen at w and returns the estimate at w; both of shape (P,), float32."""

    @abstractmethod
    def learn(self, w: Array, g: Array) -> Array:
        """Return the new estimate, an array of its own."""

    @abstractmethod
    def save(self) -> dict[str, Any]:
        """Return a copy of the state."""

    @abstractmethod
    def load(self, state: dict[str, Any]) -> None:
        """Take the state that ``save`` returned; entries of others are left alone."""


class MomentumDirection(Direction):
    """ZOT's running mean of gradients (Alg. 3, lines 5 and 6). ``beta``: its decay."""

    def __init__(self, dim: int, beta: float, bias_correction: bool) -> None:
        self._beta = beta
        self._corrected = bias_correction
        self._m = np.zeros(dim, dtype=np.float32)
        self._updates = 0  # t of the bias correction: updates of m, which failed steps do not make

    def learn(self, w: Array, g: Array) -> Array:
        self._updates += 1
        self._m = zot.momentum(self._m, g, self._beta)
        return zot.bias_correction(self._m, self._beta, self._updates) if self._corrected else self._m

    def save(self) -> dict[str, Any]:
        return {"m": self._m.copy(), "updates": self._updates}

    def load(self, state: dict[str, Any]) -> None:
        self._m = np.array(state["m"], dtype=np.float32)
        self._updates = int(state["updates"])


class TrainedDirection(Direction):
    """``A w + b``, trained on every gradient by one step on its squared error. Members say what A is."""

    def __init__(self, settings: TrainedEstimatorSettings, dim: int) -> None:
        self._settings = settings
        self._b = np.zeros(dim, dtype=np.float32)
        self._updates = 0

    def learn(self, w: Array, g: Array) -> Array:
        base, decay = self._settings, self._settings.decay_steps
        alpha, beta = rate(self._updates, base.alpha, decay), rate(self._updates, base.beta, decay)
        self._updates += 1
        return self._learn(w, g, alpha, beta)

    @abstractmethod
    def _learn(self, w: Array, g: Array, alpha: float, beta: float) -> Array:
        """Take one step of A and b; return the new estimate at w."""

    def save(self) -> dict[str, Any]:
        return {"b": self._b.copy(), "updates": self._updates}

    def load(self, state: dict[str, Any]) -> None:
        self._b = np.array(state["b"], dtype=np.float32)
        self._updates = int(state["updates"])


class DiagonalDirection(TrainedDirection):
    """A = diag(a)."""

    def __init__(self, settings: TrainableDiagonalConfig, dim: int) -> None:
        super().__init__(settings, dim)
        self._a = np.zeros(dim, dtype=np.float32)

    def _learn(self, w: Array, g: Array, alpha: float, beta: float) -> Array:
        self._a, self._b = trainable.diagonal_step(self._a, self._b, w, g, alpha, beta)
        return trainable.diagonal_estimate(self._a, self._b, w)

    def save(self) -> dict[str, Any]:
        return {"a": self._a.copy(), **super().save()}

    def load(self, state: dict[str, Any]) -> None:
        super().load(state)
        self._a = np.array(state["a"], dtype=np.float32)


class RankOneDirection(TrainedDirection):
    """A = u v^T. u begins at 0, so that A does, and v at random: from u = v = 0 neither would ever move."""

    def __init__(self, settings: TrainableRankOneConfig, dim: int, key: Key) -> None:
        super().__init__(settings, dim)
        self._u = np.zeros(dim, dtype=np.float32)
        self._v = standard_normal((*key, "slope_v"), dim) / np.float32(math.sqrt(dim))

    def _learn(self, w: Array, g: Array, alpha: float, beta: float) -> Array:
        self._u, self._v, self._b = trainable.rank_one_step(self._u, self._v, self._b, w, g, alpha, beta)
        return trainable.rank_one_estimate(self._u, self._v, self._b, w)

    def save(self) -> dict[str, Any]:
        return {"u": self._u.copy(), "v": self._v.copy(), **super().save()}

    def load(self, state: dict[str, Any]) -> None:
        super().load(state)
        self._u = np.array(state["u"], dtype=np.float32)
        self._v = np.array(state["v"], dtype=np.float32)


class FullDirection(TrainedDirection):
    """A is any matrix (P, P).

    Raises:
        ConfigError: the prompt has too many coordinates.
    """

    def __init__(self, settings: TrainableFullConfig, dim: int) -> None:
        super().__init__(settings, dim)
        if dim > FULL_LIMIT:
            raise ConfigError(
                f"the estimator trainable_full keeps P x P numbers for a prompt of P coordinates, {FULL_LIMIT} at most,"
                f" but this prompt has {dim}, which would take {4 * dim**2 / 2**30:.2g} GiB; use trainable_diagonal or"
                " trainable_rank_one, or shorten prompt.length"
            )
        self._slope = np.zeros((dim, dim), dtype=np.float32)

    def _learn(self, w: Array, g: Array, alpha: float, beta: float) -> Array:
        self._slope, self._b = trainable.full_step(self._slope, self._b, w, g, alpha, beta)
        return trainable.full_estimate(self._slope, self._b, w)

    def save(self) -> dict[str, Any]:
        return {"slope": self._slope.copy(), **super().save()}

    def load(self, state: dict[str, Any]) -> None:
        super().load(state)
        self._slope = np.array(state["slope"], dtype=np.float32)


def build_direction(config: TrainedEstimatorConfig, dim: int, key: Key) -> TrainedDirection:
    """Return the trained estimator of a prompt of ``dim`` coordinates; ``key`` names its random numbers.

    Raises:
        ConfigError: the prompt has too many coordinates for it.
    """
    match config:
        case TrainableDiagonalConfig():
            return DiagonalDirection(config, dim)
        case TrainableRankOneConfig():
            return RankOneDirection(config, dim, key)
        case TrainableFullConfig():
            return FullDirection(config, dim)
        case _:
            assert_never(config)
