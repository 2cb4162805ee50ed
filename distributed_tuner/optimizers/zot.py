"""ZOT as an optimizer: it stores the prompt and the momentum, and applies the formulas of ``maths.zot`` to them."""

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from distributed_tuner.config.optimizer import ZotConfig
from distributed_tuner.maths import zot
from distributed_tuner.maths.schedules import cosine_annealing
from distributed_tuner.optimizers.base import Optimizer, frozen_copy
from distributed_tuner.optimizers.centers import make_center
from distributed_tuner.seeds import Key, standard_normal
from distributed_tuner.values import Array, Array64, Candidate, Perturbation, Point


class Zot(Optimizer):
    """Zeroth-order tuning (ZOT, EMNLP Findings 2024, Algorithm 3); ZO-SGD (Algorithm 2) with its additions off.

    A step asks for the pairs ``x + rho z_1, x - rho z_1, x + rho z_2, ...`` around one centre. z_i belongs to the key
    ``(*key, step, i)`` and is drawn again in ``tell``, so that nothing but x and m is kept. A pair of which a member
    failed is left out of the mean; where no pair is whole, x, m and the exponent of the bias correction stay, and only
    the schedule moves on. ``recommend`` is x itself, which has not been scored.

    ``steps`` is T of the cosine schedule; further steps run at its floor. ``relocate`` changes x alone: momentum,
    update count and schedule stay.
    """

    kind: ClassVar[str] = "zot"
    losses_are_of_the_start: ClassVar[bool] = True

    def __init__(self, config: ZotConfig, *, dim: int, key: Key, steps: int, start: Array) -> None:
        super().__init__(dim, key)
        self._config = config
        self._steps = steps
        self._x = frozen_copy(start)
        self._m = np.zeros(dim, dtype=np.float32)
        self._updates = 0  # t of the bias correction: updates of m, which failed steps do not make

    @property
    def queries_per_step(self) -> int:
        return 2 * self._config.points

    @property
    def batch_size(self) -> int | None:
        return self._config.batch_size

    def recommend(self) -> Candidate:
        return Point(self._x)

    def _ask(self) -> list[Candidate]:
        center = make_center(self.key, self.steps_told, self._x)
        return [
            Perturbation(center, self._noise_key(i), sign, self._config.rho)
            for i in range(self._config.points)
            for sign in (1, -1)
        ]

    def _tell(self, candidates: tuple[Candidate, ...], losses: Array64, gradients: Array | None) -> None:
        pairs = losses.reshape(-1, 2)
        whole = [i for i, pair in enumerate(pairs) if not np.isnan(pair).any()]
        if not whole:
            return
        deltas = [zot.coefficient(float(pairs[i, 0]), float(pairs[i, 1]), self._config.rho) for i in whole]
        g = zot.gradient_estimate(deltas, self._noise(whole), self.dim)
        gamma = self._learning_rate()
        length = zot.norm(g)
        self._descend(zot.clip_by_norm(g, self._config.clip), gamma)
        self._metrics = {
            "gradient_norm": length,
            "clipped": float(0.0 < self._config.clip < length),
            "learning_rate": gamma,
            "x_norm": zot.norm(self._x),
        }

    def _descend(self, g: Array, gamma: float) -> None:
        beta = self._config.momentum
        self._updates += 1
        self._m = zot.momentum(self._m, g, beta)
        m_hat = zot.bias_correction(self._m, beta, self._updates) if self._config.bias_correction else self._m
        self._x = zot.update(self._x, m_hat, gamma)
        self._x.flags.writeable = False

    def _learning_rate(self) -> float:
        """Return gamma of the step that is being told; the first step runs at the full rate."""
        if self._config.schedule == "constant":
            return self._config.learning_rate
        return cosine_annealing(self.steps_told, self._steps, self._config.learning_rate, self._config.floor)

    def _noise_key(self, i: int) -> Key:
        return (*self.key, self.steps_told, i)

    def _noise(self, indices: list[int]) -> Iterator[Array]:
        return (standard_normal(self._noise_key(i), self.dim) for i in indices)

    def _relocate(self, x: Array) -> None:
        self._x = x

    def _save(self) -> dict[str, Any]:
        return {"x": self._x.copy(), "m": self._m.copy(), "updates": self._updates}

    def _load(self, state: dict[str, Any]) -> None:
        self._x = frozen_copy(state["x"])
        self._m = np.array(state["m"], dtype=np.float32)
        self._updates = int(state["updates"])
