"""An optimizer of one's own: a (1 + n) evolution strategy whose step grows with success (Rechenberg's 1/5 rule)."""

from typing import Any

import numpy as np

from distributed_tuner.optimizers.base import Optimizer, frozen_copy
from distributed_tuner.seeds import Key, generator
from distributed_tuner.values import Array, Array64, Candidate, Point


class EvolutionStrategy(Optimizer):
    """Keeps the best point so far, and tries n others around it at a distance ``sigma`` that adapts."""

    losses_are_of_the_start = False

    def __init__(self, *, dim: int, key: Key, steps: int, start: Array, sigma: float = 0.3, children: int = 5) -> None:
        super().__init__(dim, key)
        self._best, self._best_loss = frozen_copy(start), np.inf
        self._sigma, self._children = sigma, children

    @property
    def queries_per_step(self) -> int:
        return self._children

    def recommend(self) -> Candidate:
        return Point(self._best)

    def _ask(self) -> list[Candidate]:
        noise = generator((*self.key, self.steps_told)).standard_normal((self._children, self.dim))
        return [Point(frozen_copy(self._best + self._sigma * z)) for z in noise]

    def _tell(self, candidates: tuple[Candidate, ...], losses: Array64, gradients: Array | None) -> None:
        if np.isnan(losses).all():
            return
        winner = candidates[int(np.nanargmin(losses))]
        assert isinstance(winner, Point)
        improved = bool(np.nanmin(losses) < self._best_loss)
        if improved:
            self._best, self._best_loss = winner.vector, float(np.nanmin(losses))
        self._sigma *= 1.2 if improved else 0.9
        self._metrics = {"sigma": self._sigma}

    def _relocate(self, x: Array) -> None:
        self._best, self._best_loss = x, np.inf

    def _save(self) -> dict[str, Any]:
        return {"best": self._best.copy(), "best_loss": self._best_loss, "sigma": self._sigma}

    def _load(self, state: dict[str, Any]) -> None:
        self._best, self._best_loss = frozen_copy(state["best"]), float(state["best_loss"])
        self._sigma = float(state["sigma"])
