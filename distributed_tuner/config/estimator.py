"""Settings of gradient estimators: what an optimizer makes of the gradients that it has seen so far.

The objects themselves are built in ``distributed_tuner.optimizers.directions``.
"""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from distributed_tuner.config.base import Config


class MomentumEstimatorConfig(Config):
    """The running mean of gradients, as ZOT has it; ``momentum`` and ``bias_correction`` are the optimizer's own."""

    kind: Literal["momentum"] = "momentum"
    """Names this estimator."""


class TrainedEstimatorSettings(Config):
    """What the Trainable Optimizer's estimators ``A w + b`` share (Wang & Klabjan 2025)."""

    alpha: float = Field(default=0.1, ge=0, le=1)
    """Rate of the slope A. At 0 it stays 0, and b is a running mean of gradients with decay 1 - beta."""
    beta: float = Field(default=0.1, ge=0, le=1)
    """Rate of the intercept b."""
    decay_steps: float | None = Field(default=None, gt=0)
    """t0 of the rates' decay ``1 / (1 + t / t0)``, t the updates so far; constant when left out."""


class TrainableDiagonalConfig(TrainedEstimatorSettings):
    """A is diagonal: 2 P numbers."""

    kind: Literal["trainable_diagonal"] = "trainable_diagonal"
    """Names this estimator."""


class TrainableRankOneConfig(TrainedEstimatorSettings):
    """A is u v^T: 3 P numbers."""

    kind: Literal["trainable_rank_one"] = "trainable_rank_one"
    """Names this estimator."""


class TrainableFullConfig(TrainedEstimatorSettings):
    """A is any matrix: P x P numbers, for prompts of few coordinates."""

    kind: Literal["trainable_full"] = "trainable_full"
    """Names this estimator."""


TrainedEstimatorConfig: TypeAlias = Annotated[
    TrainableDiagonalConfig | TrainableRankOneConfig | TrainableFullConfig, Field(discriminator="kind")
]
EstimatorConfig: TypeAlias = Annotated[
    MomentumEstimatorConfig | TrainableDiagonalConfig | TrainableRankOneConfig | TrainableFullConfig,
    Field(discriminator="kind"),
]
