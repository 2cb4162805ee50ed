"""Cells of a table: nothing, a text, or a value that a model could only be shown as a program prints it."""

import base64
import json
import math
from datetime import date, time
from decimal import Decimal

_SHOWN = 60


class Written(float):
    """A number of a JSON file that is also known as it is written there: as a text, ``1.10`` stays ``1.10``."""

    __slots__ = ("_written",)
    _written: str

    def __new__(cls, written: str) -> "Written":
        number = super().__new__(cls, written)
        number._written = written
        return number

    def __str__(self) -> str:
        return self._written


def missing(value: object) -> bool:
    """Tell whether a cell holds nothing."""
    if isinstance(value, str):
        return not value.strip()
    # pandas' own markers are known by name, so that pandas need not be imported for them.
    return (
        value is None
        or type(value).__name__ in {"NAType", "NaTType"}
        or (isinstance(value, float) and math.isnan(value))
    )


def text_of(value: object) -> str | None:
    """Return a cell as text without spaces at the ends: ``""`` for nothing, None for what is no text.

    Numbers and dates are texts, booleans are ``true`` and ``false``; lists, mappings and bytes are none.
    """
    if isinstance(value, str):
        return value.strip()
    if missing(value):
        return ""
    match value:
        case bool():
            return str(value).lower()
        case float() if value.is_integer() and not isinstance(value, Written):
            return str(int(value))
        case int() | float() | Decimal() | date() | time():
            return str(value)
    return None


def described(value: object) -> str:
    """Return what a cell that is no text holds, in words."""
    match value:
        case list():
            return f"a list ({_shown(value)})"
        case dict():
            return f"a mapping ({_shown(value)})"
        case bytes():
            return f"bytes ({value[:_SHOWN]!r})"
    return f"a {type(value).__name__}"


def is_whole(text: str) -> bool:
    """Tell whether a text can be written down: half of a surrogate pair, as cut emojis leave it, cannot."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def in_json(value: object) -> str:
    """Return what JSON has no form for as text, bytes in base 64: ``json.dumps(..., default=in_json)``."""
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


def in_csv(value: object) -> object:
    """Return a cell as a CSV file can hold it: lists and mappings as JSON, bytes in base 64, the rest as it is."""
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, default=in_json)
    return in_json(value) if isinstance(value, bytes) else value


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
