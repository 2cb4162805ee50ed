"""The ablation's arms are sound experiments that differ in their stages alone, and its table says what runs found."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.ablation import ARMS, SPACE, line, settings
from benchmarks.data_tasks import TASKS
from distributed_tuner.preflight.prepare import prepare
from distributed_tuner.preflight.prepared import Prepared


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with examples of every class of both tasks."""
    folder = tmp_path_factory.mktemp("data")
    for name, task in TASKS.items():
        (folder / name).mkdir()
        for split, count in (("train", 40), ("test", 5)):
            rows = [
                {**{field: f"{word} {field} {i}" for field in task.text}, "label": word}
                for word in task.words
                for i in range(count)
            ]
            (folder / name / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def arm_of(data: Path, task: str, arm: str, queries: int = 300) -> Prepared:
    given = settings(arm, TASKS[task], data / task, "0,1", queries, 3.0, 10)
    return prepare(SPACE, [*given, "oracle={kind: analytic}", "prompt.layout=prefix"])


@pytest.mark.parametrize("task", TASKS)
def test_arms_have_the_same_task_and_budget_and_use_it(data: Path, task: str) -> None:
    prepared = {arm: arm_of(data, task, arm) for arm in ARMS}
    assert {len(each.plans) for each in prepared.values()} == {2}
    assert len({repr(each.plans[0].experiment.task) for each in prepared.values()}) == 1
    assert {each.plans[0].experiment.budget.queries for each in prepared.values()} == {300}
    for arm, each in prepared.items():
        if arm != "LLM only":  # how much that asks depends on the answers
            assert each.projections[0].search.queries > 270, arm
    assert prepared["LLM only"].plans[0].experiment.rounds == 300
    assert prepared["alternating"].plans[0].experiment.task.description == TASKS[task].description


def test_a_row_is_the_mean_over_the_splits() -> None:
    trial: dict[str, Any] = {"queries": 300, "train_loss": 1.0, "dev_metric": 0.5, "test_metric": 0.6}
    counts = {"proposer_calls": 3, "restarts": 3, "restarts_adopted": 1}
    trials = [trial | counts, trial | counts | {"test_metric": 0.8, "queries": 290}]
    row = line("alternating", {"trials": trials})
    assert (row.queries, row.test, row.dev_std) == (295.0, pytest.approx(0.7), 0.0)
    assert row.test_std == pytest.approx(0.1 * 2**0.5)
    assert (row.calls, row.adopted, row.restarts) == (6, 2, 6)
