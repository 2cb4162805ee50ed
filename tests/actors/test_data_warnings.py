"""A run tells what in its data flatters the numbers: at its beginning, in its ledger, at the top of its report."""

from pathlib import Path

import pytest
from tuner_runs import RANDOM, run_space, space, write_reviews, write_space

pytestmark = pytest.mark.ray


def test_rows_that_repeat_are_told_by_the_run_and_its_report(
    ray_cluster: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_reviews(tmp_path)
    pool, test = (tmp_path / name for name in ("train.jsonl", "test.jsonl"))
    test.write_text(test.read_text() + "".join(pool.read_text().splitlines(keepends=True)[:2]))
    path = write_space(space({"kind": "analytic"}, [RANDOM], budget={"queries": 8}), tmp_path)
    done = run_space(path, tmp_path / "run")
    told = "2 of 48 rows of train.jsonl are also in test.jsonl"
    assert f"warning: {told}" in capsys.readouterr().out
    assert told in [event.message for event in done.ledger.events if event.kind == "data_warning"]
    report = done.directory.report.read_text()
    assert report.index(told) < report.index("<h2>Methods</h2>")
