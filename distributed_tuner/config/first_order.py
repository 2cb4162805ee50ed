"""Settings of the first-order optimizers, which need gradients, one class a kind."""

from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import Field

from distributed_tuner.config.base import Read
from distributed_tuner.config.custom import CustomPart
from distributed_tuner.config.estimator import TrainableDiagonalConfig, TrainedEstimatorConfig
from distributed_tuner.config.optimizer import OptimizerSettings


class FirstOrderSettings(OptimizerSettings):
    """Settings common to first-order optimizers."""

    reads: ClassVar[tuple[Read, ...]] = (Read(("floor",), "schedule", where=("linear", "cosine")),)

    learning_rate: float = Field(default=0.1, gt=0)
    """The step size at the start of the schedule."""
    clip: float = Field(default=1.0, ge=0)
    """Largest L2 norm of a gradient, over the whole prompt; 0 turns clipping off."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """Schedule of the step size over the planned steps."""
    floor: float = Field(default=0.0, ge=0, le=1)
    """Final value of the schedule, as a ratio of ``learning_rate``."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled decay of the coordinates towards the prompt's base rows."""
    batch_size: int | None = Field(default=None, ge=1)
    """Training examples per step; all of them when left out."""


class AdamWConfig(FirstOrderSettings):
    """AdamW (Loshchilov & Hutter 2019), the optimizer of the published MaaO code."""

    kind: Literal["adamw"] = "adamw"
    """Names this optimizer."""
    beta1: float = Field(default=0.9, ge=0, lt=1)
    """Decay of the mean of gradients."""
    beta2: float = Field(default=0.999, ge=0, lt=1)
    """Decay of the mean of squared gradients."""
    eps: float = Field(default=1e-8, gt=0)
    """Added to the root of the squared gradients."""


class SgdConfig(FirstOrderSettings):
    """Gradient descent, with momentum as torch.optim.SGD has it."""

    kind: Literal["sgd"] = "sgd"
    """Names this optimizer."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Decay of the running sum of gradients; 0 turns momentum off."""


class TrainableConfig(FirstOrderSettings):
    """The Trainable Optimizer (Wang & Klabjan 2025): descent along an estimate of the gradient that learns from all."""

    kind: Literal["trainable"] = "trainable"
    """Names this optimizer."""
    estimator: TrainedEstimatorConfig = TrainableDiagonalConfig()
    """The shape of its slope A, and its rates."""


class CustomFirstOrderConfig(OptimizerSettings, CustomPart):
    """A first-order optimizer of your own: a subclass of ``Optimizer`` whose ``white_box`` is true."""

    kind: Literal["custom"] = "custom"
    """Names this optimizer."""

    @property
    def label(self) -> str:
        return self.name or self.class_name

    @property
    def plans_ahead(self) -> bool:
        return True


FirstOrderConfig: TypeAlias = Annotated[
    AdamWConfig | SgdConfig | TrainableConfig | CustomFirstOrderConfig, Field(discriminator="kind")
]
