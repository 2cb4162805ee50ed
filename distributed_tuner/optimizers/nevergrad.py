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
    """Searches K latent coordinates, or the P coordinates of the whole prompt, around the start."""

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
