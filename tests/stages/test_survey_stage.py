"""Settings that are left to be measured: what the survey asks and costs, and what the search then does."""

from typing import Any

import numpy as np
import pytest
from local_trials import TimedOracle, evals_of, make_experiment, make_task, make_trial, paid, run, steps_of, travelled

from distributed_tuner.config.experiment import Experiment
from distributed_tuner.config.optimizer import ZotConfig
from distributed_tuner.config.stage import SearchStageConfig
from distributed_tuner.config.validation import experiment_of
from distributed_tuner.errors import BudgetTooSmall, ConfigError
from distributed_tuner.ledger.rows import Row, SurveyRow
from distributed_tuner.maths.curvature import step_size
from distributed_tuner.optimizers import build
from distributed_tuner.optimizers.zot_probe import QUERIES
from distributed_tuner.preflight.precision_cases import cases
from distributed_tuner.report import formatting
from distributed_tuner.stages.prompt_space import prompt_space
from distributed_tuner.stages.schedule import StageSchedule
from distributed_tuner.values import Array, Perturbation, Request

AUTO: dict[str, Any] = {"kind": "zot", "points": "auto", "rho": "auto", "learning_rate": "auto", "batch_size": 5}
RANDOM: dict[str, Any] = {"kind": "random_search", "popsize": 3}
QUADRATIC: dict[str, Any] = {"kind": "analytic", "width": 30, "function": "quadratic", "condition": 1.5}


def surveys_of(rows: list[Row]) -> list[SurveyRow]:
    return [row for row in rows if isinstance(row, SurveyRow)]


def asked_radii(oracle: TimedOracle) -> set[float]:
    """Return the radii of the pairs that steps asked for."""
    steps = [request for request in oracle.asked if 1 < len(request.candidates) < QUERIES]
    return {c.radius for request in steps for c in request.candidates if isinstance(c, Perturbation)}


def test_a_survey_is_paid_like_a_step_and_its_settings_are_used() -> None:
    experiment = make_experiment(AUTO, budget={"queries": 141})
    oracle = TimedOracle(experiment)
    rows = run(make_trial(experiment, oracle=oracle))
    (survey,) = surveys_of(rows)
    assert rows[0] is survey
    assert survey.cost.queries == survey.spent.queries == QUERIES == 41
    assert survey.note == ""
    assert len(oracle.asked[0].batch.examples) == 5
    assert paid(rows).queries + QUERIES == evals_of(rows)[-1].spent.queries <= 141
    steps = steps_of(rows)
    assert steps[0].metrics["learning_rate"] == pytest.approx(survey.settings["learning_rate"])
    assert steps[-1].metrics["learning_rate"] < 0.2 * steps[0].metrics["learning_rate"]  # over the steps that are left
    assert {row.cost.queries for row in steps} == {2 * survey.settings["points"]}
    assert asked_radii(oracle) == {survey.settings["rho"]}


def test_the_theorem_s_numbers_are_found_on_a_quadratic() -> None:
    """The label's cross-entropy bends the analytic quadratic little near its optimum, so start there."""
    experiment = make_experiment(AUTO, budget={"queries": 200}, oracle=QUADRATIC)
    (survey,) = surveys_of(run(make_trial(experiment)))
    assert survey.trace is not None
    assert survey.norm is not None
    assert survey.effective_dimension is not None
    assert survey.settings["learning_rate"] == pytest.approx(
        step_size(survey.effective_dimension, int(survey.settings["points"]), survey.norm)
    )
    assert survey.effective_dimension > 3.0
    assert survey.settings["points"] >= 1


def test_settings_that_were_given_stay() -> None:
    experiment = make_experiment({**AUTO, "points": 3, "rho": 0.05}, budget={"queries": 150})
    oracle = TimedOracle(experiment)
    rows = run(make_trial(experiment, oracle=oracle))
    (survey,) = surveys_of(rows)
    assert (survey.settings["points"], survey.settings["rho"]) == (3, 0.05)
    assert asked_radii(oracle) == {0.05}
    assert steps_of(rows)[0].cost.queries == 6
    assert steps_of(rows)[0].metrics["learning_rate"] == pytest.approx(survey.settings["learning_rate"])


def test_without_auto_nothing_is_surveyed() -> None:
    assert surveys_of(run(make_trial(make_experiment({"kind": "zot"}, budget={"queries": 60})))) == []


@pytest.mark.parametrize("at", [0, 1, 2, 3, 6])
def test_a_trial_goes_on_with_the_same_bits_around_its_survey(at: int) -> None:
    experiment = make_experiment(AUTO, RANDOM, AUTO, budget={"queries": 300})
    whole = run(make_trial(experiment))
    trial = make_trial(experiment)
    rows: list[Row] = []
    for _ in range(at):
        rows.extend(trial.advance())
    state = travelled(trial.state_dict())
    again = make_trial(experiment)
    again.load_state_dict(state)
    rows.extend(run(again))
    assert [told(row) for row in rows] == [told(row) for row in whole]
    assert len(surveys_of(rows)) == 2


def told(row: Row) -> dict[str, Any]:
    told = row.model_dump(exclude={"time", "elapsed"})
    for cost in (told.get("cost"), told.get("spent")):
        if cost:
            del cost["seconds"]
    return told


def test_what_is_planned_is_what_is_done() -> None:
    experiment, task = make_experiment(AUTO, RANDOM, budget={"queries": 230}, first={"steps": 20}), make_task()
    stage_schedule = StageSchedule(experiment, task, prompt_space(experiment.prompt, task, 3), TimedOracle(experiment))
    first, second = stage_schedule.plan_all()
    rows = run(make_trial(experiment, task))
    (survey,) = surveys_of(rows)
    assert survey.settings["points"] == 1  # as is planned for
    spent = {stage: [row.spent.queries for row in evals_of(rows) if row.stage == stage][-1] for stage in (0, 1)}
    assert (spent[0], spent[1]) == (first.cost.queries, first.cost.queries + second.cost.queries)


def test_later_rounds_have_the_settings_of_the_first() -> None:
    experiment = make_experiment(AUTO, RANDOM, budget={"queries": 400}, rounds=3)
    rows = run(make_trial(experiment))
    (survey,) = surveys_of(rows)
    rates = {row.stage: row.metrics["learning_rate"] for row in reversed(steps_of(rows)) if row.stage in (0, 2, 4)}
    assert set(rates) == {0, 2, 4}
    assert rates[0] == pytest.approx(survey.settings["learning_rate"])


def test_a_budget_that_pays_for_no_survey_is_refused_at_once() -> None:
    with pytest.raises(BudgetTooSmall, match=r"the survey of its settings \(41 queries\): 47 queries"):
        make_trial(make_experiment(AUTO, budget={"queries": 46}))
    make_trial(make_experiment(AUTO, budget={"queries": 47}))


def defaults(row: SurveyRow) -> bool:
    return row.settings == {"points": 1, "rho": 0.1, "learning_rate": 0.1}


def test_failed_queries_leave_the_defaults_and_say_so() -> None:
    experiment = make_experiment(AUTO, budget={"queries": 100})

    def spoil(request: Request, logits: Array) -> Array:
        if len(request.candidates) == QUERIES:
            logits[12:] = np.nan
        return logits

    rows = run(make_trial(experiment, oracle=TimedOracle(experiment, spoil=spoil)))
    (survey,) = surveys_of(rows)
    assert defaults(survey)
    assert survey.note == "too many of the survey's queries failed"
    assert "the defaults for what is auto" in formatting.survey(survey)
    assert steps_of(rows)


def test_a_few_failed_directions_do_no_harm() -> None:
    experiment = make_experiment(AUTO, budget={"queries": 100})

    def spoil(request: Request, logits: Array) -> Array:
        if len(request.candidates) == QUERIES:
            logits[-3:] = np.nan
        return logits

    (survey,) = surveys_of(run(make_trial(experiment, oracle=TimedOracle(experiment, spoil=spoil))))
    assert survey.note == ""
    assert not defaults(survey)


def test_a_survey_that_runs_out_of_time_ends_the_trial_with_the_books_in_order() -> None:
    experiment = make_experiment(AUTO, budget={"queries": None, "seconds": 0.5})
    oracle = TimedOracle(experiment, seconds=0.7)
    trial = make_trial(experiment, oracle=oracle)
    rows = run(trial)
    assert "could not be paid" in surveys_of(rows)[0].note
    assert trial.outcome is not None


def test_settings_in_zot_are_numbers_or_auto() -> None:
    for bad in ({"points": 0}, {"rho": -1.0}, {"learning_rate": "fast"}):
        with pytest.raises(ConfigError, match=next(iter(bad))):
            make_experiment({**AUTO, **bad}, budget={"queries": 100})


def test_an_optimizer_is_not_built_before_its_settings_are_known() -> None:
    config = ZotConfig(rho="auto")
    with pytest.raises(ConfigError, match="rho are still auto"):
        build(config, dim=4, key=(0,), steps=3)
    assert config.resolved({"rho": 0.3, "points": 9}) == ZotConfig(rho=0.3)


def test_precision_is_calibrated_at_radii_that_are_known() -> None:
    task = make_task()

    def cased(optimizer: dict[str, Any]) -> int:
        return len(cases([make_experiment(optimizer, budget={"queries": 100})], [task]))

    assert cased(AUTO) == 0
    assert cased({**AUTO, "rho": 0.2}) == 1


def test_explored_settings_must_be_numbers() -> None:
    experiment: Experiment = make_experiment(AUTO, budget={"queries": 100})
    with pytest.raises(ConfigError, match="must lead to a number"):
        experiment.changed({"stages.0.optimizer.learning_rate": 0.1})
    stage = experiment.stages[0]
    assert isinstance(stage, SearchStageConfig)
    assert experiment_of(experiment.model_dump()) == experiment
