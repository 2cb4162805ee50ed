"""Settings of metric loggers: TensorBoard, MLflow, Weights & Biases.

The callbacks themselves are built in ``actors.monitoring.loggers``.
"""

from typing import Annotated, Any, ClassVar, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field

from distributed_tuner.config.base import SERVER, Config, Names


class TensorboardLoggerConfig(Config):
    """TensorBoard's event files, in the run directory under ``tensorboard``."""

    package: ClassVar[str] = "tensorboardX"
    """Module to import."""
    distribution: ClassVar[str] = "tensorboardX"
    """Package for pip."""

    kind: Literal["tensorboard"]


class MlflowLoggerConfig(Config):
    """An MLflow tracking server, or its files."""

    package: ClassVar[str] = "mlflow"
    """Module to import."""
    distribution: ClassVar[str] = "mlflow-skinny"
    """Package for pip."""

    kind: Literal["mlflow"]
    tracking_uri: Annotated[str | None, SERVER] = Field(None, min_length=1)
    """Where the server is, or a local directory, without user, password or query; none: that of MLFLOW_TRACKING_URI,
    else MLflow's own."""
    experiment: str | None = Field(None, min_length=1)
    """Name of the MLflow experiment; the space's name when left out."""


class WandbLoggerConfig(Config):
    """Weights & Biases. The key comes from WANDB_API_KEY or ``wandb login``."""

    package: ClassVar[str] = "wandb"
    """Module to import."""
    distribution: ClassVar[str] = "wandb"
    """Package for pip."""

    kind: Literal["wandb"]
    project: str | None = Field(None, min_length=1)
    """Name of the project; the space's name when left out."""
    entity: Annotated[str | None, Names("account")] = Field(None, min_length=1)
    """The team or user that the project belongs to; the key's own when left out."""


def _spelled_out(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


LoggerConfig: TypeAlias = Annotated[
    TensorboardLoggerConfig | MlflowLoggerConfig | WandbLoggerConfig,
    Field(discriminator="kind"),
    BeforeValidator(_spelled_out),
]
"""One logger; its kind alone stands for it with all its defaults."""


def holds_key(uri: str) -> bool:
    """Tell whether a URI has room for a key: a user, a password or a query."""
    parts = urlsplit(uri)
    return "@" in parts.netloc or bool(parts.query)
