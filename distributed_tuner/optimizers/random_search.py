"""Random search: independent Gaussian samples around the start. The baseline, and the family's smallest example."""

import math
from typing import Any, ClassVar

import numpy as np

from distributed_tuner.config.optimizer import RandomSearchConfig
from distributed_tuner.optimizers.base import Optimizer
from distributed_tuner.optimizers.centers import make_center
from distributed_tuner.seeds import Key
from distributed_tuner.values import Array, Array64, Candidate, Center, Perturbation, Point


class RandomSearch(Optimizer):
    """Candidates are ``start + sigma z``, z ~ N(0, I_P); recommends the lowest loss seen so far, first of ties.

    ``relocate``: the samples lie around the new point, and the best so far is forgotten.

    Failed queries are left out. Losses are comparable because every step is scored on all training examples.

    Args:
        config: the settings (``distributed_tuner.RandomSearch``).
        dim: P, coordinates of a prompt: its rows L times the model's width D.
        key: prefix of all its random numbers, such as (seed, trial, stage).
        start: the centre of the samples, shape (P,), float32. Its unit is a standard deviation of the
            embeddings, or 1 (``prompt.scale``).

    Example: 240 queries on a formula; an oracle's ``evaluate`` takes its place.

        >>> import numpy as np
        >>> from distributed_tuner import RandomSearch
        >>> from distributed_tuner.optimizers import build
        >>> from distributed_tuner.prompts.recipes import Recipes
        >>> recipes = Recipes(embedding_std=1.0)
        >>> optimizer = build(RandomSearch(sigma=0.2), dim=40, key=(0,), steps=30)
        >>> for _ in range(30):
        ...     prompts = [recipes.coordinates(asked, dim=40, unit=1.0) for asked in optimizer.ask()]
        ...     optimizer.tell([float(np.sum((x - 0.5) ** 2)) for x in prompts])
        >>> x = recipes.coordinates(optimizer.recommend(), dim=40, unit=1.0)
        >>> float(np.sum((x - 0.5) ** 2)) < 9  # of 10 at the start
        True
    """

    kind: ClassVar[str] = "random_search"

    def __init__(self, config: RandomSearchConfig, *, dim: int, key: Key, start: Array) -> None:
        super().__init__(dim, key)
        self._config = config
        self._center: Center = make_center(key, 0, start)
        self._best: Perturbation | None = None
        self._best_loss = math.inf

    @property
    def queries_per_step(self) -> int:
        return self._config.popsize

    def recommend(self) -> Candidate:
        return Point(self._center.vector) if self._best is None else self._best

    def _ask(self) -> list[Candidate]:
        keys = [(*self.key, self.steps_told, i) for i in range(self._config.popsize)]
        return [Perturbation(self._center, key, 1, self._config.sigma) for key in keys]

    def _tell(self, candidates: tuple[Candidate, ...], losses: Array64, gradients: Array | None) -> None:
        if np.isnan(losses).all():
            return
        index = int(np.nanargmin(losses))
        candidate = candidates[index]
        if losses[index] < self._best_loss and isinstance(candidate, Perturbation):
            self._best, self._best_loss = candidate, float(losses[index])
        self._metrics = {"best_loss": self._best_loss, "step_loss": float(losses[index])}

    def _relocate(self, x: Array) -> None:
        self._center = make_center(self.key, self.steps_told, x)
        self._best, self._best_loss = None, math.inf

    def _save(self) -> dict[str, Any]:
        return {
            "start": self._center.vector.copy(),
            "best_key": [] if self._best is None else list(self._best.key),
            "best_radius": 0.0 if self._best is None else self._best.radius,
            "best_loss": self._best_loss,
        }

    def _load(self, state: dict[str, Any]) -> None:
        self._center = make_center(self.key, 0, state["start"])
        best_key: Key = tuple(state["best_key"])
        self._best = Perturbation(self._center, best_key, 1, float(state["best_radius"])) if best_key else None
        self._best_loss = float(state["best_loss"])
