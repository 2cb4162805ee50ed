import json
from pathlib import Path
from typing import Any

import pytest

from distributed_tuner.ledger import (
    CalibrationRow,
    CostRow,
    EvalRow,
    MeasureRow,
    ParityRow,
    Row,
    RunEndRow,
    RunRow,
    StepRow,
    TrialEndRow,
    TrialRow,
    digest,
    read,
)
from distributed_tuner.ledger.digest import Digest
from distributed_tuner.ledger.rows import EnsembleRow, ScreenedText, ScreenRow
from distributed_tuner.report import summarize, tables, write_summary
from distributed_tuner.report.text import summary_lines
from distributed_tuner.runs.recorded_config import Recorded

CONFIG: dict[str, Any] = {"task": {"metric": "accuracy", "test": 100}}


def cost(queries: int) -> CostRow:
    return CostRow(
        queries=queries, forwards=10 * queries, tokens=100 * queries, seconds=0.5 * queries, usd=0.25 * queries
    )


def trial(name: str, method: str, seed: int = 0) -> TrialRow:
    return TrialRow(time=1, trial_id=name, method=method, seed=seed, split_seed=seed, drawn={"rate": 0.1})


def evaluation(
    name: str, step: int, dev: float | None, *, spent: int, loss: float = 0.5, selected: bool = True
) -> EvalRow:
    return EvalRow(
        time=2.0 + step,
        trial_id=name,
        stage=0,
        step=step,
        train_loss=loss - 0.1,
        dev_loss=loss,
        dev_metric=dev,
        selected=selected,
        cost=cost(2),
        spent=cost(spent),
        elapsed=3.0 * step,
    )


def step(name: str, number: int, *, spent: int, failed: int = 0) -> StepRow:
    return StepRow(
        time=2.0 + number,
        trial_id=name,
        stage=0,
        step=number,
        loss=0.5,
        best_loss=0.5,
        failed=failed,
        cost=cost(4),
        spent=cost(spent),
        elapsed=3.0 * number,
    )


def measure(what: Any, split: Any, metric: float, name: str | None = None, seed: int = 0) -> MeasureRow:
    return MeasureRow(
        time=5, trial_id=name, what=what, split=split, split_seed=seed, loss=0.5, metric=metric, cost=cost(1)
    )


def ended(name: str, status: Any, wall: float = 30.0) -> TrialEndRow:
    return TrialEndRow(time=40, trial_id=name, status=status, reason="", wall_seconds=wall)


def summary_of(*rows: Row, config: dict[str, Any] = CONFIG) -> dict[str, Any]:
    summary = summarize(Digest(rows), config)
    json.dumps(summary, allow_nan=False)
    return summary


def finished_run() -> list[Row]:
    return [
        RunRow(time=0, name="r", version="1", seed=0, methods=["zot", "cma"]),
        measure("manual_prompt", "dev", 0.5),
        measure("manual_prompt", "dev", 0.7, seed=1),
        measure("manual_prompt", "test", 0.55),
        trial("z0", "zot"),
        trial("z1", "zot", 1),
        trial("c0", "cma"),
        evaluation("z0", 0, 0.5, spent=2),
        step("z0", 1, spent=6, failed=3),
        evaluation("z0", 1, 0.8, spent=8, loss=0.4),
        evaluation("z0", 2, 0.7, spent=12, loss=0.3, selected=False),
        measure("selected", "test", 0.75, "z0"),
        ended("z0", "done", 30.0),
        evaluation("z1", 0, 0.9, spent=2),
        measure("selected", "test", 0.85, "z1"),
        ended("z1", "stopped", 10.0),
        evaluation("c0", 0, 0.95, spent=4),
        ended("c0", "failed", 5.0),
        RunEndRow(
            time=50,
            status="done",
            wall_seconds=50.0,
            oracle_busy_seconds=20.0,
            oracle_actors=2,
            tiles=9,
            retries=1,
        ),
    ]


def test_what_a_screen_found_is_told_with_the_best_prompt() -> None:
    found = ScreenRow(
        time=3,
        trial_id="z1",
        stage=0,
        texts=[ScreenedText(text="Judge.", loss=0.5)],
        instruction="Judge.",
        template="{text}\nVerdict:{label_word}",
        label_words=[" bad", " good"],
        cost=cost(1),
        spent=cost(1),
        elapsed=1.0,
    )
    summary = summary_of(*finished_run(), found)
    assert summary["best"]["template"] == found.template and summary["best"]["label_words"] == [" bad", " good"]
    told = list(summary_lines(summary))
    assert r"its template: '{text}\nVerdict:{label_word}'" in told and "its label words: bad, good" in told


def test_prompts_that_are_read_together_stand_beside_the_single_one_with_what_a_row_takes() -> None:
    single = measure("selected", "test", 0.85, "z1").model_copy(
        update={"cost": CostRow(queries=1, forwards=100, tokens=1500)}
    )
    test = measure("ensemble", "test", 0.9, "z1").model_copy(
        update={"cost": CostRow(queries=3, forwards=300, tokens=5000)}
    )
    found = [EnsembleRow(time=5, trial_id="z1", members=many, score=0.3, dev_metric=0.95) for many in (2, 3)]
    summary = summary_of(*finished_run(), *found, single, test)
    told = summary["best"]["ensemble"]
    assert (told["members"], told["dev_metric"], told["test_metric"]) == (3, 0.95, 0.9)
    assert told["test_interval"] == pytest.approx([0.826, 0.945], abs=1e-3)
    assert told["a_row"] == {"forwards": 3.0, "tokens": 50.0} and told["single"] == {"forwards": 1.0, "tokens": 15.0}
    assert summary["best"]["test_metric"] == 0.85 and summary["trials"][0]["ensemble"] is None
    lines = list(summary_lines(summary))
    (row,) = (line for line in lines if line.startswith("3 prompts together "))
    assert row.split() == ["3", "prompts", "together", "-", "-", "-", "0.9500", "0.9000"]
    (line,) = (line for line in lines if line.startswith("3 prompts together:"))
    assert "0.9000 [0.826, 0.945]; a row takes 3 forwards and 50 tokens, the best prompt alone 1 and 15" in line
    assert tables.method_lines(summary)[-1].method == "3 prompts together"
    assert (
        summary_of(*finished_run(), *found, EnsembleRow(time=6, trial_id="z1", members=0))["best"]["ensemble"] is None
    )


def test_the_numbers_of_a_finished_run() -> None:
    summary = summary_of(*finished_run())
    assert summary["status"] == "done"
    assert summary["best"] == {
        "trial_id": "z1",
        "method": "zot",
        "train_loss": pytest.approx(0.4),
        "dev_loss": 0.5,
        "dev_metric": 0.9,
        "test_metric": 0.85,
        "test_metric_label_words": None,
        "test_interval": pytest.approx([0.767, 0.907], abs=1e-3),
        "metric": "accuracy",
        "text": None,
        "template": None,
        "label_words": None,
        "kept": "tuned",
        "p_value": None,
        "significance": None,
        "head": "label_words",
        "tuned": None,
        "ensemble": None,
    }
    manual = {"dev_metric": pytest.approx(0.6), "test_metric": 0.55, "queries": 0}
    assert summary["baseline"]["manual_prompt"] | {"test_interval": None} == manual | {"test_interval": None}
    totals = summary["totals"]
    assert (totals["queries"], totals["forwards"], totals["tokens"], totals["usd"]) == (18, 180, 1800, 4.5)
    assert (totals["wall_seconds"], totals["oracle_busy_seconds"], totals["oracle_busy_fraction"]) == (50.0, 20.0, 0.2)
    assert (totals["proposer_calls"], totals["tiles"], totals["retries"], totals["failed_candidates"]) == (0, 9, 1, 3)
    assert totals["measurement"] == {"queries": 5, "forwards": 50, "tokens": 500, "seconds": 2.5, "usd": 1.25}


def test_a_trial_is_judged_by_its_last_selected_look_and_pays_for_the_rest_too() -> None:
    first = summary_of(*finished_run())["trials"][0]
    assert (first["train_loss"], first["dev_metric"], first["test_metric"]) == (pytest.approx(0.3), 0.8, 0.75)
    assert (first["queries"], first["wall_seconds"], first["status"]) == (12, 30.0, "done")


def raced(name: str, number: int, *, spent: int, queries: int, forwards: int) -> StepRow:
    saved = {"queries_saved": float(queries), "forwards_saved": float(forwards), "sigma": 1.0}
    return step(name, number, spent=spent).model_copy(update={"metrics": saved})


def test_what_races_saved_is_summed_by_trial_and_in_all() -> None:
    rows: list[Row] = [trial("a", "cma"), trial("b", "cma"), trial("z", "zot"), evaluation("z", 0, 0.5, spent=2)]
    rows += [raced("a", 1, spent=6, queries=3, forwards=35), raced("a", 2, spent=10, queries=1, forwards=12)]
    rows += [raced("b", 1, spent=6, queries=0, forwards=0), raced("a", 2, spent=10, queries=2, forwards=25)]  # again
    summary = summary_of(*rows)
    assert [one["queries_saved"] for one in summary["trials"]] == [5, 0, None]
    assert [one["forwards_saved"] for one in summary["trials"]] == [60, 0, None]
    assert (summary["totals"]["queries_saved"], summary["totals"]["forwards_saved"]) == (5, 60)
    assert [one["queries_saved_mean"] for one in summary["methods"]] == [2.5, None]
    table = list(summary_lines(summary))
    assert [line.split()[:4] for line in table[1:]] == [
        ["method", "trials", "queries", "saved"],
        ["manual", "prompt", "-", "0"],
        ["cma", "2", "8", "2"],
        ["zot", "1", "2", "-"],
        [],
        ["best", "tuned:", "z,", "dev"],
    ]
    assert len({len(line) for line in table[1:5]}) == 1


def test_without_a_race_nothing_speaks_of_savings() -> None:
    summary = summary_of(*finished_run())
    assert summary["totals"]["queries_saved"] == summary["totals"]["forwards_saved"] == 0
    table = list(summary_lines(summary))
    assert "saved" not in table[1]
    assert len({len(line) for line in table[1:5]}) == 1


def test_means_leave_failed_trials_out_but_count_them() -> None:
    zot, cma = summary_of(*finished_run())["methods"]
    assert zot == {
        "method": "zot",
        "trials": 2,
        "failed": 0,
        "dev_metric_mean": pytest.approx(0.85),
        "dev_metric_std": pytest.approx(0.1 / 2**0.5),
        "test_metric_mean": pytest.approx(0.8),
        "test_metric_std": pytest.approx(0.1 / 2**0.5),
        "train_loss_mean": pytest.approx(0.35),
        "queries_mean": 7,
        "queries_saved_mean": None,
        "proposer_calls_mean": 0,
        "restarts_mean": 0,
        "restarts_adopted_mean": 0,
        "wall_seconds_mean": 20.0,
    }
    assert (cma["trials"], cma["failed"], cma["dev_metric_mean"], cma["queries_mean"]) == (1, 1, None, None)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([("a", 0.7, 0.5), ("b", 0.8, 0.9)], "b"),  # the metric rules
        ([("a", 0.8, 0.5), ("b", 0.8, 0.4)], "b"),  # then the loss
        ([("a", 0.8, 0.5), ("b", 0.8, 0.5)], "a"),  # then the first
        ([("a", None, 0.1), ("b", 0.1, 0.9)], "b"),  # none is worse than any
    ],
)
def test_the_best_trial(rows: list[tuple[str, float | None, float]], expected: str) -> None:
    evaluations = [evaluation(name, 0, metric, spent=2, loss=loss) for name, metric, loss in rows]
    summary = summary_of(*[trial(name, "zot") for name, _, _ in rows], *evaluations)
    assert summary["best"]["trial_id"] == expected


def test_the_first_is_by_the_config_not_by_who_started_first() -> None:
    config = {**CONFIG, "trials": [{"trial_id": "a", "method": "zot", "config": {"x": 1}}, {"trial_id": "b"}]}
    rows: list[Row] = [
        trial("b", "zot"),
        trial("a", "zot"),
        evaluation("b", 0, 0.8, spent=2),
        evaluation("a", 0, 0.8, spent=2),
    ]
    summary = summary_of(*rows, config=config)
    assert summary["best"]["trial_id"] == "a"
    assert [one["config"] for one in summary["trials"]] == [{"x": 1}, {"rate": 0.1}]


def test_a_run_that_died_is_unfinished_and_falls_back_to_its_rows() -> None:
    rows: list[Row] = []
    for row in finished_run():
        if not isinstance(row, RunEndRow | TrialEndRow):
            rows.append(row)
    planned = {"trial_id": "late", "method": "cma", "seed": 7}
    summary = summary_of(*rows, config={**CONFIG, "trials": [planned]})
    assert summary["status"] == "unfinished"
    totals = summary["totals"]
    assert totals["wall_seconds"] == 5.0  # from the run row at 0 to the last measurement at 5
    assert totals["oracle_busy_seconds"] == 0.5 * (5 * 1 + 5 * 2 + 1 * 4)
    assert totals["oracle_busy_fraction"] is None
    status = {one["trial_id"]: one["status"] for one in summary["trials"]}
    assert status == {"late": "pending", "z0": "unfinished", "z1": "unfinished", "c0": "unfinished"}
    assert [one["trials"] for one in summary["methods"]] == [2, 1]
    assert {one["trial_id"]: one["wall_seconds"] for one in summary["trials"]}["z0"] == 6.0


def test_an_interrupted_and_resumed_run_adds_up_its_sessions() -> None:
    end = RunEndRow(
        time=50, status="interrupted", wall_seconds=50.0, oracle_busy_seconds=20.0, oracle_actors=2, tiles=9, retries=1
    )
    again = RunRow(time=100, name="r", version="1", seed=0, methods=[], resumed=True)
    interrupted = summary_of(trial("a", "zot"), evaluation("a", 0, 0.5, spent=2), ended("a", "interrupted"), end)
    assert (interrupted["status"], interrupted["trials"][0]["status"]) == ("interrupted", "interrupted")
    resumed = summary_of(end, again, end.model_copy(update={"time": 120.0, "status": "done", "wall_seconds": 20.0}))
    assert (resumed["status"], resumed["totals"]["wall_seconds"], resumed["totals"]["tiles"]) == ("done", 70.0, 18)
    assert resumed["totals"]["oracle_busy_fraction"] == pytest.approx(40 / 140)


def test_nothing_at_all_is_a_summary_too() -> None:
    summary = summary_of(config={})
    assert summary["best"]["trial_id"] is None and summary["best"]["metric"] == "metric"
    nothing = {"dev_metric": None, "test_metric": None, "queries": 0, "test_interval": None}
    assert summary["baseline"] == dict.fromkeys(("manual_prompt", "manual_prompt_with_head", "bag_of_words"), nothing)
    assert summary["trials"] == [] and summary["totals"]["queries"] == 0


def test_the_metric_may_also_be_named_at_the_top() -> None:
    assert summary_of(config={"task_metric": "f1"})["best"]["metric"] == "f1"


def test_writing_replaces_the_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    for number in (1, 2):
        write_summary(path, {"number": number})
    assert json.loads(path.read_text()) == {"number": 2}
    with pytest.raises(ValueError, match="JSON compliant"):
        write_summary(path, {"number": float("nan")})
    assert json.loads(path.read_text()) == {"number": 2}
    assert [file.name for file in tmp_path.iterdir()] == ["summary.json"]


def test_the_made_up_run_adds_up(run_dir: Path) -> None:
    ledger = read(run_dir / "ledger.jsonl")
    summary = summarize(digest(run_dir / "ledger.jsonl"), json.loads((run_dir / "config.json").read_text()))
    assert len(summary["trials"]) == 9 and summary["best"]["method"] == "zot"
    assert [one["failed"] for one in summary["methods"]] == [0, 1, 0]
    bought = sum(row.cost.queries for row in ledger.steps) + sum(row.cost.queries for row in ledger.evaluations)
    assert summary["totals"]["queries"] == bought


def calibration(radius: float, snr: float | None, used: str = "bfloat16") -> CalibrationRow:
    return CalibrationRow(
        method="zot",
        radius_name="rho",
        radius=radius,
        split_seed=0,
        dtype="bfloat16",
        signal=0.1,
        noise=0.1,
        snr=snr,
        limit=3.0,
        used=used,
        cost=cost(24),
    )


def test_calibration_is_measurement_and_the_report_tells_of_its_worst() -> None:
    rows = [calibration(0.1, 26.4), calibration(0.5, None)]
    ledger = Digest(rows)
    totals = summarize(ledger, CONFIG)["totals"]
    assert (totals["queries"], totals["measurement"]["queries"]) == (0, 48)
    assert ledger.sessions[0].cost.queries == 48
    assert tables.calibration(ledger) == "bfloat16 at rho 0.1 (zot): signal-to-noise 26, passed"
    assert tables.calibration(Digest(rows[1:])) == "bfloat16 at rho 0.5 (zot): no rounding noise, passed"
    swamped = Digest([*rows, calibration(1e-5, 0.42, "float32")])
    assert tables.calibration(swamped) == "bfloat16 at rho 1e-05 (zot): signal-to-noise 0.42, below 3, so float32"
    assert tables.calibration(Digest([])) is None


def parity(note: str = "") -> ParityRow:
    return ParityRow(time=1, layout="text", repeated=0.0, together=None, noisy=bool(note), note=note, cost=cost(15))


def test_the_parity_gate_is_measurement_and_its_notes_are_events() -> None:
    ledger = Digest([parity(), parity("the endpoint is noisy")])
    totals = summarize(ledger, CONFIG)["totals"]
    assert (totals["queries"], totals["measurement"]["queries"]) == (0, 30)
    assert ledger.sessions[0].cost.queries == 30
    assert [(line.kind, line.message) for line in tables.event_lines(ledger)] == [("parity", "the endpoint is noisy")]


def test_what_answers_told_is_summed_over_sessions_and_stands_among_the_costs() -> None:
    assert summary_of(*finished_run())["totals"]["counts"] == {}
    *rows, end = finished_run()
    assert isinstance(end, RunEndRow)
    ends = [
        end.model_copy(update={"counts": counts})
        for counts in ({"cached_forwards": 1200}, {"cached_forwards": 34, "odd_answers": 2})
    ]
    begun = RunRow(time=51, name="r", version="1", seed=0, methods=["zot"], resumed=True)
    summary = summary_of(*rows, ends[0], begun, ends[1])
    assert summary["totals"]["counts"] == {"cached_forwards": 1234, "odd_answers": 2}
    lines = {line.kind: line.total for line in tables.cost_lines(summary, Recorded.of(CONFIG))}
    assert lines["Forwards answered from the cache"] == "1,234"
    assert lines["Odd answers"] == "2"
    assert not any("cache" in line.kind for line in tables.cost_lines(summary_of(*finished_run()), Recorded.of(CONFIG)))
