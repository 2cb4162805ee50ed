"""Settings of the schedule: how Ray Tune treats trials of different promise."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from distributed_tuner.config.base import Config, Read


class NoScheduleConfig(Config):
    """Every trial runs to the end of its budget."""

    kind: Literal["none"] = "none"


class AshaScheduleConfig(Config):
    """Asynchronous successive halving (Li et al. 2020) on the selected prompt's dev loss, in queries."""

    kind: Literal["asha"] = "asha"
    grace_queries: int = Field(200, ge=1)
    """Queries that every trial gets."""
    reduction_factor: float = Field(3.0, gt=1)
    """One trial in so many survives a rung."""


class Bounds(Config):
    """Between what a setting is explored."""

    low: float
    """Smallest value."""
    high: float
    """Largest value."""


class PopulationScheduleConfig(Config):
    """MaaO over a population: at every restart stage, laggards restart from an LLM's prompt or a leader's.

    Trials are ranked by the dev loss of their selected prompts. A trial of the bottom quantile takes the settings of a
    trial of the top quantile, explored as in PBT (Jaderberg et al. 2017), and restarts from the best of the proposals
    made from the whole population's scored prompts and of that trial's own prompt. The others go on with their search.
    """

    reads: ClassVar[tuple[Read, ...]] = (Read(("patience",), "mode", where=("sync",)),)

    kind: Literal["population"] = "population"
    quantile: float = Field(0.25, gt=0, le=0.5)
    """Share of the trials at the bottom that restart, and at the top that they take after."""
    mode: Literal["async", "sync"] = "async"
    """"async": a trial that reaches a restart stage is compared with what is known of the others then. "sync": all wait
    for each other; the same decisions whatever the machine's speed."""
    patience: float = Field(600.0, gt=0)
    """Seconds that trials at a restart stage wait for the others ("sync"); then those decide that are there."""
    explore: dict[str, Bounds] = Field(default_factory=dict)
    """Settings that are perturbed, by path such as ``stages.0.optimizer.learning_rate``: times 0.8 or 1.25, within
    their bounds."""


ScheduleConfig = Annotated[
    NoScheduleConfig | AshaScheduleConfig | PopulationScheduleConfig, Field(discriminator="kind")
]
