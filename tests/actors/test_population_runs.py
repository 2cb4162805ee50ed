"""Whole runs of a population: laggards restart from words, leaders go on, and "sync" runs are the same every time."""

from pathlib import Path
from typing import Any

import pytest
from tuner_runs import ZOT, Done, Grid, numbers, raw_rows, run_space, space, write_space

from distributed_tuner.ledger.rows import RestartRow

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster"), pytest.mark.extended]
"""The population of test_maao.py, whose driver is killed, and the toys of test_scheduler_runs.py stand for these."""

RATE = "stages.0.optimizer.learning_rate"
RATES = [1e-4, 0.5, 1e-5, 1.0]


def population(mode: str, actors: int, **more: Any) -> dict[str, Any]:
    restart = {"kind": "restart", "proposer": {"kind": "random"}, "proposals": 2}
    search = {"kind": "search", "optimizer": {**ZOT, "learning_rate": Grid(RATES)}, "eval_every": 20}
    explore = {RATE: {"low": 1e-6, "high": 10.0}}
    settings: dict[str, Any] = {
        "rounds": 3,
        "budget": {"queries": 120},
        "task": space({}, [ZOT])["task"] | {"feedback": 2},
        "stages": [search, restart],
        "schedule": {"kind": "population", "mode": mode, "quantile": 0.25, "explore": explore},
    }
    return space({"kind": "analytic", "actors": actors}, [ZOT], **settings, **more)


def run(reviews: Path, out: Path, mode: str, actors: int = 1, **more: Any) -> Done:
    return run_space(write_space(population(mode, actors, **more), reviews, f"{mode}.yaml"), out)


@pytest.fixture(scope="module")
def synced(reviews: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    return run(reviews, tmp_path_factory.mktemp("population") / "run", "sync")


def rates(done: Done) -> dict[str, float]:
    return {plan["trial_id"]: plan["drawn"][RATE] for plan in done.directory.read_config()["trials"]}


def assert_lineage(done: Done) -> list[RestartRow]:
    """Every trial left every sync point once, budgets held. Return the restarts after another trial."""
    assert done.status == "done"
    assert {end.status for end in done.ledger.trial_ends} == {"done"}
    restarts = done.ledger.restarts
    assert len(restarts) == 2 * len(RATES)
    taken = [row for row in restarts if row.source_trial is not None]
    for row in taken:
        assert row.source_trial != row.trial_id
        assert 1e-6 <= row.settings[RATE] <= 10.0
        assert row.adopted in ("source_trial", "proposal") or "budget" in row.reason
    told = [row["trial_id"] for row in raw_rows(done.directory, "event") if row["kind"] == "restart"]
    assert sorted(told) == sorted(row.trial_id for row in taken)
    assert all(trial["queries"] <= 120 for trial in done.summary["trials"])
    assert not any(row["attempt"] for row in raw_rows(done.directory, "trial"))  # a pause is no failure
    return taken


def test_a_sync_run(synced: Done) -> None:
    first = min(assert_lineage(synced), key=lambda row: row.stage)
    assert first.settings[RATE] / rates(synced)[str(first.source_trial)] in (pytest.approx(0.8), pytest.approx(1.25))


def test_a_sync_run_has_the_same_numbers_every_time(synced: Done, reviews: Path, tmp_path: Path) -> None:
    """Whatever the number of actors, and of trials that may run at a time: all of a population must, to meet."""
    other = run(reviews, tmp_path / "run", "sync", actors=2, max_concurrent_trials=2)
    assert numbers(other.ledger) == numbers(synced.ledger)


def test_an_async_run(reviews: Path, tmp_path: Path) -> None:
    """Who restarts hangs on how fast processes start; what must hold does not."""
    assert_lineage(run(reviews, tmp_path / "run", "async"))
