"""The base of every config model: frozen, typed, and closed to unknown keys.

Every process of a run imports these models, and most check nothing with them: validators are built at first use, and
the docstrings below fields, which describe them, are for readers of the source alone.
"""

from pydantic import BaseModel, ConfigDict

LABEL = r"^[^/\\\x00-\x1f\x7f]+$"
"""Names of methods become parts of file names: neither slashes nor control characters."""


class Config(BaseModel):
    """Frozen settings. Unknown keys are refused; docstrings below fields describe them."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True, allow_inf_nan=False)
