"""The search stage: looks, selection by dev, mini-batches, and what failed queries do."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from local_trials import (
    OPTIMIZERS,
    Scripted,
    TimedOracle,
    evals_of,
    make_experiment,
    make_task,
    make_trial,
    measures_of,
    run,
    steps_of,
)

from distributed_tuner.oracles.codec import codec_of
from distributed_tuner.stages.search import SearchStage
from distributed_tuner.stages.selection import Selected, is_better
from distributed_tuner.values import Array, Point, Request


# ------------------------------------------------------------------------------------------------- looks
def test_there_is_a_look_at_the_start_at_the_end_and_between(optimizer: dict[str, Any]) -> None:
    rows = run(make_trial(make_experiment(optimizer, budget={"queries": 90}, stage={"eval_every": 15})))
    evaluations, steps = evals_of(rows), steps_of(rows)
    per_step = steps[0].cost.queries
    every = -(-15 // per_step)
    expected = sorted({0, *range(every, len(steps) + 1, every), len(steps)})
    assert [evaluation.step for evaluation in evaluations] == expected
    assert all(evaluation.cost.queries == 2 for evaluation in evaluations)


def test_a_look_scores_all_of_train_and_dev_and_steps_only_train() -> None:
    experiment, task = make_experiment(OPTIMIZERS["cma"], budget={"queries": 60}), make_task()
    oracle = TimedOracle(experiment)
    run(make_trial(experiment, task, oracle))
    for request in oracle.asked:
        assert request.batch.examples == task.examples(request.batch.split)
        assert len(request.candidates) == 1 or request.batch.split == "train"
    assert [request.batch.split for request in oracle.asked[:3]] == ["train", "dev", "train"]


@pytest.mark.parametrize("kind", ["zot", "cma"])
def test_mini_batches_are_drawn_anew_each_step_and_the_same_for_all_its_candidates(kind: str) -> None:
    experiment, task = make_experiment(OPTIMIZERS[kind] | {"batch_size": 5}, budget={"queries": 80}), make_task()
    oracle = TimedOracle(experiment)
    run(make_trial(experiment, task, oracle))
    steps = [request for request in oracle.asked if len(request.candidates) > 1]
    batches = [tuple(example.uid for example in request.batch.examples) for request in steps]
    assert len(batches) > 8
    assert {len(request.candidates) for request in steps} == {4 if kind == "zot" else 5}
    assert all(len(set(batch)) == 5 for batch in batches)
    assert set().union(*batches) == {example.uid for example in task.train}
    assert len(set(batches)) > len(batches) // 2


def test_looks_and_selection_are_of_all_examples_where_steps_have_mini_batches() -> None:
    experiment, task = make_experiment(OPTIMIZERS["cma"] | {"batch_size": 5}, budget={"queries": 80}), make_task()
    oracle = TimedOracle(experiment)
    trial = make_trial(experiment, task, oracle)
    (selected,) = [row for row in evals_of(run(trial)) if row.selected][-1:]
    evaluated = [request for request in oracle.asked if len(request.candidates) == 1]
    assert all(request.batch.examples == task.examples(request.batch.split) for request in evaluated)
    assert trial.selected is not None
    whole = [request for request in evaluated if request.batch.split == "train"]
    losses = {float(oracle.evaluate(request).losses[0]) for request in whole}
    assert selected.train_loss == trial.selected.train_loss in losses


def test_a_race_runs_over_its_generation_s_mini_batch() -> None:
    optimizer = OPTIMIZERS["cma"] | {"batch_size": 7, "race_block": 3}
    experiment, task = make_experiment(optimizer, budget={"queries": 80}), make_task()
    oracle = TimedOracle(experiment)
    rows = run(make_trial(experiment, task, oracle))
    firsts = [i for i, request in enumerate(oracle.asked) if len(request.candidates) == 5]  # all meet on it
    drawn = set()
    for at, following in itertools.pairwise([*firsts, len(oracle.asked)]):
        race_batches = [r.batch.examples for r in oracle.asked[at:following] if len(r.batch.examples) <= 3]
        drawn.add(tuple(dict.fromkeys(example.uid for race_batch in race_batches for example in race_batch)))
    assert {len(batch) for batch in drawn} == {7}
    assert len(drawn) > 1
    assert sum(row.metrics["forwards_saved"] for row in steps_of(rows)) >= 0


def test_a_mini_batch_larger_than_train_is_all_of_train() -> None:
    experiment, task = make_experiment(OPTIMIZERS["zot"] | {"batch_size": 64}, budget={"queries": 40}), make_task()
    oracle = TimedOracle(experiment)
    run(make_trial(experiment, task, oracle))
    assert all(len(request.batch.examples) == 12 for request in oracle.asked if request.batch.split == "train")


def test_an_optimizer_that_stops_ends_the_stage_with_a_last_look() -> None:
    experiment = make_experiment(
        OPTIMIZERS["cma"] | {"sigma": 1e-12}, budget={"queries": 4000}, stage={"eval_every": 1000}
    )
    trial = make_trial(experiment)
    rows = run(trial)
    (event,) = [row for row in rows if row.type == "event"]
    assert event.kind == "optimizer_stop"
    assert trial.outcome is not None
    assert trial.outcome.reason == event.message
    assert evals_of(rows)[-1].step == len(steps_of(rows)) < 700


# ------------------------------------------------------------------------------------------------- selection
@pytest.mark.parametrize(
    ("metric", "loss", "by_both", "by_metric"),
    [
        (0.8, 9.0, True, True),
        (0.7, 0.4, True, False),
        (0.7, 0.5, False, False),
        (0.7, 0.6, False, False),
        (0.6, 0.1, False, False),
        (0.9, float("nan"), False, False),
        (0.9, float("inf"), False, False),
        (float("nan"), 0.1, False, False),
    ],
)
def test_a_look_is_selected_for_a_better_metric_or_an_equal_one_with_less_loss(
    metric: float, loss: float, by_both: bool, by_metric: bool
) -> None:
    best = Selected(Point(np.zeros(1, dtype=np.float32)), dev_metric=0.7, dev_loss=0.5, train_loss=0.5)
    score = float("nan")  # says nothing here
    assert is_better(metric, loss, score, best, "metric_then_loss") is by_both
    assert is_better(metric, loss, score, best, "metric") is by_metric
    assert is_better(metric, loss, score, None, "metric") is bool(np.isfinite(metric) and np.isfinite(loss))


@pytest.mark.parametrize(
    ("score", "best", "better"),
    [(0.4, 0.5, True), (0.5, 0.5, False), (0.6, 0.5, False), (0.4, None, True), (float("nan"), None, False),
     (float("inf"), 0.5, False)],
)  # fmt: skip
def test_a_look_is_selected_for_less_loss_by_cross_validation(score: float, best: float | None, better: bool) -> None:
    before = None
    if best is not None:
        before = Selected(Point(np.zeros(1, dtype=np.float32)), 0.9, 0.1, 0.1, score=best)
    assert is_better(0.0, 9.0, score, before, "cross_validation") is better


@pytest.mark.parametrize("rule", ["metric", "metric_then_loss"])
def test_dev_selects_and_train_does_not(optimizer: dict[str, Any], rule: str) -> None:
    experiment = make_experiment(optimizer, budget={"queries": 150}, stage={"eval_every": 1, "select": rule})
    trial = make_trial(experiment)
    evaluations = evals_of(run(trial))
    best: tuple[float, float] | None = None
    for evaluation in evaluations:
        assert evaluation.dev_metric is not None
        assert evaluation.dev_loss is not None
        key = (evaluation.dev_metric, -evaluation.dev_loss if rule == "metric_then_loss" else 0.0)
        assert evaluation.selected == (best is None or key > best)
        best = key if best is None else max(best, key)
    chosen = [evaluation for evaluation in evaluations if evaluation.selected][-1]
    assert trial.selected is not None
    assert trial.selected.dev_loss == chosen.dev_loss
    assert trial.selected.train_loss == chosen.train_loss


# ------------------------------------------------------------------------------------------------- failed queries
def spoiled(every: int, **only: Any) -> Callable[[Request, Array], Array]:
    """Return a spoiler that makes one candidate of ``every`` so many fail, in steps alone or in a split's looks."""
    seen = 0

    def spoil(request: Request, logits: Array) -> Array:
        nonlocal seen
        evaluation = len(request.candidates) == 1
        if evaluation != (only.get("evaluation", False)) or request.batch.split != only.get("split", "train"):
            return logits
        for i in range(len(logits)):
            seen += 1
            if seen % every == 0:
                logits[i, 0, 0] = np.nan  # one example is enough
        return logits

    return spoil


def test_failed_queries_are_counted_paid_and_left_out_of_the_mean(optimizer: dict[str, Any]) -> None:
    experiment = make_experiment(optimizer, budget={"queries": 90})
    oracle = TimedOracle(experiment, spoil=spoiled(4))
    trial = make_trial(experiment, oracle=oracle)
    rows = run(trial)
    steps = steps_of(rows)
    asked = sum(len(request.candidates) for request in oracle.asked if len(request.candidates) > 1)
    assert sum(step.failed for step in steps) == asked // 4
    assert steps[-1].metrics["failed_queries"] == asked // 4
    assert all(step.loss is not None for step in steps if step.failed < step.cost.queries)
    assert steps[-1].spent.queries <= 90
    assert len(measures_of(rows)) == 1
    assert trial.selected is not None
    assert np.isfinite([trial.selected.dev_loss, trial.selected.train_loss]).all()


def test_when_all_steps_fail_the_start_stays_selected(optimizer: dict[str, Any]) -> None:
    experiment = make_experiment(optimizer, budget={"queries": 50})
    trial = make_trial(experiment, oracle=TimedOracle(experiment, spoil=spoiled(1)))
    rows = run(trial)
    assert all((step.loss, step.best_loss, step.failed) == (None, None, step.cost.queries) for step in steps_of(rows))
    rows_of_prompt = trial.selected_prompt()
    assert rows_of_prompt is not None
    assert not rows_of_prompt.any()  # init: zeros
    assert len(measures_of(rows)) == 1


def test_a_look_whose_dev_loss_failed_is_never_selected() -> None:
    experiment = make_experiment(OPTIMIZERS["zot"], budget={"queries": 120}, stage={"eval_every": 8})
    rows = run(make_trial(experiment, oracle=TimedOracle(experiment, spoil=spoiled(2, evaluation=True, split="dev"))))
    evaluations = evals_of(rows)
    assert [evaluation.dev_loss is None for evaluation in evaluations] == [i % 2 == 1 for i in range(len(evaluations))]
    assert not any(evaluation.selected for evaluation in evaluations if evaluation.dev_loss is None)
    assert evaluations[0].selected


def test_without_any_finite_look_nothing_is_selected_measured_or_raised(optimizer: dict[str, Any]) -> None:
    experiment = make_experiment(optimizer, optimizer, budget={"queries": 60}, first={"steps": 3})
    trial = make_trial(experiment, oracle=TimedOracle(experiment, spoil=lambda request, logits: logits * np.nan))
    rows = run(trial)
    assert trial.selected is None
    assert trial.selected_prompt() is None
    assert measures_of(rows) == []
    assert not any(evaluation.selected for evaluation in evals_of(rows))
    assert trial.outcome is not None
    assert trial.outcome.reason.endswith("no evaluation had a finite loss")
    assert np.isnan(trial.progress()["dev_metric"])


# --------------------------------------------------------------------------------------------------- trajectory
RESTART: dict[str, Any] = {"kind": "restart", "proposer": {"kind": "random"}}


@pytest.mark.parametrize(
    ("stage", "exact"),
    [
        ({"kind": "gradient", "optimizer": {"kind": "sgd", "learning_rate": 30.0, "clip": 0, "momentum": 0}}, True),
        ({"kind": "search", "optimizer": OPTIMIZERS["cma"]}, True),
        ({"kind": "search", "optimizer": OPTIMIZERS["zot"] | {"batch_size": 64, "rho": 1e-4}}, False),
    ],
    ids=["gradient", "cma", "zot"],
)
def test_waypoints_have_the_losses_of_their_own_prompts(stage: dict[str, Any], exact: bool) -> None:
    experiment = make_experiment(
        OPTIMIZERS["zot"],
        budget={"queries": 400},
        oracle={"kind": "analytic", "function": "quadratic", "width": 3},
        stages=[stage | {"steps": 6, "eval_every": 1000}, RESTART, stage | {"steps": 1}],
    )
    oracle = TimedOracle(experiment)
    trial = make_trial(experiment, oracle=oracle, proposer=Scripted(["none"]))
    while not trial._stage.done:
        trial.advance()
    assert isinstance(trial._stage, SearchStage) and trial._stage.trajectory is not None
    points = trial._stage.trajectory.recorded
    batch, spec = trial._setup.task.batch("train"), trial._setup.space.spec
    known = [point for point in points if math.isfinite(point.loss)]
    assert len(known) == 6
    for point in known:
        true = oracle.evaluate(Request((point.candidate,), batch, spec)).losses[0]
        assert point.loss == pytest.approx(true, rel=1e-9 if exact else 1e-3)
    best = min(known, key=lambda point: point.loss)
    assert best in trial._stage.trajectory.chosen(2)
    last = trial._stage.trajectory.chosen(2)[-1].candidate
    expected = codec_of(oracle).materialize(trial._stage.current, spec)
    assert np.array_equal(codec_of(oracle).materialize(last, spec), expected)


def test_nothing_is_recorded_where_nothing_reads_it() -> None:
    experiment = make_experiment(OPTIMIZERS["zot"], budget={"queries": 60})
    trial = make_trial(experiment)
    run(trial)
    assert isinstance(trial._stage, SearchStage) and trial._stage.trajectory is None
