"""The whole comparison in its smallest form: every method in every table, the same numbers for the same seed."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from distributed_tuner.analysis import contests, page, trainable_optimizer
from distributed_tuner.analysis.contest import Plan
from distributed_tuner.analysis.contests import PROBLEMS, hold
from distributed_tuner.analysis.findings import Findings
from distributed_tuner.analysis.methods import methods
from distributed_tuner.analysis.runs import Course
from distributed_tuner.analysis.trainable_optimizer import FULL, QUICK, compare
from distributed_tuner.errors import ModelError

LABELS = [method.label for method in methods()]
SMALL = {
    "logistic-breast-cancer-penalty": Plan((0.1, 0.3), 2, 1, 2, Course(5, "harmonic", 2.0, True), 3),
    "convolutional": Plan((0.1,), 1, 1, 2, Course(2, "cosine", 1.0, False), 2),
}
TIMES = ["ms a step", "ms of update"]


@pytest.fixture(name="told")
def small_quick(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(trainable_optimizer, "QUICK", SMALL)
    monkeypatch.setattr(trainable_optimizer, "workers", lambda: 1)
    return []


def tables_of(findings: Findings) -> dict[str, pd.DataFrame]:
    return {table.name: table.rows for table in findings.tables}


def test_all_methods_are_in_all_tables(told: list[str], tmp_path: Path) -> None:
    findings = compare(quick=True, seed=0, note=told.append)
    tables = tables_of(findings)
    assert set(tables) == {"comparisons", "ablation", *(f"results-{name}" for name in SMALL)}
    assert tables["results-logistic-breast-cancer-penalty"]["method"].tolist() == LABELS
    assert tables["results-convolutional"]["method"].tolist() == [label for label in LABELS if label != "TO full"]
    assert tables["comparisons"]["variant"].tolist() == ["full", "diagonal", "rank one", "diagonal", "rank one"]
    assert len(tables["ablation"]) == 8
    left_out = next(table.caption for table in findings.tables if table.name == "results-convolutional")
    assert "Left out: TO full: a tensor of 4,608 coordinates is beyond the 4,096 of a full A." in left_out
    assert [chart.name for chart in findings.charts] == [f"{n}-{k}" for n in SMALL for k in ("loss", "spread", "error")]
    assert [len(chart.curves) for chart in findings.charts] == [7, 7, 7, 6, 6, 6]
    assert len(told) == 14 and len([line for line in told if "left out" in line]) == 1
    assert any("reconstructed from the paper's abstract" in paragraph for paragraph in findings.method)
    assert any("no prompt tuning" in paragraph for paragraph in findings.method)
    assert findings.conclusion[0].startswith("Training A ")
    page.begin(tmp_path / "out")
    assert page.write(findings, tmp_path / "out").exists()


def test_the_seed_names_the_numbers(told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    problem = "logistic-breast-cancer-penalty"
    monkeypatch.setattr(trainable_optimizer, "QUICK", {problem: SMALL[problem]})
    first, again, other = (compare(quick=True, seed=seed, note=told.append) for seed in (3, 3, 4))
    for name, rows in tables_of(first).items():
        pd.testing.assert_frame_equal(
            rows.drop(columns=TIMES, errors="ignore"), tables_of(again)[name].drop(columns=TIMES, errors="ignore")
        )
    assert first.conclusion == again.conclusion
    losses, others = (tables_of(findings)[f"results-{problem}"]["loss"] for findings in (first, other))
    assert (losses != others).all()


def test_quick_leaves_the_language_model_out() -> None:
    assert set(FULL) == set(PROBLEMS)
    assert set(QUICK) == set(PROBLEMS) - {"prompt"}


def test_a_model_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(seed: int) -> Any:
        raise ModelError("there is no model")

    monkeypatch.setitem(contests.PROBLEMS, "prompt", missing)
    with pytest.raises(ModelError, match="there is no model"):
        hold({"prompt": SMALL["convolutional"]}, 0, print, 1)


@pytest.mark.slow
def test_processes_share_the_work_and_change_nothing() -> None:
    alone, shared = (hold(SMALL, 0, lambda line: None, workers) for workers in (1, 2))
    for one, other in zip(alone, shared, strict=True):
        assert list(one.entries) == list(other.entries)
        for name, entry in one.entries.items():
            assert entry.runs.final.tolist() == other.entries[name].runs.final.tolist()
            assert entry.runs.errors.tolist() == other.entries[name].runs.errors.tolist()
