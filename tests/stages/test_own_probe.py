"""Settings of one's own optimizer that are left to "auto": its probe is asked, paid, told and written down."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from local_trials import TimedOracle, make_experiment, make_trial, run, steps_of, travelled

from distributed_tuner.custom import path_of
from distributed_tuner.errors import BudgetTooSmall, ConfigError, PartError
from distributed_tuner.ledger.rows import Row, SurveyRow
from distributed_tuner.optimizers import Measured, Optimizer
from distributed_tuner.optimizers.base import frozen_copy
from distributed_tuner.report import formatting
from distributed_tuner.seeds import Key, generator
from distributed_tuner.values import Array, Array64, Candidate, Point, Text

WIDTHS = (0.25, 0.5)


class WidthProbe:
    """Asks at two widths, and takes that of the lower loss."""

    def __init__(self, *, start: Array, key: Key, unit: float, sigma: Any = 1.0, children: int = 3) -> None:
        z = generator(key).standard_normal(len(start)) * unit
        self.candidates: Sequence[Candidate] = [Point(frozen_copy(start + width * z)) for width in WIDTHS]

    def measure(self, losses: Array64) -> Measured | None:
        if not np.isfinite(losses).all():
            return None
        return Measured({"sigma": WIDTHS[int(losses.argmin())]}, {"spread": float(np.ptp(losses)), "why": "lower"})


class Climber(Optimizer):
    """Keeps the best point around which it draws."""

    probe = WidthProbe

    def __init__(self, *, dim: int, key: Key, steps: int, start: Array, sigma: float = 1.0, children: int = 3) -> None:
        super().__init__(dim, key)
        self._x, self._sigma, self._children = frozen_copy(start), sigma, children

    @property
    def queries_per_step(self) -> int:
        return self._children

    def recommend(self) -> Candidate:
        return Point(self._x)

    def _ask(self) -> list[Candidate]:
        z = generator((*self.key, self.steps_told)).standard_normal((self._children, self.dim))
        return [Point(frozen_copy(self._x + self._sigma * one)) for one in z]

    def _tell(self, candidates: tuple[Candidate, ...], losses: Array64, gradients: Array | None) -> None:
        best = candidates[int(np.nanargmin(losses))]
        assert isinstance(best, Point)
        self._x, self._metrics = best.vector, {"sigma": self._sigma}

    def _relocate(self, x: Array) -> None:
        self._x = x

    def _save(self) -> dict[str, Any]:
        return {"x": self._x.copy()}

    def _load(self, state: dict[str, Any]) -> None:
        self._x = frozen_copy(state["x"])


class Plain(Climber):
    """Has no probe."""

    probe = None


class LoudProbe(WidthProbe):
    """Finds a setting that nobody asked for."""

    def measure(self, losses: Array64) -> Measured | None:
        return Measured({"children": 4})


class Loud(Climber):
    """Has a probe that says too much."""

    probe = LoudProbe


class Wordy(Climber):
    """Has a probe that asks for texts."""

    @staticmethod
    def probe(**settings: Any) -> WidthProbe:
        probe = WidthProbe(**settings)
        probe.candidates = [Text("a")]
        return probe


def own(part: type[Optimizer] = Climber, **settings: Any) -> dict[str, Any]:
    return {"kind": "custom", "import_path": path_of(part), "settings": {"sigma": "auto"} | settings}


def surveys_of(rows: list[Row]) -> list[SurveyRow]:
    return [row for row in rows if isinstance(row, SurveyRow)]


def test_a_probe_is_paid_like_a_step_and_its_settings_are_used() -> None:
    rows = run(make_trial(make_experiment(own(children=4), budget={"queries": 60})))
    (survey,) = surveys_of(rows)
    assert survey.cost.queries == 2
    assert survey.settings["sigma"] in WIDTHS
    assert survey.told.keys() == {"spread"}
    steps = steps_of(rows)
    assert {row.metrics["sigma"] for row in steps} == {survey.settings["sigma"]}
    assert {row.cost.queries for row in steps} == {4}
    assert (
        formatting.survey(survey)
        == f"sigma {survey.settings['sigma']} after 2 queries; spread {survey.told['spread']:.3g}"
    )


def test_failed_queries_leave_the_constructor_s_default() -> None:
    experiment = make_experiment(own(), budget={"queries": 40})

    def spoil(request: Any, logits: Array) -> Array:
        if len(request.candidates) == 2:
            logits[:] = np.nan
        return logits

    rows = run(make_trial(experiment, oracle=TimedOracle(experiment, spoil=spoil)))
    (survey,) = surveys_of(rows)
    assert survey.settings == {}
    assert steps_of(rows)[0].metrics["sigma"] == 1.0
    assert formatting.survey(survey).startswith("after 2 queries; the defaults for what is auto: too many")


def test_a_resumed_trial_has_what_was_measured() -> None:
    experiment = make_experiment(own(), budget={"queries": 60})
    whole = run(make_trial(experiment))
    trial = make_trial(experiment)
    rows = [row for _ in range(4) for row in trial.advance()]
    again = make_trial(experiment)
    again.load_state_dict(travelled(trial.state_dict()))
    rows += run(again)
    assert [row.loss for row in steps_of(rows)] == [row.loss for row in steps_of(whole)]


def test_what_is_given_is_not_measured() -> None:
    assert surveys_of(run(make_trial(make_experiment(own(sigma=0.1), budget={"queries": 40})))) == []


def test_a_budget_that_does_not_pay_for_the_probe_is_refused() -> None:
    with pytest.raises(BudgetTooSmall, match=r"the survey of its settings \(2 queries\): 9 queries"):
        make_trial(make_experiment(own(), budget={"queries": 8}))


def test_a_class_without_a_probe_has_no_auto() -> None:
    with pytest.raises(ConfigError, match=r"Plain has none and sigma is auto; give a value, or write probe"):
        make_trial(make_experiment(own(Plain), budget={"queries": 40}))


def test_a_probe_that_breaks_its_contract_is_one_line() -> None:
    with pytest.raises(PartError, match=r"settings that are auto \(sigma\), but the probe of .*Loud found children=4"):
        run(make_trial(make_experiment(own(Loud), budget={"queries": 40})))
    with pytest.raises(PartError, match="asks for Text; return Perturbation, Latent, Point, Embedded"):
        make_trial(make_experiment(own(Wordy), budget={"queries": 40}))
