"""The benchmarks of heads: what they ask for, and how their tables come about. The numbers are theirs to print."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.head_runs import SPACE, Line, lines_of, mean_of, settings
from benchmarks.heads import HEADS, WORDINGS, Answers, Cell, cells_of, rows_of, task_of
from distributed_tuner.config.experiment import Experiment
from distributed_tuner.config.load import load_space
from distributed_tuner.config.space import draw_trials
from distributed_tuner.ledger.rows import CostRow, EnsembleRow, EvalRow, MeasureRow, TrialRow
from distributed_tuner.values import Cost, Evaluation


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name, wording in WORDINGS.items():
        folder = tmp_path / name
        folder.mkdir()
        rows = [{"text": f"{label} {i}", "label": label} for label in wording["label_words"] for i in range(40)]
        for split in ("train", "test"):
            (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


@pytest.mark.parametrize("name", ["sst2", "agnews", "demo"])
@pytest.mark.parametrize("variant", ["profiled", "plain", "screen"])
def test_runs_are_of_sound_spaces(data: Path, name: str, variant: str) -> None:
    plans = draw_trials(load_space(SPACE, settings(name, data, "0,2", variant, 60, "prefix", 16)))
    experiments: list[Experiment] = [plan.experiment for plan in plans]
    assert [experiment.task.split_seed for experiment in experiments] == [0, 2]
    assert {experiment.objective.head for experiment in experiments} == {
        "label_words" if variant == "plain" else "bias"
    }
    assert {experiment.screen is not None for experiment in experiments} == {variant == "screen"}
    assert {experiment.budget.queries for experiment in experiments} == {60}
    task_of(name, data, 0, 10)


class Telling(Answers):
    """Answers whose words say the label."""

    def __init__(self) -> None:
        self._stream = np.random.default_rng(0)

    def answer(self, text: str, batch: Any) -> Evaluation:
        labels = np.array([example.label for example in batch.examples])
        size = (len(labels), len(batch.label_words) + len(batch.answer_words))
        features = self._stream.standard_normal(size)
        features[:, -4:] += 5 * np.eye(4)[labels % 4]
        logits = features[None, :, : len(batch.label_words)].astype(np.float32)
        return Evaluation(
            np.zeros(1), np.zeros((1, len(labels))), logits, Cost(), features=features.astype(np.float16)[None]
        )


def test_every_head_has_a_cell_fitted_to_train_and_to_all_labels() -> None:
    from dataclasses import replace

    task = replace(task_of("demo", Path(), 0, 40), answer_words=tuple(f" w{i}" for i in range(36)))
    cells = cells_of("demo", 0, task, Telling())
    assert {cell.head for cell in cells} == {*HEADS, "bag of words, no model"}
    best = {(cell.head, cell.on): cell.accuracy for cell in cells}
    assert best["vocabulary, 1,600 words", "train"] > 0.9 > best["label words", "train"]
    assert all(cell.test_rows == 40 for cell in cells)


def test_a_line_is_the_mean_over_the_splits_with_its_interval() -> None:
    cells = [Cell("demo", split, "bias", "train", accuracy, 100) for split, accuracy in ((0, 0.7), (1, 0.9))]
    assert rows_of(cells, "demo") == [["bias", "train", "0.800 (0.711-0.867)", "0.700 0.900"]]


def test_lines_tell_of_every_split_what_would_be_returned(tmp_path: Path) -> None:
    config = {
        "experiment": {"significance": 0.1},
        "task": {"dev": 4},
        "trials": [
            {
                "trial_id": f"bbt-{i}",
                "method": "bbt",
                "split_seed": i,
                "config": {"stages": [{"select": "cross_validation"}]},
            }
            for i in (0, 1)
        ],
    }
    rows: list[Any] = []
    for i, losses in enumerate(([0.1, 0.11, 0.12, 0.1], [0.9, 0.8, 0.9, 0.8])):
        rows.append(TrialRow(trial_id=f"bbt-{i}", method="bbt", seed=0, split_seed=i, drawn={}))
        zero: dict[str, Any] = {"cost": CostRow(), "spent": CostRow(queries=9), "elapsed": 1.0}
        evaluation = {"stage": 0, "step": 1, "train_loss": 0.1, "dev_loss": 0.1, "dev_metric": 0.9, "selected": True}
        rows.append(EvalRow(trial_id=f"bbt-{i}", **evaluation, score=float(np.mean(losses)), losses=losses, **zero))  # type: ignore[arg-type]
        measured: dict[str, Any] = {"split_seed": i, "loss": 0.5, "cost": CostRow()}
        rows.append(
            MeasureRow(what="manual_prompt_with_head", split="dev", metric=0.7, losses=[0.5, 0.4, 0.5, 0.6], **measured)
        )
        rows.append(MeasureRow(what="manual_prompt_with_head", split="test", metric=0.75, **measured))
        rows.append(MeasureRow(what="selected", split="test", metric=0.8, trial_id=f"bbt-{i}", **measured))
    rows.append(EnsembleRow(trial_id="bbt-0", members=3))
    rows.append(
        MeasureRow(what="ensemble", split="test", metric=0.85, trial_id="bbt-0", **measured | {"split_seed": 0})
    )
    (tmp_path / "ledger.jsonl").write_text("".join(row.model_dump_json() + "\n" for row in rows))
    (tmp_path / "config.json").write_text(json.dumps(config))
    lines = lines_of("demo", tmp_path)
    assert [(line.split, line.kept, line.tuned, line.manual_head) for line in lines] == [
        (0, "tuned", 0.8, 0.75),
        (1, "manual_prompt", 0.8, 0.75),
    ]
    assert mean_of(lines)[:7] == ["demo", "mean", "-", "-", "0.7500", "-", "0.8000"]
    assert mean_of(lines)[10] == "0.7750", "of what is returned"
    assert [(line.together, line.members) for line in lines] == [(0.85, 3), (None, 0)]
    assert isinstance(lines[0], Line)
