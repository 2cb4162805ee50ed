"""Settings of the schedule: how Ray Tune treats trials of different promise."""

from typing import Annotated, Literal

from pydantic import Field

from distributed_tuner.config.base import Config


class NoScheduleConfig(Config):
    """Every trial runs to the end of its budget."""

    kind: Literal["none"]


class AshaScheduleConfig(Config):
    """Asynchronous successive halving (Li et al. 2020) on the selected prompt's dev loss, in queries."""

    kind: Literal["asha"]
    grace_queries: int = Field(200, ge=1)
    """Queries that every trial gets."""
    reduction_factor: float = Field(3.0, gt=1)
    """One trial in so many survives a rung."""


ScheduleConfig = Annotated[NoScheduleConfig | AshaScheduleConfig, Field(discriminator="kind")]
