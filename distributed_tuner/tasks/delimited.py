"""CSV and TSV: a header, and rows of as many fields. What does not fit is refused with its place, never cut or filled.

CSV is quoted as in RFC 4180. In TSV, quotation marks are text where the lines, as they stand, have as many fields as
the header; unless they are a writer's: each field that begins with one ends with one, those inside are doubled, and
there are some inside, or the header is quoted as well. Where the lines do not fit as they stand, TSV is quoted as CSV
is; but a field with tabs and line breaks would be rows between two marks that have nothing to do with each other.
"""

import csv
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from distributed_tuner.errors import TaskError
from distributed_tuner.tasks.table import Table, require_different

_LONGEST = 2**31 - 1  # characters of a field; the csv module would refuse more than 131,072
_SEPARATORS = {
    ";": ("semicolons", "save it with commas, or put the line sep=; before the header"),
    "\t": ("tabs", "name it .tsv"),
    "|": ("bars", "save it with commas, or put the line sep=| before the header"),
    ",": ("commas", "name it .csv"),
}
_DECLARED = re.compile(r'"?sep=([,;\t|])"?(?:\r\n|\r|\n)')
_QUOTED = re.compile(r'"(?:[^"]|"")*"')


class _Record(NamedTuple):
    """A row's fields, and the line that it begins on."""

    line: int
    fields: list[str]


class _Source(NamedTuple):
    """A file: how its lines are read from the beginning, how many of them are not part of the table, and what parts
    its fields."""

    name: str
    lines: Callable[[], Iterator[str]]
    separator: str
    skipped: int = 0

    def place(self, row: int, line: int) -> str:
        return f"{self.name}, row {row} (line {line})" if row else f"{self.name}, header (line {line})"


def read_delimited(lines: Callable[[], Iterator[str]], name: str, separator: str) -> Table:
    """Read CSV or TSV, by its separator. A first line such as ``sep=;``, which Excel writes, names another one.

    ``lines`` returns the lines with their ends, each time from the first one. Lines without anything are no rows.
    Fields beyond the header's may be there as long as they are empty.

    Raises:
        TaskError: there is no header, two of its names are the same, a row does not fit it, or quotes do not match.
    """
    source = _Source(name, lines, separator)
    if declared := _DECLARED.fullmatch(next(lines(), "")):
        source = _Source(name, lines, declared[1], 1)
    _require_separator(source)
    records = _tabbed(source) if source.separator == "\t" else _records(source, csv.QUOTE_MINIMAL)
    if not records:
        raise TaskError(f"{name} is empty: add a header line and examples, or name another file")
    columns = _columns(records[0].fields)
    if not columns:
        raise TaskError(f"{name} has no header: write the names of the columns into its first line")
    require_different(columns, name)
    for row, (line, fields) in enumerate(records[1:], start=1):
        if misfit := _misfit(fields, columns):
            raise TaskError(f"{source.place(row, line)} {misfit}: {_advice(source.separator)}")
    rows = [dict(zip(columns, fields, strict=False)) for _, fields in records[1:]]
    return Table(name, "row", columns, rows, range(1, len(rows) + 1), [line for line, _ in records[1:]])


def _records(source: _Source, quoting: int) -> list[_Record]:
    csv.field_size_limit(_LONGEST)
    lines = itertools.islice(source.lines(), source.skipped, None)
    reader = csv.reader(lines, delimiter=source.separator, quoting=quoting, strict=True)  # type: ignore[arg-type]
    records: list[_Record] = []
    begins = 1
    try:
        for fields in reader:
            if fields:
                records.append(_Record(source.skipped + begins, fields))
            begins = reader.line_num + 1
    except csv.Error as error:
        place = source.place(len(records), source.skipped + begins)
        raise TaskError(f"{place} cannot be read ({error}): {_advice(source.separator)}") from error
    return records


def _tabbed(source: _Source) -> list[_Record]:
    """Read TSV, where a quotation mark may be text or a writer's."""
    plain = _records(source, csv.QUOTE_NONE)
    marked = [field for _, fields in plain for field in fields if field.startswith('"')]
    if not marked:
        return plain
    if _fit(plain):
        written = plain[0].fields[0].startswith('"') or any('""' in field[1:-1] for field in marked)
        return _records(source, csv.QUOTE_MINIMAL) if written and all(map(_QUOTED.fullmatch, marked)) else plain
    with suppress(TaskError):
        quoted = _records(source, csv.QUOTE_MINIMAL)
        swallowed = any("\t" in field and "\n" in field for _, fields in quoted for field in fields)
        if _fit(quoted) and not swallowed:
            return quoted
    return plain


def _fit(records: Sequence[_Record]) -> bool:
    columns = _columns(records[0].fields)
    return not any(_misfit(fields, columns) for _, fields in records[1:])


def _columns(header: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the columns; those at the end that have none, as separators at the ends of lines make them,
    are no columns."""
    named = len(header)
    while named and not header[named - 1].strip():
        named -= 1
    return tuple(header[:named])


def _misfit(fields: Sequence[str], columns: Sequence[str]) -> str | None:
    """Return in which way a row does not fit the header; None where it does."""
    if len(fields) == len(columns):
        return None
    number = "1 field" if len(fields) == 1 else f"{len(fields)} fields"
    against = f"has {number}, but the header names {len(columns)}"
    if len(fields) < len(columns):
        return f"{against}, and none is left for {columns[len(fields)]!r}"
    beyond = next((field for field in fields[len(columns) :] if field.strip()), None)
    return None if beyond is None else f"{against}, and no column is left for {beyond[:60]!r}"


def _require_separator(source: _Source) -> None:
    """Refuse a file that seems to be parted by something else: it stands in the header and in the line after it."""
    header, *after = [*itertools.islice(source.lines(), source.skipped, source.skipped + 2), ""][:2]
    if source.separator in header:
        return
    for other, (name, remedy) in _SEPARATORS.items():
        if other in header and all(other in line for line in after):
            raise TaskError(
                f"the columns of {source.name} must be parted by {source.separator!r}, but are by {name} ({other!r}) in"
                f" its header {header.strip()[:60]!r}: {remedy}"
            )


def _advice(separator: str) -> str:
    if separator == "\t":
        return "a text must not hold tabs or line breaks"
    return (
        f"a text that holds {separator!r}, quotation marks or line breaks stands in quotation marks, with those inside"
        " doubled"
    )
