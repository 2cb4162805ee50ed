"""The latent subspace that CMA and Nevergrad search: origin and projection as recipes, and candidates in it."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from distributed_tuner.config.optimizer import LatentSettings
from distributed_tuner.errors import ConfigError
from distributed_tuner.optimizers.base import frozen_copy
from distributed_tuner.optimizers.centers import make_center
from distributed_tuner.seeds import Key, seed_of
from distributed_tuner.values import Array, Array64, Center, Latent, Projection


@dataclass(frozen=True, eq=False, slots=True)
class LatentSpace:
    """Prompts ``origin + A z``; ``origin`` None stands for zeros, so that nothing travels for them.

    The projection's seed is of the run alone: trials of one run seed share one matrix beside the model, and a latent
    vector keeps its meaning when a clone takes it to another trial.
    """

    projection: Projection
    origin: Center | None

    @classmethod
    def around(cls, start: Array, config: LatentSettings, key: Key) -> "LatentSpace":
        """Return the space around ``start``, shape (P,), as ``config`` describes it; ``key[0]`` is the run seed.

        Raises:
            ConfigError: its width is still "auto".
        """
        projection = Projection(
            seed=seed_of((key[0], "projection")),
            dim=config.intrinsic_dim,
            alpha=_number(config),
            sigma=config.sigma,
            distribution=config.projection,
        )
        return cls(projection, make_center(key, 0, start) if np.any(start) else None)

    def moved(self, x: Array, key: Key, step: int) -> "LatentSpace":
        """Return the space with the same projection around x, shape (P,)."""
        return LatentSpace(self.projection, make_center(key, step, x) if np.any(x) else None)

    def candidate(self, z_K: Array64) -> Latent:
        """Return the candidate ``origin + A z``; z is copied to float32."""
        return Latent(frozen_copy(z_K.astype(np.float32)), self.projection, self.origin)

    def state(self) -> dict[str, Any]:
        """Return the space as numbers and arrays, copied."""
        origin = np.zeros(0, dtype=np.float32) if self.origin is None else self.origin.vector.copy()
        return {"projection": asdict(self.projection), "origin": origin}

    @classmethod
    def restored(cls, state: dict[str, Any], dim: int, key: Key) -> "LatentSpace":
        """Return the space that ``state`` describes; raise ConfigError unless it has ``dim`` latent coordinates."""
        projection = Projection(**state["projection"])
        if projection.dim != dim:
            raise ConfigError(
                f"a state fits only its own intrinsic_dim; {projection.dim} in the state and {dim} here: "
                f"set intrinsic_dim to {projection.dim}"
            )
        return cls(projection, make_center(key, 0, state["origin"]) if len(state["origin"]) else None)


def _number(config: LatentSettings) -> float:
    if config.alpha == "auto":
        raise ConfigError(
            "a subspace is searched at a measured width, but alpha is still auto: resolve it first (resolved)"
        )
    return config.alpha
