"""Settings of stages: the stretches that a trial is made of."""

from typing import Literal

from pydantic import Field

from distributed_tuner.config.base import Config
from distributed_tuner.config.optimizer import OptimizerConfig


class SearchStageConfig(Config):
    """A black-box search until the budget is spent or the optimizer stops."""

    kind: Literal["search"]
    optimizer: OptimizerConfig
    """Who proposes the candidates."""
    look_every: int = Field(100, ge=1)
    """Queries between two looks: the recommended prompt is scored on all of train and dev (two queries)."""
    select: Literal["metric_then_loss", "metric"] = "metric_then_loss"
    """When a look becomes the selected prompt: a better dev metric, ties broken by dev loss; or strictly better dev
    metric alone, first of ties, as in the papers' code."""
    steps: int | None = Field(None, ge=1)
    """Steps after which the stage ends, with the rest of the budget for later stages; none: it takes all there is."""
