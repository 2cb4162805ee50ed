"""The base of every config model: frozen, typed, and closed to unknown keys."""

from pydantic import BaseModel, ConfigDict

LABEL = r"^[^/\\\x00-\x1f\x7f]+$"
"""Names of methods become parts of file names: neither slashes nor control characters."""


class Config(BaseModel):
    """Frozen settings. Unknown keys are refused; docstrings below fields are their descriptions."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
