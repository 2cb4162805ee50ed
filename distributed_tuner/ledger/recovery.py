"""Rows that a ledger has lost with its machine, and that a checkpoint still holds."""

from collections.abc import Sequence
from pathlib import Path

from distributed_tuner.ledger.rows import Row


def lost(path: Path, rows: Sequence[Row]) -> list[Row]:
    """Return those of ``rows`` that are not in the ledger at ``path``, in their order.

    A row is there if its very line is: what is written back is exactly what is gone.
    """
    missing = {row.model_dump_json().encode(): row for row in rows}
    with path.open("rb") as file:
        for line in file:
            missing.pop(line.rstrip(b"\n"), None)
            if not missing:
                break
    return list(missing.values())
