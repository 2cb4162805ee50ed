import json
from pathlib import Path

import pytest

from benchmarks.ledger import main, write
from distributed_tuner.ledger import read


def test_the_ledger_that_is_made_up_has_the_rows_that_are_asked_for(tmp_path: Path) -> None:
    written = write(tmp_path / "ledger.jsonl", 300, 3)
    ledger = read(tmp_path / "ledger.jsonl")
    assert written == 1 + 3 + len(ledger.steps) + len(ledger.evaluations) + len(ledger.restarts)
    assert (len(ledger.trials), len(ledger.steps), len(ledger.evaluations), len(ledger.restarts)) == (3, 288, 12, 9)


def test_a_line_for_each_number_of_trials(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(rows=120, trials="2,4", json_file=tmp_path / "lines.json")
    printed = capsys.readouterr().out
    assert "| 129 | 2 |" in printed and "| 137 | 4 |" in printed
    assert [line["trials"] for line in json.loads((tmp_path / "lines.json").read_text())] == [2, 4]
