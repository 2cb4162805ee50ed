"""The base of every config model: frozen, typed, and closed to unknown keys.

Every process of a run imports these models, and most check nothing with them: validators are built at first use, and
the docstrings below fields, which describe them, are for readers of the source alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

LABEL = r"^[^/\\\x00-\x1f\x7f]+$"
"""Names of methods become parts of file names: neither slashes nor control characters."""


@dataclass(frozen=True, slots=True)
class Read:
    """Says of some settings that they are read only as another one stands.

    setting: the other, as a path from the same mapping, such as "estimator.kind". where: the values with which they are
    read; where it is empty, all are but ``unless``.
    """

    names: tuple[str, ...]
    setting: str
    where: tuple[Any, ...] = ()
    unless: tuple[Any, ...] = ()

    def holds(self, value: Any) -> bool:
        """Tell whether the settings are read with this value of the other."""
        return value in self.where if self.where else value not in self.unless


class Config(BaseModel):
    """Frozen settings. Unknown keys are refused; docstrings below fields describe them."""

    reads: ClassVar[tuple[Read, ...]] = ()
    """When settings are read that are not always: what is set and never read is refused (``config.unread``)."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True, allow_inf_nan=False)


@dataclass(frozen=True, slots=True)
class Names:
    """Marks a setting by what it names outside of a run: a server, a file, a variable, a program. They are
    listed when a run is resumed."""

    what: str


SERVER, VARIABLE, FILE, FOLDER = Names("server"), Names("environment variable"), Names("file"), Names("directory")
MODEL, PROGRAM, CODE = Names("model"), Names("program"), Names("the model's own code")
OWN_CODE, MODULES = Names("code of your own"), Names("directory of modules")


def named(config: Config) -> Iterator[tuple[str, str]]:
    """Yield what the settings name outside of a run: what it is, and its name."""
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, Config):
                yield from named(part)
        marks = [mark for mark in field.metadata if isinstance(mark, Names)]
        if marks and value:  # neither None nor False
            yield from ((mark.what, str(one)) for mark in marks for one in _each(value))


def _each(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)
