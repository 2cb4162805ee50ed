"""JSON files of a run directory, read as what they must be. Somebody else may have written them."""

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json

from distributed_tuner.errors import RunDirectoryError

M = TypeVar("M", bound=BaseModel)


class Told(BaseModel):
    """Validated content of a JSON file; fields of other versions are allowed."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True, allow_inf_nan=False)


def read_json(path: Path, *, name: str = "", nan: bool = False) -> Any:
    """Return what a JSON file holds. ``nan``: it may hold NaN and infinity. ``name``: what a person calls the file.

    Raises:
        RunDirectoryError: it cannot be read, or is no JSON.
    """
    try:
        return from_json(path.read_bytes(), allow_inf_nan=nan)
    except OSError as error:
        raise RunDirectoryError(f"{name or path} cannot be read ({error.strerror}); check who may read it") from None
    except ValueError as error:
        raise _spoiled(name or str(path), f"it is no JSON ({error})") from None


def read_told(path: Path, kind: type[M], *, name: str = "", nan: bool = False) -> M:
    """Return what a JSON file tells.

    Raises:
        RunDirectoryError: it cannot be read, or does not hold what it must.
    """
    return told(read_json(path, name=name, nan=nan), kind, name or str(path))


def read_bytes_told(data: bytes, kind: type[M], name: str) -> M:
    """Return what the content of a JSON file tells; raises as `read_told`."""
    try:
        value = from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise _spoiled(name, f"it is no JSON ({error})") from None
    return told(value, kind, name)


def told(value: Any, kind: type[M], name: str) -> M:
    """Return what a value tells that was read from the file ``name``.

    Raises:
        RunDirectoryError: it does not hold what it must.
    """
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the whole of it"
        problem = first["msg"][0].lower() + first["msg"][1:]
        found = "" if first["type"] == "missing" else f", but got {_short(first['input'])}"
        raise _spoiled(name, f"{where}: {problem}{found}") from None


def _spoiled(name: str, problem: str) -> RunDirectoryError:
    return RunDirectoryError(
        f"{name} must be as a run has written it, but {problem}; copy it back from where the run was made"
    )


def _short(value: Any) -> str:
    if isinstance(value, dict | list):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    if isinstance(value, int) and value.bit_length() > 256:
        return f"a number of {value.bit_length()} bits"
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
