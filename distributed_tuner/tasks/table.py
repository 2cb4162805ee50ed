"""Rows before they are worded: where they came from, their columns, their labels.

Owns looking things up with messages that name the place. Reading files and drawing splits belong to others.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from distributed_tuner.config.task import OnEmpty, label_key
from distributed_tuner.errors import TaskError
from distributed_tuner.tasks.cells import described, is_whole, missing, text_of
from distributed_tuner.tasks.templates import listed, nearest

_YAML_BOOLEANS = {"yes", "no", "on", "off", "y", "n"}


class Rows(Protocol):
    """Rows by number: a list of mappings, or a ``datasets.Dataset`` that reads each when asked for it."""

    def __len__(self) -> int: ...

    def __getitem__(self, i: Any, /) -> Any: ...


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of one source. ``numbers[i]`` is what a person would call row ``i``, ``unit`` is "line" or "row".

    lines: where each row begins in a file whose rows may be several lines.
    """

    source: str
    unit: str
    columns: tuple[str, ...]
    rows: Rows
    numbers: Sequence[int]
    lines: Sequence[int] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def where(self, i: int) -> str:
        """Return the place of row ``i``, such as ``data/train.jsonl, line 12``."""
        return f"{self.source}, {self.place(i)}"

    def place(self, i: int) -> str:
        """Return the place of row ``i`` in its source, such as ``line 12``."""
        line = f" (line {self.lines[i]})" if self.lines else ""
        return f"{self.unit} {self.numbers[i]}{line}"

    def need(self, column: str, role: str) -> None:
        """Raise TaskError where there is no such column."""
        if column not in self.columns:
            raise TaskError(f"{self.source} has no {role} column {column!r}: {nearest(column, self.columns)}")

    def column(self, name: str) -> Sequence[Any]:
        """Return the cells of a column. Half a million rows of a data set as mappings would take minutes."""
        if not isinstance(self.rows, list):
            found: Sequence[Any] = self.rows[name][:]
            return found
        return [row.get(name) for row in self.rows]

    def texts(self, i: int, columns: Sequence[str]) -> dict[str, str]:
        """Return the columns of row ``i`` as text without spaces at the ends.

        Raises:
            TaskError: one is empty, or holds what is no text.
        """
        row: Mapping[str, Any] = self.rows[i]
        return {column: self._text(i, column, row.get(column)) for column in columns}

    def filled(self, columns: Iterable[str], on_empty: OnEmpty) -> list[bool]:
        """Tell of every row whether it holds something in all ``columns``; where rows are to be refused, all do."""
        if on_empty == "refuse":
            return [True] * len(self)
        return [not any(map(missing, cells)) for cells in zip(*map(self.column, columns), strict=True)]

    def labels(
        self,
        column: str,
        index_of: Callable[[str], int | None],
        known: Sequence[str],
        keep: Sequence[bool] | None = None,
    ) -> list[int]:
        """Return the label index of every row, -1 for those not to ``keep``. ``index_of``: by a label's ``label_key``.

        Raises:
            TaskError: there is no such column; or a row has none of the ``known`` labels, with its place.
        """
        self.need(column, "label")
        found: list[int] = []
        for i, value in enumerate(self.column(column)):
            if keep is not None and not keep[i]:
                found.append(-1)
                continue
            index = None if missing(value) or isinstance(value, bytes) else index_of(label_key(value))
            if index is None:
                raise self._unknown_label(i, column, value, known)
            found.append(index)
        return found

    def _text(self, i: int, column: str, value: object) -> str:
        text = text_of(value)
        if text == "":
            raise TaskError(
                f"every example needs text, but {column!r} is empty in {self.where(i)}: fill it, drop the row, or have"
                " all such rows left out by on_empty: drop"
            )
        if text is None or not is_whole(text):
            held = described(value) if text is None else f"half of a surrogate pair ({text[:40]!r})"
            raise TaskError(
                f"{column!r} must hold text, but in {self.where(i)} it holds {held}: write what the model should read"
                " there as one text, or name another column"
            )
        return text

    def _unknown_label(self, i: int, column: str, value: object, known: Sequence[str]) -> TaskError:
        if missing(value):
            return TaskError(
                f"the label {column!r} in {self.where(i)} is empty: fill it, drop the row, or have all such rows left"
                " out by on_empty: drop"
            )
        label = label_key(value)
        if isinstance(value, bytes):
            return TaskError(
                f"the label {column!r} in {self.where(i)} must be text or a number, but is {described(value)}"
                ": write it as text"
            )
        return TaskError(
            f"the label {column!r} in {self.where(i)} is {listed([label])}, which has no label word. Known labels:"
            f" {listed(known)}; {_advice(label, known)}"
        )


def require_different(columns: Sequence[str], source: str) -> None:
    """Raise TaskError where two columns have one name, of which one would be lost."""
    places: dict[str, int] = {}
    for place, column in enumerate(columns, start=1):
        if places.setdefault(column, place) != place:
            raise TaskError(
                f"the columns of {source} must have different names, but number {places[column]} and number {place} are"
                f" both {column!r}: rename one"
            )


def _advice(label: str, known: Sequence[str]) -> str:
    """Return what helps where a label is not known: what YAML may have made of it, or how it is spelled elsewhere."""
    if label.lower() in _YAML_BOOLEANS and {"true", "false"} & set(known):
        return "YAML reads unquoted yes, no, on and off as booleans: quote such keys"
    if label in {"true", "false"} and not {"true", "false"} & set(known):
        return "write true and false as the keys of label_words"
    if label.lower() in {"none", "~"} and "null" in known:
        return "YAML reads unquoted null and ~ as nothing: quote such keys"
    if alike := [name for name in known if name.casefold() == label.casefold()]:
        return f"capitals count, so write it as {alike[0]!r}, or the key of label_words as {label!r}"
    return "add it to label_words, or drop the row"
