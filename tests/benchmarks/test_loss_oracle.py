"""The benchmark of the loss oracle, run in small: real worker processes on a tiny model. No test looks at a time."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import benchmarks.loss_oracle as command
from benchmarks.rows import Block, Case, Timing, table
from benchmarks.targets import HEADLINE
from benchmarks.turns import SLOW, Task, Turns, affordable, measure
from benchmarks.worker import Sample, Setup, Worker
from distributed_tuner.values import Layout

BLOCK = Block("SST-2", 3)


def case(method: Any, layout: Layout, dtype: Any = "float32", candidates: int = 2) -> Case:
    return Case(BLOCK, method, layout, dtype, candidates)


@pytest.fixture(scope="module")
def small_run(tiny_llama: Path) -> Any:
    cases = [case("plain", "prefix", candidates=1), case("prefix", "prefix"), case("prefix", "prefix", candidates=4)]
    cases += [case("suffix", "suffix"), case("add", "add"), case("prefix", "prefix", "bfloat16")]
    cases += [case("plain", "prefix", "bfloat16", candidates=1)]
    return measure(cases, Turns(str(tiny_llama), threads=1, rounds=3, claimed=frozenset(cases)))


def test_float32_agrees_with_the_plain_way_in_every_layout(small_run: Any) -> None:
    rows = [r for r in table(small_run, [2]) if r.dtype == "float32" and r.method != "plain"]
    assert sorted(r.method for r in rows) == ["add", "prefix", "prefix", "suffix"]
    assert all(r.difference is not None and r.difference < 1e-4 for r in rows)
    assert {round(float(t.losses.mean()), 4) for t in small_run.timings.values()} != {0.6931}


def test_bfloat16_differs_by_rounding_from_its_plain_form(small_run: Any) -> None:
    (row,) = [r for r in table(small_run, [2]) if r.dtype == "bfloat16" and r.method != "plain"]
    assert row.difference is not None and 0 < row.difference < 0.1
    assert row.noise is not None and row.noise > 0 and row.within_noise is not None
    assert row.times_plain is not None and row.times_plain > 0
    assert row.times_plain_float32 is not None and row.times_plain_float32 > 0


def test_samples_peaks_and_rates_are_there(small_run: Any) -> None:
    assert {len(timing.seconds) for timing in small_run.timings.values()} == {2}  # the first of three warmed up
    assert all(timing.peak > 2**25 for timing in small_run.timings.values())
    rates = small_run.rates
    assert {key: len(found) for key, found in rates.items()} == {(BLOCK, "float32"): 15, (BLOCK, "bfloat16"): 6}


def test_the_command_prints_table_and_verdicts_and_writes_json(
    small_run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(command, "measure", lambda cases, turns, say: small_run)
    app = command.typer.Typer()
    app.command()(command.main)
    answer = CliRunner().invoke(app, ["--json", str(tmp_path / "new" / "rows.json")])
    assert answer.exit_code == 0, answer.output
    assert answer.output.count("| SST-2 | 3 |") == 2 * 2 + 5  # the plain way at P = 2 and 20
    assert "not measured  prefix, bfloat16, P = 20, L = 50" in answer.output
    assert "met           float32 losses of every layout" in answer.output
    written = json.loads((tmp_path / "new" / "rows.json").read_text(encoding="utf-8"))
    assert len(written["rows"]) == 9 and len(written["targets"]) == 9
    assert {rate["dtype"] for rate in written["matmul"]} == {"float32", "bfloat16"}


def test_the_whole_plan_has_every_row_once() -> None:
    cases = command.all_cases()
    assert len(cases) == len(set(cases)) == 4 * (2 * 2 + 3 * 2 * 2) + 2 + 2 * 2
    assert set(command.CLAIMED) <= set(cases)
    assert set(command.quick_cases()) <= set(cases)


def test_a_row_says_how_many_candidates_were_really_asked_for() -> None:
    timing = Timing((1.0,), 4, HEADLINE_LOSSES, 2**30)
    (row,) = table(_only(timing), [20])
    assert command.cells(row)[2] == "20 (4)"


HEADLINE_LOSSES: Any = [[0.5]]


def _only(timing: Timing) -> Any:
    from benchmarks.rows import Measured
    from benchmarks.worker import Facts

    facts = Facts(1, {"prefix": (3,), "suffix": (3,), "add": (3,)}, (2,))
    exact = HEADLINE.in_float32
    return Measured({exact: timing}, {}, {}, {exact.block: facts}, {})


def _task(candidates: int, worker: Any, *samples: Sample) -> Task:
    return Task(case("prefix", "prefix", candidates=candidates), worker, candidates, False, list(samples))


@pytest.mark.parametrize(("seconds", "asked"), [(0.01, 20), (2 * SLOW / 4, 4), (2 * SLOW / 5, 4), (100.0, 2)])
def test_slow_rows_ask_for_fewer_candidates_at_once(seconds: float, asked: int) -> None:
    worker: Any = object()
    few = _task(2, worker, Sample(seconds, HEADLINE_LOSSES, 0))
    many = _task(20, worker)
    assert affordable(many, [few, many]) == asked
    assert affordable(many, [many]) == 20  # nothing known yet


def test_a_worker_that_cannot_start_is_an_error_of_the_parent(tmp_path: Path) -> None:
    worker = Worker(Setup("prefix", "float32", 3, "SST-2", str(tmp_path / "none"), 1))
    with pytest.raises(RuntimeError, match=r"the worker of .* died"):
        worker.facts()
    worker.stop()
