"""Reading JSONL, CSV, TSV and Parquet into a table, with errors that point at the line.

Owns formats and paths. What the columns mean belongs to the caller.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distributed_tuner.errors import TaskError
from distributed_tuner.tasks.table import Table

SUFFIXES = (".jsonl", ".csv", ".tsv", ".parquet")


def resolve(path: str, root: Path) -> Path | None:
    """Return the first of ``root / path`` and ``path`` (from the working directory) that exists, else None."""
    wanted = Path(path).expanduser()
    return next((p for p in (root / wanted, wanted) if p.exists()), None)


def read(path: str, root: Path) -> Table:
    """Read the file at ``path``; relative paths are looked up beside the settings file first.

    Raises TaskError where the file is missing, empty, of an unknown kind, or cannot be read.
    """
    found = resolve(path, root)
    if found is None or not found.is_file():
        tried = dict.fromkeys(str((base / Path(path).expanduser()).absolute()) for base in (root, Path()))
        raise TaskError(f"no data file {path!r}: looked for {' and '.join(tried)}. Check the path under task")
    try:
        match found.suffix.lower():
            case ".jsonl":
                table = _read_jsonl(found, path)
            case ".csv" | ".tsv" | ".parquet":
                table = _read_frame(found, path)
            case suffix:
                raise TaskError(
                    f"data files end in {', '.join(SUFFIXES)}, got {suffix or 'no ending'!r} in {path!r}: convert it"
                )
    except UnicodeDecodeError as error:
        raise TaskError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}): save it as UTF-8") from error
    if not len(table):
        raise TaskError(f"{path} has no rows: add examples, or name another file")
    return table


def _read_jsonl(file: Path, name: str) -> Table:
    rows: list[Mapping[str, Any]] = []
    numbers: list[int] = []
    with file.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                rows.append(_json_row(line, f"{name}, line {number}"))
                numbers.append(number)
    columns = tuple(dict.fromkeys(column for row in rows for column in row))
    return Table(name, "line", columns, rows, numbers)


def _json_row(line: str, where: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise TaskError(
            f"{where} is not JSON ({error.msg} at column {error.colno}): one object a line is needed"
        ) from error
    if not isinstance(row, dict):
        raise TaskError(
            f'{where} holds a JSON {type(row).__name__}, not an object such as {{"text": ..., "label": ...}}'
        )
    return row


def _read_frame(file: Path, name: str) -> Table:
    import pandas as pd

    try:
        if file.suffix.lower() == ".parquet":
            frame = pd.read_parquet(file)
        else:
            # As text, and without guessing what is missing: "NA" and "None" are words, "007" is a label.
            frame = pd.read_csv(
                file,
                sep="\t" if file.suffix.lower() == ".tsv" else ",",
                dtype=str,
                keep_default_na=False,
                index_col=False,
                encoding="utf-8-sig",
            )
    except UnicodeDecodeError:
        raise
    except pd.errors.EmptyDataError as error:
        raise TaskError(f"{name} is empty: add a header line and examples, or name another file") from error
    except (ValueError, OSError) as error:  # pandas and Arrow derive their parser errors from these
        raise TaskError(
            f"{name} cannot be read ({str(error).strip()}): mend the line, or quote commas and quotes"
        ) from error
    rows: list[Mapping[str, Any]] = [{str(k): v for k, v in row.items()} for row in frame.to_dict("records")]
    return Table(name, "row", tuple(map(str, frame.columns)), rows, range(1, len(rows) + 1))
