"""Results of a study, and its command: tables, CSV and page."""

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from pytest import approx

from benchmarks.study.figures import curves_of
from benchmarks.study.page import rankings, tables_of, write_page
from benchmarks.study.rows import Row, frame_of, write_csv
from benchmarks.study.settings import Study
from benchmarks.study.standing import mean_of, p_value, ranking

ROOT = Path(__file__).resolve().parents[2]


def row(task: str, method: str, split: int, budget: int, test: float | None, **more: Any) -> Row:
    given = {"shots": 16, "queries": budget, "forwards": 32 * budget, "tokens": 900 * budget, "seconds": 1.0} | more
    nothing = dict.fromkeys(("train_loss", "score", "dev_metric", "test_label_words", "p_value"))
    facts = {"returned": "tuned", "returned_metric": test, "test_rows": 100, "metric": "accuracy", "dtype": "bfloat16"}
    return Row(task=task, method=method, split=split, budget=budget, test_metric=test, **{**given, **nothing, **facts})  # type: ignore[arg-type]


ROWS = [
    row(task, method, split, budget, level + 0.01 * split + 0.0001 * budget + (0.1 if task == "two" else 0))
    for task in ("one", "two")
    for split in (0, 1, 2)
    for method, budgets, level in (
        ("manual_head", [0], 0.6),
        ("bag_of_words", [0], 0.5),
        ("good", [100, 500], 0.7),
        ("same", [100, 500], 0.7),
        ("upper", [30], 0.8),
    )
    for budget in budgets
]
STUDY = Study.model_validate(
    {
        "name": "page",
        "oracle": {"kind": "transformers", "model": "smollm2-135m"},
        "tasks": {"one": {"kind": "demo"}, "two": {"kind": "demo"}},
        "budgets": [100, 500],
        "methods": {"same": {}, "good": {}, "upper": {"role": "upper_line", "budgets": [30]}},
    }
)


def series(*values: float) -> "pd.Series[float]":
    return pd.Series(values)


def test_an_interval_is_by_the_spread_of_splits_within_tasks() -> None:
    tasks = pd.Series(["a", "a", "a", "b", "b", "b"])
    mean = mean_of(series(0.5, 0.6, 0.7, 0.9, 0.8, 0.7), tasks)
    half = 2.7764451 * (0.01 / 6) ** 0.5  # t of 4 degrees of freedom; a variance of 0.01 within both tasks, of 6 draws
    assert (mean.mean, mean.low, mean.high) == (approx(0.7), approx(0.7 - half), approx(0.7 + half))
    assert mean.spelled == "0.700 ± 0.113"
    assert mean_of(series(0.5, 0.9), pd.Series(["a", "b"])).spelled == "0.700", "nothing tells how splits differ"


def test_a_paired_test_asks_whether_a_mean_difference_is_zero() -> None:
    tasks = pd.Series(["a"] * 3)
    assert p_value(series(0.1, 0.2, 0.3), tasks) == approx(0.0741799)  # scipy.stats.ttest_1samp
    assert p_value(series(0.5, 0.5, 0.5), tasks) == 0.0
    assert p_value(series(0, 0, 0), tasks) == 1.0


def test_methods_are_ranked_and_those_that_are_alike_are_joined() -> None:
    frame = frame_of(one for one in ROWS if one.budget in (0, 500))
    found = ranking(frame, "test_metric")
    assert found is not None
    assert found.methods[2:] == ("manual_head", "bag_of_words") and set(found.methods[:2]) == {"good", "same"}
    assert found.ranks == (1.5, 1.5, 3.0, 4.0)
    assert found.alike == ((0, 1),)
    assert (found.draws, found.tasks) == (6, 2)


def test_nemenyis_critical_difference_is_demsars() -> None:
    rows = [row(str(i), f"m{j}", 0, 100, (i * 7 + j * 3) % 11 / 11) for i in range(14) for j in range(4)]
    found = ranking(frame_of(rows), "test_metric")
    assert found is not None and found.critical_difference == approx(1.25, abs=0.005)  # Demsar 2006, section 3.2.2
    assert found.friedman is not None and 0 < found.friedman <= 1
    assert ranking(frame_of(rows[:1]), "test_metric") is None


def test_a_curve_has_the_budgets_that_are_done_on_all_draws() -> None:
    late = row("one", "good", 0, 1000, 0.9)
    curve = curves_of(frame_of([*ROWS, late]), "queries")["good"]
    assert curve.cost == (100.0, 500.0)
    assert curve.means[1].mean == approx(0.7 + 0.01 + 0.05 + 0.05)
    assert curves_of(frame_of(ROWS), "tokens")["upper"].cost == (27000.0,)


def test_tables_have_a_line_for_each_method_and_budget() -> None:
    tables = tables_of(frame_of(ROWS), STUDY)[16]
    assert [table.title.partition(",")[0] for table in tables] == ["test", "test"]
    assert tables[0].headings == ["method", "budget", "queries", "one", "two", "all"]
    assert [line[:3] for line in tables[0].rows] == [
        ["manual prompt, head", "", "0"],
        ["bag of words", "", "0"],
        ["same", "100", "100"],
        ["same", "500", "500"],
        ["good", "100", "100"],
        ["good", "500", "500"],
        ["upper", "30", "30"],
    ]
    partial = tables_of(frame_of(one for one in ROWS if (one.task, one.method) != ("two", "good")), STUDY)[16]
    assert partial[0].rows[4][3:] == ["0.720 ± 0.025", "-", "-"]


def test_upper_lines_are_not_ranked(tmp_path: Path) -> None:
    found = rankings(frame_of(ROWS), STUDY)
    assert {budget: set(ranked.methods) for budget, ranked in found.items()} == {
        budget: {"good", "same", "manual_head", "bag_of_words"} for budget in (100, 500)
    }


def test_the_page_needs_no_network(tmp_path: Path) -> None:
    write_page(frame_of(ROWS), STUDY, tmp_path / "study.html")
    page = (tmp_path / "study.html").read_text()
    assert page.count("plotly-graph-div") == 2 * 3 + 2, "all tasks and each, by queries and tokens; two standings"
    assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=.?https?:", page)
    assert "0.720 ± 0.025" in page


def test_rows_as_csv_are_sorted_and_have_the_same_columns_always(tmp_path: Path) -> None:
    for rows in (ROWS, ROWS[::-1]):
        write_csv(frame_of(rows), tmp_path / f"{rows is ROWS}.csv")
    text = (tmp_path / "True.csv").read_text()
    assert text == (tmp_path / "False.csv").read_text()
    assert text.splitlines()[0].split(",") == [field.name for field in fields(Row)]
    write_csv(frame_of([]), tmp_path / "none.csv")
    assert (tmp_path / "none.csv").read_text() == text.splitlines(keepends=True)[0]


@pytest.mark.slow
def test_the_command_runs_what_is_left_and_shows_all(tmp_path: Path) -> None:
    from test_study import TREE

    path, out = tmp_path / "study.yaml", tmp_path / "out"
    path.write_text(yaml.safe_dump({**TREE, "budgets": [20, 40], "splits": [0]}))
    command = [sys.executable, "-m", "benchmarks.study", str(path), "--out", str(out), "--workers", "1"]
    first = subprocess.run([*command, "--csv", str(tmp_path / "a.csv")], cwd=ROOT, capture_output=True, text=True)
    assert first.returncode == 0, first.stderr
    assert "| cma | 40 |" in first.stdout and (out / "study.html").exists()
    again = subprocess.run([*command, "--csv", str(tmp_path / "b.csv")], cwd=ROOT, capture_output=True, text=True)
    assert (tmp_path / "a.csv").read_text() == (tmp_path / "b.csv").read_text(), "seconds as well: nothing was run"
    assert again.returncode == 0
    path.write_text(yaml.safe_dump({**TREE, "budgets": [0]}))
    wrong = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert wrong.returncode == 2 and wrong.stderr.startswith("error: ") and "Traceback" not in wrong.stderr
