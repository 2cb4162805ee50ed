"""Any ask-and-tell optimizer of nevergrad's registry on a soft prompt, made deterministic and restorable.

Which of its optimizers suits is the user's choice; the projection of latent vectors happens beside the model.
"""

from typing import Any, ClassVar

import numpy as np

from distributed_tuner.config.optimizer import NevergradConfig
from distributed_tuner.optimizers.base import frozen_copy
from distributed_tuner.optimizers.latent import LatentSpace
from distributed_tuner.optimizers.nevergrad_search import NevergradSearch
from distributed_tuner.seeds import Key
from distributed_tuner.values import Array, Array64, Candidate, Point


class Nevergrad(NevergradSearch):
    """Searches K latent coordinates, or the P coordinates of the whole prompt, around the start.

    Args:
        config: the settings (``distributed_tuner.Nevergrad``).
        dim: P, coordinates of a prompt: its rows L times the model's width D.
        key: prefix of all its random numbers, such as (seed, trial, stage).
        steps: T, the planned steps of ``num_workers`` queries: the budget that nevergrad is given.
        start: the origin of the search, shape (P,), float32. Its unit is a standard deviation of the
            embeddings, or 1 (``prompt.scale``).

    Raises:
        ConfigError: nevergrad is not installed, has no such optimizer, or the optimizer cannot be used here.

    Example: 120 queries on a formula; an oracle's ``evaluate`` takes its place.

        >>> import numpy as np
        >>> from distributed_tuner import Nevergrad
        >>> from distributed_tuner.optimizers import build
        >>> from distributed_tuner.prompts.recipes import Recipes
        >>> recipes = Recipes(embedding_std=1.0)
        >>> settings = Nevergrad(optimizer="OnePlusOne", intrinsic_dim=10, num_workers=4)
        >>> optimizer = build(settings, dim=40, key=(0,), steps=30)
        >>> for _ in range(30):
        ...     prompts = [recipes.coordinates(asked, dim=40, unit=1.0) for asked in optimizer.ask()]
        ...     optimizer.tell([float(np.sum((x - 0.5) ** 2)) for x in prompts])
        >>> x = recipes.coordinates(optimizer.recommend(), dim=40, unit=1.0)
        >>> float(np.sum((x - 0.5) ** 2)) < 9  # of 10 at the start
        True
    """

    fixed: ClassVar[tuple[str, ...]] = ("optimizer", "space", "intrinsic_dim", "num_workers")

    def __init__(self, config: NevergradConfig, *, dim: int, key: Key, steps: int, start: Array) -> None:
        super().__init__(config, dim=dim, key=key, steps=steps)
        self._start = frozen_copy(start)
        self._space = LatentSpace.around(start, config, key) if config.space == "latent" else None
        self._begin(0)

    def _parametrization(self, ng: Any, config: NevergradConfig) -> Any:
        size = self.dim if config.space == "full" else config.intrinsic_dim
        coordinates = ng.p.Array(shape=(size,))
        coordinates.set_mutation(sigma=config.sigma)
        return coordinates

    def _candidate(self, value: Array64) -> Candidate:
        if self._space is not None:
            return self._space.candidate(value)
        return Point(frozen_copy(self._start + value.astype(np.float32)))

    def _relocate(self, x: Array) -> None:
        self._start = x
        self._space = None if self._space is None else self._space.moved(x, self.key, self.steps_told)
        self._begin(self.steps_told)

    def _save_space(self) -> dict[str, Any]:
        return {"start": self._start.copy(), "space": {} if self._space is None else self._space.state()}

    def _load_space(self, state: dict[str, Any]) -> None:
        self._start = frozen_copy(state["start"])
        if state["space"]:
            self._space = LatentSpace.restored(state["space"], self._config.intrinsic_dim, self.key)
