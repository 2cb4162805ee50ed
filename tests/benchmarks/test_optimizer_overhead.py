"""The overhead benchmark in small: every optimizer steps, states are as large as said, the table and JSON agree."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.optimizer_overhead import main, measure, optimizers


def test_all_take_the_same_number_of_turns_and_keep_what_they_say() -> None:
    rows = {row.optimizer: row for row in measure(0.3, 3)}
    assert rows.keys() == optimizers().keys()
    assert {len(row.seconds) for row in rows.values()} == {3}
    assert rows["AdamW"].over_adamw == 1.0
    found = {name: row.numbers for name, row in rows.items()}
    assert found["AdamW"] == pytest.approx(2, abs=0.01)
    assert found["Trainable, diagonal"] == pytest.approx(2, abs=0.01)
    assert found["Trainable, rank_one"] == pytest.approx(3, abs=0.01)


def test_the_command_prints_a_table_and_a_verdict(tmp_path: Path) -> None:
    import typer

    app = typer.Typer()
    app.command()(main)
    done = CliRunner().invoke(app, ["--millions", "0.3", "--rounds", "2", "--json", str(tmp_path / "rows.json")])
    assert done.exit_code == 0, done.output
    assert done.output.count("at most 1.5x AdamW") == 2
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert rows[0]["optimizer"] == "AdamW"
    assert all(f"| {row['optimizer']} |" in done.output for row in rows)
