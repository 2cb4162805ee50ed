"""Rows that a ledger has lost."""

from pathlib import Path

from distributed_tuner.ledger import EventRow, LedgerWriter
from distributed_tuner.ledger.recovery import lost


def event(number: int) -> EventRow:
    return EventRow(time=1.0, kind="warning", message=str(number))


def test_what_is_gone_is_found_and_what_is_there_is_not(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    rows = [event(number) for number in range(6)]
    with LedgerWriter(path) as writer:
        for row in (rows[0], rows[2], rows[5]):
            writer.write(row)
    assert lost(path, rows) == [rows[1], rows[3], rows[4]]
    assert lost(path, [rows[2]]) == [] == lost(path, [])
    assert lost(path, [rows[1], rows[1]]) == [rows[1]], "none twice"
