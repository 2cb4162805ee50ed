"""A width that is left to be measured: what the ladder asks and costs, and what cma then does."""

from typing import Any

import numpy as np
import pytest
from local_trials import TimedOracle, make_experiment, make_task, make_trial, paid, run, steps_of, travelled

from distributed_tuner.config.optimizer import CmaConfig, NevergradConfig
from distributed_tuner.errors import BudgetTooSmall, ConfigError
from distributed_tuner.ledger.rows import Row, SurveyRow
from distributed_tuner.optimizers import build
from distributed_tuner.optimizers.cma_probe import QUERIES, RADII
from distributed_tuner.preflight.precision_cases import cases
from distributed_tuner.report import formatting
from distributed_tuner.values import Array, Latent, Request

AUTO: dict[str, Any] = {"kind": "cma", "alpha": "auto", "intrinsic_dim": 4, "popsize": 5}
RANDOM: dict[str, Any] = {"kind": "random_search", "popsize": 3}


def ladders_of(rows: list[Row]) -> list[SurveyRow]:
    return [row for row in rows if isinstance(row, SurveyRow)]


def widths(oracle: TimedOracle) -> set[float]:
    """Return alpha of the candidates that steps asked for."""
    return {c.projection.alpha for request in oracle.asked for c in request.candidates if isinstance(c, Latent)}


def test_a_ladder_is_paid_like_a_step_and_its_width_is_used() -> None:
    experiment = make_experiment(AUTO, budget={"queries": 100})
    oracle = TimedOracle(experiment)
    rows = run(make_trial(experiment, oracle=oracle))
    (ladder,) = ladders_of(rows)
    assert rows[0] is ladder
    assert ladder.cost.queries == ladder.spent.queries == QUERIES == 21
    assert ladder.note == ""
    assert ladder.settings["alpha"] in RADII
    assert list(ladder.falls) == ["0.1", "0.2", "0.4", "0.8", "1.6"]
    assert ladder.falls[f"{ladder.settings['alpha']:g}"] == max(ladder.falls.values())
    assert widths(oracle) == {ladder.settings["alpha"]}
    assert paid(rows).queries + QUERIES <= 100
    told = formatting.survey(ladder)
    assert told.startswith(f"alpha {ladder.settings['alpha']:.3g}") or ladder.settings["alpha"].is_integer()
    assert "what a generation should lower the loss by: " in told


def test_a_ladder_is_asked_on_a_mini_batch_where_generations_are() -> None:
    experiment = make_experiment(AUTO | {"batch_size": 5}, budget={"queries": 100})
    oracle = TimedOracle(experiment)
    run(make_trial(experiment, oracle=oracle))
    assert len(oracle.asked[0].candidates) == QUERIES
    assert len(oracle.asked[0].batch.examples) == 5


def test_a_width_that_is_given_is_not_measured() -> None:
    assert ladders_of(run(make_trial(make_experiment(AUTO | {"alpha": 0.3}, budget={"queries": 60})))) == []


@pytest.mark.parametrize("at", [0, 1, 3])
def test_a_trial_goes_on_with_the_same_bits_around_its_ladder(at: int) -> None:
    experiment = make_experiment(AUTO, RANDOM, AUTO, budget={"queries": 200})
    whole = run(make_trial(experiment))
    trial = make_trial(experiment)
    rows: list[Row] = []
    for _ in range(at):
        rows.extend(trial.advance())
    again = make_trial(experiment)
    again.load_state_dict(travelled(trial.state_dict()))
    rows.extend(run(again))
    assert [row.loss for row in steps_of(rows)] == [row.loss for row in steps_of(whole)]
    assert [row.settings for row in ladders_of(rows)] == [row.settings for row in ladders_of(whole)]
    assert len(ladders_of(rows)) == 2


def test_later_rounds_have_the_width_of_the_first() -> None:
    experiment = make_experiment(AUTO, RANDOM, budget={"queries": 300}, rounds=2)
    oracle = TimedOracle(experiment)
    (ladder,) = ladders_of(run(make_trial(experiment, oracle=oracle)))
    assert widths(oracle) == {ladder.settings["alpha"]}


def test_a_budget_that_pays_for_no_ladder_is_refused_at_once() -> None:
    with pytest.raises(BudgetTooSmall, match=r"the survey of its settings \(21 queries\): 30 queries"):
        make_trial(make_experiment(AUTO, budget={"queries": 29}))
    make_trial(make_experiment(AUTO, budget={"queries": 30}))


@pytest.mark.parametrize("failed", [slice(0, 1), slice(1, None)])
def test_failed_queries_leave_the_default_and_say_so(failed: slice) -> None:
    experiment = make_experiment(AUTO, budget={"queries": 60})

    def spoil(request: Request, logits: Array) -> Array:
        if len(request.candidates) == QUERIES:
            logits[failed] = np.nan
        return logits

    (ladder,) = ladders_of(run(make_trial(experiment, oracle=TimedOracle(experiment, spoil=spoil))))
    assert ladder.settings == {"alpha": 1.0}
    assert "the defaults for what is auto: too many" in formatting.survey(ladder)


def test_a_width_is_a_number_or_auto_and_of_cma_alone() -> None:
    for bad in (0.0, -1.0, "wide"):
        with pytest.raises(ConfigError, match="alpha"):
            make_experiment(AUTO | {"alpha": bad}, budget={"queries": 100})
    with pytest.raises(ValueError, match="alpha"):
        NevergradConfig(alpha="auto")


def test_cma_is_not_built_before_its_width_is_known() -> None:
    config = CmaConfig(alpha="auto")
    with pytest.raises(ConfigError, match="alpha is still auto"):
        build(config, dim=4, key=(0,), steps=3)
    assert config.resolved({"alpha": 0.4}) == CmaConfig(alpha=0.4)


def test_precision_is_not_calibrated_at_a_width_that_is_measured() -> None:
    task = make_task()
    for alpha, count in (("auto", 0), (0.3, 1)):
        experiment = make_experiment(AUTO | {"alpha": alpha}, budget={"queries": 100})
        assert len(cases([experiment], [task])) == count
