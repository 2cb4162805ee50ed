"""Rows before they are worded: where they came from, their columns, their labels.

Owns looking things up with messages that name the place. Reading files and drawing splits belong to others.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from distributed_tuner.config.task import label_key
from distributed_tuner.errors import TaskError
from distributed_tuner.tasks.templates import nearest

_SHOWN = 8


class Rows(Protocol):
    """Rows by number: a list of mappings, or a ``datasets.Dataset`` that reads each when asked for it."""

    def __len__(self) -> int: ...

    def __getitem__(self, i: int, /) -> Mapping[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of one source. ``numbers[i]`` is what a person would call row ``i``, ``unit`` is "line" or "row"."""

    source: str
    unit: str
    columns: tuple[str, ...]
    rows: Rows
    numbers: Sequence[int]

    def __len__(self) -> int:
        return len(self.rows)

    def where(self, i: int) -> str:
        """Return the place of row ``i``, such as ``data/train.jsonl, line 12``."""
        return f"{self.source}, {self.unit} {self.numbers[i]}"

    def need(self, column: str, role: str) -> None:
        """Raise TaskError where there is no such column."""
        if column not in self.columns:
            raise TaskError(f"{self.source} has no {role} column {column!r}: {nearest(column, self.columns)}")

    def texts(self, i: int, columns: Sequence[str]) -> dict[str, str]:
        """Return the columns of row ``i`` as text without spaces at the ends; TaskError where one is empty."""
        row = self.rows[i]
        found = {column: text_of(row.get(column)) for column in columns}
        for column, text in found.items():
            if not text:
                raise TaskError(
                    f"every example needs text, but {column!r} is empty in {self.where(i)}: fill it or drop the row"
                )
        return found

    def labels(self, column: str, index_of: Callable[[str], int | None], known: Sequence[str]) -> list[int]:
        """Return the label index of every row; TaskError with the place for the first that has none."""
        self.need(column, "label")
        found: list[int] = []
        for i in range(len(self)):
            value = self.rows[i].get(column)
            index = None if missing(value) else index_of(label_key(value))
            if index is None:
                raise self._unknown_label(i, column, value, known)
            found.append(index)
        return found

    def _unknown_label(self, i: int, column: str, value: object, known: Sequence[str]) -> TaskError:
        what = "is empty" if missing(value) else f"is {label_key(value)!r}, which has no label word"
        hint = "add it to label_words, or drop the row"
        if {"True", "False"} & set(known):
            hint += " (YAML reads unquoted yes, no, true and false as booleans: quote such keys)"
        shown = ", ".join(map(repr, known[:_SHOWN])) + (", ..." if len(known) > _SHOWN else "")
        return TaskError(f"the label {column!r} in {self.where(i)} {what}. Known labels: {shown}; {hint}")


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


def text_of(value: object) -> str:
    """Return a cell as text without spaces at the ends; nothing becomes ``""``."""
    return "" if missing(value) else label_key(value)
