"""The whole comparison in its smallest form: every method in every table, the same numbers for the same seed."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import typer

from benchmarks.reproductions.trainable_optimizer import __main__ as command
from benchmarks.reproductions.trainable_optimizer import comparison, runner
from benchmarks.reproductions.trainable_optimizer.comparison import FULL, QUICK, compare
from benchmarks.reproductions.trainable_optimizer.methods import methods
from benchmarks.reproductions.trainable_optimizer.runner import PROBLEMS, hold
from benchmarks.reproductions.trainable_optimizer.runs import Course
from benchmarks.reproductions.trainable_optimizer.tuning import Plan
from distributed_tuner.analysis import page
from distributed_tuner.analysis.findings import Findings
from distributed_tuner.errors import ModelError

LABELS = [method.label for method in methods()]
SMALL = {
    "logistic-breast-cancer-penalty": Plan((0.1, 0.3), 2, 1, 2, Course(5, "harmonic", 2.0, True), 3),
    "convolutional": Plan((0.1,), 1, 1, 2, Course(2, "cosine", 1.0, False), 2),
}
TIMES = ["ms a step", "ms of update"]


@pytest.fixture(name="told")
def small_quick(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(comparison, "QUICK", SMALL)
    monkeypatch.setattr(comparison, "workers", lambda: 1)
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
    monkeypatch.setattr(comparison, "QUICK", {problem: SMALL[problem]})
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

    monkeypatch.setitem(runner.PROBLEMS, "prompt", missing)
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


def test_the_command_writes_its_page(told: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command.main(out=str(tmp_path / "out"), quick=True)
    said = capsys.readouterr().out
    assert "Training A " in said and f"analysis: {tmp_path / 'out' / page.PAGE}" in said
    assert (tmp_path / "out" / page.PAGE).exists()


def test_the_command_leaves_other_things_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("keep")
    with pytest.raises(typer.Exit):
        command.main(out=str(tmp_path), quick=True)
    assert "holds something else" in capsys.readouterr().err
