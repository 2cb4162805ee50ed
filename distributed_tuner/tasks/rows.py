"""Rows that a Python program hands in: data frames, lists of texts and labels, lists of mappings, as tables."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from distributed_tuner.config.task import label_key
from distributed_tuner.errors import TaskError
from distributed_tuner.tasks.cells import missing
from distributed_tuner.tasks.table import Table, require_different


def labelled_table(data: Any, text: Sequence[str], label: str, source: str) -> Table:
    """Return labelled rows as a table.

    Args:
        data: a pandas DataFrame (or whatever has ``columns`` and ``to_dict``), ``(texts, labels)``, or a list of
            mappings.
        text: the columns that hold the text; of ``(texts, labels)`` there is one.
        label: the column that holds the label.
        source: what messages call the data.

    Raises:
        TaskError: it is none of these.
    """
    if isinstance(data, tuple) and len(data) == 2 and not isinstance(data[0], str | Mapping):
        texts, labels = (_items(part) for part in data)
        if texts is None or labels is None or len(texts) != len(labels):
            raise TaskError(
                f"{source} as (texts, labels) must be two lists of one length, but they have"
                f" {_length(texts)} and {_length(labels)}; give one label for each text"
            )
        if len(text) != 1:
            raise TaskError(
                f"{source} as (texts, labels) hold one text a row, but text names {list(text)}; give a DataFrame, or a"
                " list of mappings with these columns"
            )
        return _table([{text[0]: t, label: y} for t, y in zip(texts, labels, strict=True)], source, (text[0], label))
    return texts_table(data, text, source)


def texts_table(data: Any, text: Sequence[str], source: str) -> Table:
    """Return rows as a table: of a DataFrame, a list of mappings, or a list of texts for a single column.

    Raises:
        TaskError: it is none of these.
    """
    columns = getattr(data, "columns", None)
    if columns is not None and hasattr(data, "to_dict"):
        names = [str(column) for column in columns]
        require_different(names, source)
        found = [dict(zip(names, row, strict=True)) for row in data.itertuples(index=False, name=None)]
        return _table(found, source, names)
    rows = None if isinstance(data, str | bytes | Mapping) else _items(data)
    if rows is None:
        raise TaskError(
            f"{source} must be a pandas DataFrame, (texts, labels), or a list of rows, but got a"
            f" {type(data).__name__}; put it into one of these"
        )
    if rows and all(isinstance(row, Mapping) for row in rows):
        return _table([{str(name): value for name, value in row.items()} for row in rows], source)
    if len(text) == 1 and not any(isinstance(row, Mapping | tuple | list) for row in rows):
        return _table([{text[0]: row} for row in rows], source, text)
    raise TaskError(
        f"{source} must be a list of texts for a template with one column, or of mappings with the columns"
        f" {list(text)}, but its rows are {type(rows[0]).__name__}s; give mappings, or a DataFrame"
    )


def label_values(table: Table, label: str) -> dict[str, Hashable]:
    """Return the labels of a table as they are there, by the text that they are known by; in order where they have
    one."""
    table.need(label, "label")
    found: dict[str, Hashable] = {}
    for value in table.column(label):
        if not missing(value):
            found.setdefault(label_key(value), value)
    try:
        return dict(sorted(found.items(), key=lambda item: item[1]))  # type: ignore[arg-type, return-value]
    except TypeError:  # of several types
        return dict(sorted(found.items()))


def _table(rows: list[dict[str, Any]], source: str, columns: Sequence[str] = ()) -> Table:
    if not rows:
        raise TaskError(f"{source} must have rows, but there are none; add examples")
    names = tuple(columns) or tuple(dict.fromkeys(name for row in rows for name in row))
    return Table(source, "row", names, rows, range(len(rows)))


def _items(data: Any) -> list[Any] | None:
    """Return what a list, an array or a series holds, in Python's own types; None where it is none of them."""
    if hasattr(data, "tolist"):
        found = data.tolist()
        return found if isinstance(found, list) else None
    return None if isinstance(data, str | bytes) or not hasattr(data, "__iter__") else list(data)


def _length(part: list[Any] | None) -> str:
    return "no list" if part is None else str(len(part))
