"""Projected costs of stages: shares of a budget, restarts reserved, horizons over rounds."""

from typing import Any

import pytest
from local_trials import OPTIMIZERS, TimedOracle, make_experiment, make_task

from distributed_tuner.config.experiment import Experiment
from distributed_tuner.stages.prompt_space import prompt_space
from distributed_tuner.stages.schedule import StageSchedule
from distributed_tuner.values import Cost

RESTART: dict[str, Any] = {"kind": "restart", "proposer": {"kind": "random"}}


def alternating(rounds: int, queries: int, **restart: Any) -> Experiment:
    search = {"kind": "search", "optimizer": OPTIMIZERS["zot"], "eval_every": 20}
    stages = [search, RESTART | restart]
    return make_experiment(OPTIMIZERS["zot"], budget={"queries": queries}, stages=stages, rounds=rounds)


def stage_schedule(experiment: Experiment) -> StageSchedule:
    task = make_task()
    return StageSchedule(experiment, task, prompt_space(experiment.prompt, task, 3), TimedOracle(experiment))


def test_a_restart_at_the_very_end_is_left_out() -> None:
    kinds = [stage.kind for stage in alternating(3, 400).stage_schedule]
    assert kinds == ["search", "restart", "search", "restart", "search"]
    only = make_experiment(OPTIMIZERS["zot"], budget={"queries": 90}, stages=[RESTART], rounds=2)
    assert [stage.kind for stage in only.stage_schedule] == ["restart", "restart"]


def test_searches_share_evenly_what_the_restarts_leave() -> None:
    plans = stage_schedule(alternating(3, 400)).plan_all()
    restart = 5 + 1 + 3  # trajectory, incumbent, proposals
    assert [plan.cost.queries for plan in plans[1::2]] == [restart, restart]
    searches = [plan.cost.queries for plan in plans[::2]]
    assert max(searches) - min(searches) <= 2 * 4 + 2
    assert 400 - 6 < sum(plan.cost.queries for plan in plans) <= 400


def test_a_stage_with_steps_takes_what_it_needs_and_the_others_share_the_rest() -> None:
    first = {"kind": "search", "optimizer": OPTIMIZERS["zot"], "steps": 3}
    last = {"kind": "search", "optimizer": OPTIMIZERS["zot"]}
    both = stage_schedule(make_experiment(OPTIMIZERS["zot"], budget={"queries": 200}, stages=[first, last])).plan_all()
    assert both[0].steps == 3
    turned = stage_schedule(
        make_experiment(OPTIMIZERS["zot"], budget={"queries": 200}, stages=[last, first])
    ).plan_all()
    assert turned[1].steps == 3
    assert sum(plan.cost.queries for plan in turned) <= 200
    assert turned[0].steps > 30


def test_the_schedule_of_an_optimizer_reaches_over_its_rounds() -> None:
    here = stage_schedule(alternating(3, 400))
    plan = here.plan(0, None)
    assert here.horizon(0, plan) == 3 * plan.steps
    assert here.horizon(4, plan) == plan.steps


def test_a_restart_that_cannot_be_paid_costs_nothing() -> None:
    here = stage_schedule(alternating(2, 60))
    assert here.plan(1, Cost(queries=55)).cost == Cost()
    assert here.plan(1, Cost(queries=51)).cost.queries == 9


@pytest.mark.parametrize(("stages", "expected"), [([RESTART], [True, True]), ([RESTART, RESTART], [True] * 4)])
def test_restarts_that_no_search_follows_look_themselves(stages: list[Any], expected: list[bool]) -> None:
    here = stage_schedule(make_experiment(OPTIMIZERS["zot"], budget={"queries": 90}, stages=stages, rounds=2))
    assert [here.validates_after(stage) for stage in range(len(here.stages))] == expected
    between = stage_schedule(alternating(2, 200))
    assert not between.validates_after(1)
