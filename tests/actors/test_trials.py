"""Trials under Tune: budgets in every unit, light processes, and the schedule that stops the hopeless."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tuner_runs import RANDOM, ZOT, Done, Grid, numbers, processes, raw_rows, run_alone, run_space, space, write_space

from actors.trials.trainable import TuneTrial
from actors.trials.tuner import TRIAL_FAILURES
from distributed_tuner.preflight.prepare import prepare

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

ANALYTIC = {"kind": "analytic", "price": {"usd_per_million_input_tokens": 1.0}}
BUDGETS: list[dict[str, Any]] = [
    {"queries": 77},
    {"queries": None, "forwards": 999},
    {"queries": None, "tokens": 23_456},
    {"queries": None, "usd": 0.02},
    {"queries": None, "seconds": 2.0},
]
UNITS = ("queries", "forwards", "tokens", "usd")


def budget_space(budgets: list[dict[str, Any]], actors: int = 2) -> dict[str, Any]:
    return space(ANALYTIC | {"actors": actors}, [ZOT], budget=Grid(budgets), max_concurrent_trials=2)


class Watch:
    """Looks at the libraries that trial processes have loaded, from a thread beside the run."""

    def __init__(self, title: tuple[str, ...]) -> None:
        self.maps: dict[int, str] = {}
        self._title = title
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._validate, daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _validate(self) -> None:
        while not self._over.is_set():
            for pid in processes(self._title):
                try:
                    self.maps[pid] = Path(f"/proc/{pid}/maps").read_text()
                except OSError:
                    continue
            time.sleep(0.3)


@pytest.fixture(scope="module")
def watch() -> Watch:
    return Watch(("ray::TuneTrial", "ray::ResourceTrainable"))


@pytest.fixture(scope="module")
def budgets(reviews: Path, tmp_path_factory: pytest.TempPathFactory, watch: Watch) -> Done:
    """One run whose trials have budgets in different units, two at a time."""
    path = write_space(budget_space(BUDGETS), reviews, "budgets.yaml")
    with watch:
        return run_space(path, tmp_path_factory.mktemp("run") / "budgets")


def test_no_trial_spends_more_than_its_budget_in_any_unit(budgets: Done) -> None:
    assert budgets.status == "done"
    plans = {plan["trial_id"]: plan["config"]["budget"] for plan in budgets.directory.read_config()["trials"]}
    assert len(plans) == len(BUDGETS)
    for trial_id, limits in plans.items():
        rows = [row for row in (*budgets.ledger.steps, *budgets.ledger.evaluations) if row.trial_id == trial_id]
        assert len(rows) > 5
        for unit in UNITS:
            total = sum(getattr(row.cost, unit) for row in rows)
            assert max(getattr(row.spent, unit) for row in rows) == pytest.approx(total)
            if limits[unit] is not None:
                assert total <= limits[unit]
                dearest = max(getattr(row.cost, unit) for row in rows)
                assert total + 3 * dearest > limits[unit]  # and no more is left over than a step and an evaluation
        if limits["seconds"] is not None:
            assert (
                max(row.elapsed for row in rows) <= limits["seconds"] + 0.1
            )  # an answer in time, then the time of writing it down


def test_a_budget_of_seconds_ends_the_trial_and_says_so(budgets: Done) -> None:
    timed = {p["trial_id"] for p in budgets.directory.read_config()["trials"] if p["config"]["budget"]["seconds"]}
    ends = {end.trial_id: end for end in budgets.ledger.trial_ends}
    assert {ends[trial_id].status for trial_id in timed} == {"done"}
    assert all("budget" in ends[t].reason or "planned" in ends[t].reason for t in timed)
    assert all(trial["test_metric"] is not None for trial in budgets.summary["trials"])


def test_a_process_that_runs_one_trial_after_another_mixes_nothing_up(budgets: Done, reviews: Path) -> None:
    counted = [limits for limits in BUDGETS if "seconds" not in limits]
    alone = numbers(run_alone(write_space(budget_space(counted), reviews, "counted.yaml")))
    got = numbers(budgets.ledger)
    assert len(alone) > 4 * 15
    assert {name: got[name] for name in alone} == alone


def test_trials_run_in_light_processes(budgets: Done, watch: Watch) -> None:
    assert watch.maps
    for loaded in watch.maps.values():
        assert "libtorch" not in loaded
        assert "libray" in loaded or "_raylet" in loaded  # it was the right process that was evaluated


def test_the_schedule_stops_trials_and_the_best_is_still_measured_on_test(reviews: Path, tmp_path: Path) -> None:
    hopeless = [{**RANDOM, "sigma": sigma} for sigma in (0.5, 1e-6, 1e-6, 1e-6, 1e-6, 1e-6)]
    tree = space(
        {"kind": "analytic", "actors": 1},
        hopeless,
        schedule={"kind": "asha", "grace_queries": 40, "reduction_factor": 3.0},
        budget={"queries": 600},
        max_concurrent_trials=3,
    )
    done = run_space(write_space(tree, reviews, "asha.yaml"), tmp_path / "run")
    assert done.status == "done"
    statuses = {trial["trial_id"]: trial["status"] for trial in done.summary["trials"]}
    assert "stopped" in statuses.values()
    assert set(statuses.values()) <= {"stopped", "done"}
    assert done.summary["best"]["test_metric"] is not None
    stopped = [row for row in raw_rows(done.directory, "trial_end") if row["status"] == "stopped"]
    assert stopped[0]["reason"] == "stopped by the schedule"


def test_a_trial_that_fails_for_good_says_why_and_is_not_begun_again(
    reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(TuneTrial):
        """Its second trial can make no step."""

        def step(self) -> dict[str, Any]:
            if self._trial.trial_id == names[1]:
                raise ValueError("the second trial is broken")
            return super().step()

    path = write_space(budget_space([{"queries": 77}, {"queries": 78}], actors=1), reviews, "broken.yaml")
    names = [plan.trial_id for plan in prepare(path, []).plans]
    monkeypatch.setattr("actors.trials.tuner.TuneTrial", Broken)
    done = run_space(path, tmp_path / "run")
    assert done.status == "done", "the other trial has a result"
    ends = {end.trial_id: (end.status, end.reason) for end in done.ledger.trial_ends}
    assert ends[names[0]][0] == "done"
    assert ends[names[1]] == ("failed", "ValueError: the second trial is broken")
    assert len(raw_rows(done.directory, "trial")) == 2 + TRIAL_FAILURES

    monkeypatch.undo()
    before = raw_rows(done.directory, "trial")
    resumed = run_space(path, tmp_path / "run", resume=True)
    assert resumed.status == "done"
    assert raw_rows(done.directory, "trial") == before
    assert {end.trial_id: (end.status, end.reason) for end in resumed.ledger.trial_ends} == ends
