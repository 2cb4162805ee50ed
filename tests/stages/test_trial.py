"""A whole trial in this process: budgets that hold exactly, states that go on with the same bits, stages in a row."""

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from local_trials import (
    OPTIMIZERS,
    TimedOracle,
    evals_of,
    make_experiment,
    make_task,
    make_trial,
    measures_of,
    paid,
    run,
    steps_of,
    travelled,
)

from distributed_tuner.config.experiment import Experiment
from distributed_tuner.errors import BudgetTooSmall
from distributed_tuner.ledger.rows import EvalRow, Row, StepRow
from distributed_tuner.prompts.spec import prompt_spec
from distributed_tuner.stages.prompt_space import prompt_space
from distributed_tuner.stages.schedule import StageSchedule
from distributed_tuner.stages.step_plan import StagePlan
from distributed_tuner.tasks.base import Task
from distributed_tuner.values import Cost, Request

PRICE = {"usd_per_device_hour": 3.6, "usd_per_million_input_tokens": 10.0}
SEED = 0  # of a run whose first stage finds something better than its start


def last_spent(rows: list[Row]) -> Cost:
    return [row for row in rows if isinstance(row, StepRow | EvalRow)][-1].spent.value()


def plans_of(experiment: Experiment, task: Task) -> list[StagePlan]:
    """Return the plans that ``check`` shows."""
    space = prompt_space(experiment.prompt, task, 3)
    return list(StageSchedule(experiment, task, space, TimedOracle(experiment)).plan_all())


# --------------------------------------------------------------------------------------------------- budgets
@pytest.mark.parametrize("limit", [41, 64, 97])
def test_queries_hold_exactly(optimizer: dict[str, Any], limit: int) -> None:
    rows = run(make_trial(make_experiment(optimizer, budget={"queries": limit})))
    assert paid(rows) == last_spent(rows)
    step = max(row.cost.queries for row in steps_of(rows))
    assert limit - step - 2 < paid(rows).queries <= limit  # nothing is left that would have paid for more


@pytest.mark.parametrize("unit", ["forwards", "tokens"])
@pytest.mark.parametrize("limit", [997, 2003])
def test_forwards_and_tokens_hold_exactly_with_texts_of_unequal_length(
    optimizer: dict[str, Any], unit: str, limit: int
) -> None:
    experiment = make_experiment(optimizer, budget={"queries": None, unit: limit})
    rows = run(make_trial(experiment, make_task(sizes=(1, 9, 4, 2, 7))))
    assert steps_of(rows)
    assert getattr(paid(rows), unit) == getattr(last_spent(rows), unit) <= limit
    assert all(getattr(row.spent, unit) <= limit for row in [*steps_of(rows), *evals_of(rows)])
    assert evals_of(rows)[-1].step == len(steps_of(rows))  # what the last evaluation costs was kept for it


@pytest.mark.parametrize("limit", [1500, 2003, 2600])
def test_the_last_look_is_kept_for_when_steps_cost_more_than_planned(limit: int) -> None:
    experiment = make_experiment(OPTIMIZERS["zot"], budget={"queries": None, "tokens": limit})
    task = make_task(sizes=(1,) * 5 + (12,) * 7)  # the plan is made from the first mini-batch's worth of examples
    rows = run(make_trial(experiment, task))
    assert len(steps_of(rows)) < plans_of(experiment, task)[0].steps
    assert evals_of(rows)[-1].step == len(steps_of(rows))
    assert last_spent(rows).tokens <= limit


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.sampled_from(["random_search", "zot", "cma"]),
    queries=st.integers(8, 90),
    tokens=st.integers(600, 9000),
    eval_every=st.integers(1, 40),
    points=st.integers(1, 4),
)
def test_no_combination_of_limits_is_ever_exceeded(
    name: str, queries: int, tokens: int, eval_every: int, points: int
) -> None:
    optimizer = OPTIMIZERS[name] | ({"points": points} if name == "zot" else {"popsize": points + 1})
    experiment = make_experiment(
        optimizer, budget={"queries": queries, "tokens": tokens}, stage={"eval_every": eval_every}
    )
    try:
        rows = run(make_trial(experiment, make_task(sizes=(1, 6, 3))))
    except BudgetTooSmall:
        return
    total = paid(rows)
    assert total.queries <= queries
    assert total.tokens <= tokens
    assert total == last_spent(rows)
    assert len(evals_of(rows)) >= 1


@pytest.mark.parametrize("limit", [0.9, 1.0, 2.1])
def test_seconds_hold_and_what_is_given_up_is_told(optimizer: dict[str, Any], limit: float) -> None:
    experiment = make_experiment(optimizer, budget={"queries": None, "seconds": limit})
    oracle = TimedOracle(experiment, seconds=0.2)
    trial = make_trial(experiment, oracle=oracle)
    rows = run(trial)
    told = [*steps_of(rows), *evals_of(rows)]
    assert all(row.elapsed <= limit + 1e-9 for row in told)
    assert paid(rows).queries == sum(
        len(request.candidates) for request in oracle.asked[:-1]
    )  # the last one is the test
    assert trial.outcome is not None
    assert "seconds" in trial.outcome.reason or "given up" in trial.outcome.reason


@pytest.mark.parametrize("limit", [0.015, 0.0337])
@pytest.mark.parametrize("price", [PRICE, {"usd_per_device_hour": 10.0}, {"usd_per_million_input_tokens": 10.0}])
def test_dollars_hold_for_device_time_and_tokens(limit: float, price: dict[str, float]) -> None:
    optimizer = OPTIMIZERS["zot"]
    tile = {"candidates": 2, "examples": 8}
    experiment = make_experiment(
        optimizer,
        budget={"queries": None, "usd": limit},
        oracle={"kind": "analytic", "width": 3, "price": price} | {"tile": tile},
    )
    rows = run(make_trial(experiment, oracle=TimedOracle(experiment, seconds=0.01)))
    assert steps_of(rows)
    assert 0.5 * limit < last_spent(rows).usd <= limit * (1 + 1e-12)
    assert paid(rows).usd == pytest.approx(last_spent(rows).usd)


def test_a_request_that_outlives_the_dollars_is_given_up_at_the_limit() -> None:
    price = {"usd_per_device_hour": 3600.0}
    experiment = make_experiment(
        OPTIMIZERS["random_search"],
        budget={"queries": None, "usd": 100.0},
        oracle={"kind": "analytic", "width": 3, "price": price},
    )
    rows = run(make_trial(experiment, oracle=TimedOracle(experiment, seconds=19.0)))
    assert last_spent(rows).usd == pytest.approx(100.0, abs=1e-9)
    given_up = steps_of(rows)[-1]
    assert (given_up.loss, given_up.failed) == (None, 3)
    assert paid(rows) == last_spent(rows)


@pytest.mark.parametrize(
    "budget", [{"queries": 6}, {"forwards": 40}, {"tokens": 300}, {"queries": 5000, "usd": 0.001}], ids=str
)
def test_a_budget_that_pays_for_no_step_is_refused_at_once(budget: dict[str, Any]) -> None:
    experiment = make_experiment(
        OPTIMIZERS["random_search"],
        budget={"queries": None} | budget,
        oracle={"kind": "analytic", "width": 3, "price": {"usd_per_million_input_tokens": 100.0}},
    )
    oracle = TimedOracle(experiment)
    with pytest.raises(BudgetTooSmall, match=r"one step of random_search .* 7 queries.*raise it") as refused:
        make_trial(experiment, oracle=oracle)
    assert refused.value.exit_code == 3
    assert oracle.asked == []


# ------------------------------------------------------------------------------------------------- the plan
@pytest.mark.parametrize("budget", [{"queries": 83}, {"forwards": 801}, {"tokens": 4000}], ids=str)
def test_what_is_planned_is_what_is_done(optimizer: dict[str, Any], budget: dict[str, int]) -> None:
    experiment, task = make_experiment(optimizer, budget={"queries": None} | budget), make_task()
    (plan,) = plans_of(experiment, task)
    trial = make_trial(experiment, task)
    rows = run(trial)
    assert (len(steps_of(rows)), len(evals_of(rows))) == (plan.steps, plan.evaluations)
    done = paid(rows)
    assert (done.queries, done.forwards, done.tokens) == (plan.cost.queries, plan.cost.forwards, plan.cost.tokens)
    assert trial.outcome is not None
    assert trial.outcome.reason == f"all {plan.steps} planned steps done"


def test_two_stages_share_one_budget_as_planned() -> None:
    experiment = make_experiment(
        OPTIMIZERS["random_search"], OPTIMIZERS["zot"], budget={"queries": 100}, first={"steps": 7}
    )
    task = make_task()
    first, second = plans_of(experiment, task)
    assert first.steps == 7
    assert 90 < first.cost.queries + second.cost.queries <= 100
    rows = run(make_trial(experiment, task))
    for stage, plan in enumerate((first, second)):
        assert len([row for row in steps_of(rows) if row.stage == stage]) == plan.steps
        assert len([row for row in evals_of(rows) if row.stage == stage]) == plan.evaluations
    rates = [row.metrics["learning_rate"] for row in steps_of(rows) if row.stage == 1]
    assert rates[-1] < 0.2 * rates[0]  # the cosine comes down within the steps that the second stage really has


def test_two_stages_without_steps_share_the_budget_evenly() -> None:
    experiment = make_experiment(OPTIMIZERS["random_search"], OPTIMIZERS["zot"], budget={"queries": 100})
    first, second = plans_of(experiment, make_task())
    assert 40 < first.cost.queries <= 50
    assert 40 < second.cost.queries <= 60


def greedy(queries: int) -> Experiment:
    """Return an experiment whose first stage would take everything."""
    return make_experiment(
        OPTIMIZERS["random_search"], OPTIMIZERS["zot"], budget={"queries": queries}, first={"steps": 500}
    )


def test_a_second_stage_that_the_first_leaves_nothing_is_refused_before_anything_is_spent() -> None:
    with pytest.raises(BudgetTooSmall, match=r"of which the stages before take 100 queries.*limit the steps"):
        plans_of(greedy(100), make_task())


def test_a_second_stage_that_is_left_nothing_ends_the_trial_in_order() -> None:
    trial = make_trial(greedy(60))
    rows = run(trial)
    assert {row.stage for row in steps_of(rows)} == {0}
    assert len(measures_of(rows)) == 1
    assert trial.selected is not None


def test_a_second_stage_does_what_it_can_when_the_first_took_longer_than_planned() -> None:
    experiment = make_experiment(
        OPTIMIZERS["random_search"], OPTIMIZERS["zot"], budget={"queries": 1000, "seconds": 2.0}, first={"steps": 9}
    )
    trial = make_trial(experiment, oracle=TimedOracle(experiment, seconds=0.2))
    rows = run(trial)
    assert {row.stage for row in steps_of(rows)} == {0}
    assert len(measures_of(rows)) == 1
    assert trial.outcome is not None
    assert "seconds" in trial.outcome.reason


# ------------------------------------------------------------------------------------------------- the stages
def test_a_stage_starts_from_the_prompt_that_the_stage_before_selected(optimizer: dict[str, Any]) -> None:
    first = {"kind": "random_search", "popsize": 4, "sigma": 1.0}
    experiment = make_experiment(first, optimizer, budget={"queries": 150}, first={"steps": 20}, seed=SEED)
    rows = run(make_trial(experiment))
    selected = [row for row in evals_of(rows) if row.stage == 0 and row.selected][-1]
    start = next(row for row in evals_of(rows) if row.stage == 1)
    assert selected.step > 0
    assert (start.train_loss, start.dev_loss) == pytest.approx((selected.train_loss, selected.dev_loss), abs=1e-4)
    assert [row.elapsed for row in steps_of(rows)] == sorted(row.elapsed for row in steps_of(rows))


def test_what_a_later_stage_looks_at_is_selected_only_if_it_beats_the_stages_before() -> None:
    first = {"kind": "random_search", "popsize": 4, "sigma": 1.0}
    second = {"kind": "random_search", "popsize": 4, "sigma": 30.0}  # finds nothing
    experiment = make_experiment(first, second, budget={"queries": 200}, first={"steps": 30}, seed=SEED)
    trial = make_trial(experiment)
    evaluations = evals_of(run(trial))
    selected = [row.score or 0.0 for row in evaluations if row.selected]
    assert selected == sorted(selected, reverse=True)
    assert {row.stage for row in evaluations} == {0, 1}
    assert trial.selected is not None
    assert trial.selected.score == selected[-1] == min(row.score or 0.0 for row in evaluations)


def test_units_of_the_prompt_do_not_move_the_start_of_the_next_stage() -> None:
    prompt = {"length": 2, "init": "zeros", "layout": "prefix", "scale": "paper"}
    first = {"kind": "random_search", "popsize": 4, "sigma": 1.0}
    experiment = make_experiment(first, first, budget={"queries": 150}, first={"steps": 20}, seed=SEED, prompt=prompt)
    rows = run(make_trial(experiment))
    selected = [row for row in evals_of(rows) if row.stage == 0 and row.selected][-1]
    assert selected.step > 0
    assert next(row for row in evals_of(rows) if row.stage == 1).dev_loss == pytest.approx(selected.dev_loss, abs=1e-4)


def test_the_selected_prompt_is_measured_once_on_test_and_not_from_the_budget(optimizer: dict[str, Any]) -> None:
    experiment, task = make_experiment(optimizer, budget={"queries": 60}), make_task()
    oracle = TimedOracle(experiment)
    trial = make_trial(experiment, task, oracle)
    rows = run(trial)
    (measure,) = measures_of(rows)
    assert rows[-1] is measure
    assert [request.batch.split for request in oracle.asked].count("test") == 1
    assert trial.selected is not None
    answer = oracle.evaluate(
        Request((trial.selected.candidate,), task.batch("test"), prompt_spec(experiment.prompt, task))
    )
    right = answer.logits[0].argmax(axis=1) == np.array([example.label for example in task.test])
    assert (measure.metric, measure.loss) == (right.mean(), answer.losses[0])
    assert last_spent(rows).queries <= 60
    chosen = min(evals_of(rows), key=lambda row: row.score)  # type: ignore[arg-type,return-value]
    assert (trial.selected.dev_metric, trial.selected.dev_loss) == (chosen.dev_metric, chosen.dev_loss)


def test_tuning_lowers_the_loss(optimizer: dict[str, Any]) -> None:
    rows = run(make_trial(make_experiment(optimizer, budget={"queries": 300})))
    evaluations = evals_of(rows)
    assert min(evaluation.train_loss for evaluation in evaluations if evaluation.train_loss is not None) < 0.8 * (
        evaluations[0].train_loss or 0
    )


# ------------------------------------------------------------------------------------------------- the state
@pytest.mark.parametrize("after", [0, 1, 4, 11])
def test_a_trial_goes_on_from_its_state_with_the_same_bits(optimizer: dict[str, Any], after: int) -> None:
    experiment = make_experiment(
        optimizer, optimizer, budget={"queries": 110, "seconds": 1000.0}, first={"steps": 5}, stage={"eval_every": 7}
    )
    whole = run(make_trial(experiment))
    first = make_trial(experiment)
    rows = [row for _ in range(after) for row in first.advance()]
    state = travelled(first.state_dict())
    run(first)  # what the original does afterwards must not leak into the copy
    again = make_trial(experiment)
    again.load_state_dict(state)
    rows += run(again)
    assert [_bits(row) for row in rows] == [_bits(row) for row in whole]
    assert again.outcome == first.outcome or again.outcome.reason == first.outcome.reason  # type: ignore[union-attr]


def test_a_state_of_the_second_stage_goes_on_in_the_second_stage(optimizer: dict[str, Any]) -> None:
    experiment = make_experiment(optimizer, optimizer, budget={"queries": 110}, first={"steps": 3})
    whole = run(make_trial(experiment))
    first = make_trial(experiment)
    rows: list[Row] = []
    while not any(row.stage == 1 for row in steps_of(rows)):
        rows += first.advance()
    again = make_trial(experiment)
    again.load_state_dict(travelled(first.state_dict()))
    rows += run(again)
    assert [_bits(row) for row in rows] == [_bits(row) for row in whole]


def test_an_interruption_does_not_count_as_elapsed_time() -> None:
    experiment = make_experiment(OPTIMIZERS["zot"], budget={"queries": 60})
    first = make_trial(experiment)
    for _ in range(5):
        first.advance()
    oracle = TimedOracle(experiment)
    oracle.clock.now += 1e6
    again = make_trial(experiment, oracle=oracle)
    again.load_state_dict(first.state_dict())
    assert again.elapsed() == first.elapsed() > 0
    again.advance()
    assert again.elapsed() == pytest.approx(first.elapsed() + 0.125)


def test_a_state_from_before_there_were_screens_and_ensembles_is_taken_up() -> None:
    experiment = make_experiment(OPTIMIZERS["zot"], budget={"queries": 40})
    first = make_trial(experiment)
    for _ in range(4):
        first.advance()
    state = travelled(first.state_dict())
    older = {name: value for name, value in state.items() if name not in ("archive", "screened")}
    again, same = make_trial(experiment), make_trial(experiment)
    again.load_state_dict(older)
    same.load_state_dict(state)
    assert [row.loss for row in steps_of(run(again))] == [row.loss for row in steps_of(run(same))]


def test_another_index_has_noise_of_its_own() -> None:
    from distributed_tuner.stages.trial import Trial

    experiment = make_experiment(OPTIMIZERS["zot"], budget={"queries": 40})
    runs = [run(Trial("t", experiment, make_task(), TimedOracle(experiment), index=i)) for i in (0, 0, 1)]
    losses = [[row.loss for row in steps_of(rows)] for rows in runs]
    assert losses[0] == losses[1] != losses[2]


def _bits(row: Row) -> dict[str, Any]:
    return row.model_dump(exclude={"time"})
