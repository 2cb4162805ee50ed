"""Reading JSONL, CSV, TSV and Parquet into a table, with errors that point at the line.

Owns paths, encodings, JSONL and Parquet. What the columns mean belongs to the caller.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from distributed_tuner.errors import TaskError
from distributed_tuner.tasks.cells import Written
from distributed_tuner.tasks.delimited import read_delimited
from distributed_tuner.tasks.table import Table, require_different

SUFFIXES = (".jsonl", ".csv", ".tsv", ".parquet")
_PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip")
_CONVERTED = {".json": "write it as JSONL, one object a line", ".xlsx": "save it as CSV UTF-8"} | dict.fromkeys(
    _PACKED, "unpack it"
)
_SIGNATURES = {
    b"\x1f\x8b": "packed by gzip: unpack it",
    b"PK\x03\x04": "a ZIP archive, as workbooks of Excel are: unpack it, or save it as CSV UTF-8",
    b"PAR1": "Parquet: name it .parquet",
    b"\xff\xfe": "UTF-16 or UTF-32: save it as UTF-8",
    b"\xfe\xff": "UTF-16: save it as UTF-8",
}
PANDAS_INDEX = re.compile(r"__index_level_\d+__")  # a column that pandas adds for itself


def resolve(path: str, root: Path) -> Path | None:
    """Return the first of ``root / path`` and ``path`` (from the working directory) that exists, else None."""
    wanted = Path(path).expanduser()
    return next((p for p in (root / wanted, wanted) if p.exists()), None)


def read(path: str, root: Path) -> Table:
    """Read the file at ``path``; relative paths are looked up next to the settings file first.

    Raises TaskError where the file is missing, empty, of an unknown kind, or cannot be read.
    """
    found = resolve(path, root)
    if found is not None and found.is_dir():
        raise TaskError(f"{path!r} is a folder: name a file in it")
    if found is None or not found.is_file():
        tried = dict.fromkeys(str((base / Path(path).expanduser()).absolute()) for base in (root, Path()))
        raise TaskError(f"no data file {path!r}: looked for {' and '.join(tried)}. Check the path")
    try:
        match found.suffix.lower():
            case ".jsonl":
                table = _read_jsonl(_lines(found, path), path)
            case ".csv":
                table = read_delimited(lambda: _lines(found, path), path, ",")
            case ".tsv":
                table = read_delimited(lambda: _lines(found, path), path, "\t")
            case ".parquet":
                table = _read_parquet(found, path)
            case suffix:
                raise TaskError(
                    f"data files end in {', '.join(SUFFIXES)}, got {suffix or 'no ending'!r} in {path!r}:"
                    f" {_CONVERTED.get(suffix, 'convert it')}"
                )
    except OSError as error:
        raise TaskError(f"{path} cannot be read ({error.strerror or error}): check the file") from error
    if not len(table):
        raise TaskError(f"{path} has no rows: add examples, or name another file")
    return table


def _lines(file: Path, name: str) -> Iterator[str]:
    """Yield the lines of a text file, each with its end."""
    with file.open(encoding="utf-8-sig", newline="") as lines:
        try:
            first = next(lines, "")
            if "\0" in first:
                raise TaskError(f"{name} has NUL characters in its first line, as UTF-16 has: save it as UTF-8")
            yield first
            yield from lines
        except UnicodeDecodeError as error:
            raise _no_text(file, name) from error


def _no_text(file: Path, name: str) -> TaskError:
    data = file.read_bytes()
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        if known := next((what for start, what in _SIGNATURES.items() if data.startswith(start)), None):
            return TaskError(f"{name} is not UTF-8 text but {known}")
        line = data.count(b"\n", 0, error.start) + 1
        return TaskError(
            f"{name} is not UTF-8 text ({error.reason} at byte {error.start}, line {line}): save it as UTF-8"
        )
    return TaskError(f"{name} was changed while it was read: try again")


def _read_jsonl(lines: Iterator[str], name: str) -> Table:
    rows: list[Mapping[str, Any]] = []
    numbers: list[int] = []
    for number, line in enumerate(lines, start=1):
        written = line.removeprefix("\ufeff")  # files that were joined have one inside
        if written.strip():
            rows.append(_json_row(written, f"{name}, line {number}"))
            numbers.append(number)
    columns = tuple(dict.fromkeys(column for row in rows for column in row))
    return Table(name, "line", columns, rows, numbers)


class _Repeated(ValueError):
    """A key that stands twice in a JSON object."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise _Repeated(next(name for name in names if names.count(name) > 1))
    return made


_JSON = json.JSONDecoder(parse_float=Written, object_pairs_hook=_object)


def _json_row(line: str, where: str) -> Mapping[str, Any]:
    try:
        row = _JSON.decode(line)
    except _Repeated as error:
        raise TaskError(f"{where} has the key {str(error)!r} twice in one object: take one out") from error
    except json.JSONDecodeError as error:
        raise TaskError(
            f"{where} is not JSON ({error.msg} at column {error.colno}): one object a line is needed"
        ) from error
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, lists of thousands of levels
        raise TaskError(f"{where} cannot be read ({str(error).split(';')[0]}): mend the line") from error
    if not isinstance(row, dict):
        raise TaskError(
            f'{where} holds a JSON {type(row).__name__}, not an object such as {{"text": ..., "label": ...}}'
        )
    return row


def _read_parquet(file: Path, name: str) -> Table:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as parquet:
            require_different(parquet.schema_arrow.names, name)
            wanted = [column for column in parquet.schema_arrow.names if not PANDAS_INDEX.fullmatch(column)]
            arrow = parquet.read().select(wanted)
        rows = arrow.to_pylist()
    except TaskError:
        raise
    except (pa.ArrowException, ValueError, OverflowError) as error:  # such as a date that Python does not know
        raise TaskError(f"{name} cannot be read ({_first_line(error)}): write it as Parquet again") from error
    narrow = {pa.float16(): np.float16, pa.float32(): np.float32}
    for column, kind in ((f.name, narrow[f.type]) for f in arrow.schema if f.type in narrow):
        for row in rows:  # 0.1 in 32 bits is 0.1, not the 0.10000000149011612 that it is in 64
            row[column] = None if row[column] is None else float(str(kind(row[column])))
    return Table(name, "row", tuple(wanted), rows, range(1, len(rows) + 1))


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
