"""The benchmark of the extract task: sound search spaces, and lines with a paired test."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.extract_runs import METHODS, SPACE, arguments, cells, is_done, lines_of, p_value, together
from distributed_tuner.config.load import load_space
from distributed_tuner.config.space import draw_trials
from distributed_tuner.ledger.rows import CostRow, GeneratedText, MeasureRow, RunEndRow, RunRow, StepRow, TrialRow


@pytest.mark.parametrize("method", METHODS)
def test_runs_are_of_sound_spaces(method: str, tmp_path: Path) -> None:
    command = arguments(method, tmp_path / "run", "0,1,2", 300, 40)
    given = [one for flag, one in itertools.pairwise(command) if flag == "--set"]
    experiments = [plan.experiment for plan in draw_trials(load_space(SPACE, given))]
    assert [one.task.split_seed for one in experiments] == [0, 1, 2]
    assert {one.budget.queries for one in experiments} == {300}
    assert "--resume" not in command
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    assert arguments(method, tmp_path / "run", "0", 300, None)[-1] == "--resume"


def ledger(folder: Path, *, end: bool = True) -> Path:
    rows: list[Any] = [RunRow(name="extract", version="1", seed=0, methods=["bbt"])]
    told: dict[str, Any] = {"split": "test", "loss": 1.0, "metric": 0.5, "cost": CostRow()}
    for seed in (0, 1):
        shares = {"metrics": {"exact_match": 0.25, "token_f1": 0.4}, "split_seed": seed}
        manual = [GeneratedText(uid=f"test-{i}", text="cup" if i == 3 else "a cup", target="cup") for i in range(4)]
        rows.append(MeasureRow(what="manual_prompt", texts=manual, **shares, **told))
        rows.append(TrialRow(trial_id=f"bbt-{seed}", method="bbt", seed=0, split_seed=seed, drawn={}))
        spent = {"cost": CostRow(), "spent": CostRow(queries=300), "elapsed": 1.0}
        rows.append(StepRow(trial_id=f"bbt-{seed}", stage=0, step=1, loss=1.0, best_loss=1.0, failed=0, **spent))
        tuned = [GeneratedText(uid=f"test-{i}", text="cup" if i < 3 else "mug") for i in range(4)]
        rows.append(MeasureRow(what="selected", trial_id=f"bbt-{seed}", texts=tuned, **shares, **told))
    if end:
        facts = {"wall_seconds": 1, "oracle_busy_seconds": 1, "oracle_actors": 1, "tiles": 1, "retries": 0}
        rows.append(RunEndRow(status="done", **facts))
    folder.mkdir(exist_ok=True)
    (folder / "ledger.jsonl").write_text("".join(row.model_dump_json() + "\n" for row in rows))
    return folder


def test_lines_have_the_gain_of_every_message(tmp_path: Path) -> None:
    lines = lines_of("bbt", ledger(tmp_path / "run"))
    assert [(line.split, line.queries, line.manual, line.tuned_f1) for line in lines] == [
        (0, 300, 0.25, 0.4),
        (1, 300, 0.25, 0.4),
    ]
    assert lines[0].gains == (1, 1, 1, -1)
    assert cells(lines[0])[7:9] == ["3", "1"]
    assert together(lines)[-1] == cells(lines[0])[-1], "a message counts once, however many splits it is tested in"


def test_a_run_without_an_end_is_not_done(tmp_path: Path) -> None:
    assert not is_done(tmp_path)
    assert is_done(ledger(tmp_path / "whole"))
    assert not is_done(ledger(tmp_path / "stopped", end=False))


def test_no_gain_and_a_loss_are_not_significant() -> None:
    assert p_value(np.zeros(8)) == 0.5
    assert p_value(np.array([0.0, -1.0, -1.0, 0.0])) > 0.9
    assert p_value(np.array([1.0, 1.0, 0.0, 1.0, 1.0, 1.0])) < 0.01
