"""Populations of toys under Tune: async and sync, with processes and trials that die."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from fake_tune import Said
from toy_population import StageSchedule, tuner
from tuner_runs import wait_for

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]
RATES = (0.02, 0.3, 0.2, 0.01)


def lines(stage_schedule: StageSchedule, name: str, what: str) -> list[dict[str, Any]]:
    """Return what a toy wrote down."""
    path = Path(stage_schedule.folder, f"{name}.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [row for row in rows if row["what"] == what]


def restarts(stage_schedule: StageSchedule) -> dict[tuple[str, int], tuple[Any, ...]]:
    """Return who restarted at which sync point: after whom, with what rate and which texts."""
    return {
        (name, row["sync_point"]): (row["source_trial"], row["rate"], tuple(row["pool"]))
        for name in stage_schedule.names
        for row in lines(stage_schedule, name, "restart")
    }


def ended(stage_schedule: StageSchedule) -> set[str]:
    last = (stage_schedule.sync_points + 1) * stage_schedule.steps
    return {
        name
        for name in stage_schedule.names
        if any(row["step"] == last for row in lines(stage_schedule, name, "report"))
    }


@pytest.fixture(scope="module")
def synced(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[StageSchedule, Said]:
    """One undisturbed "sync" run."""
    said: Said = []
    stage_schedule = StageSchedule(str(tmp_path_factory.mktemp("sync")), RATES, "sync")
    results = tuner(stage_schedule, lambda *what: said.append(what)).fit()
    assert results.num_errors == 0
    return stage_schedule, said


def test_sync_run(synced: tuple[StageSchedule, Said]) -> None:
    stage_schedule, said = synced
    assert ended(stage_schedule) == set(stage_schedule.names)
    at_first = {name: row for (name, sync_point), row in restarts(stage_schedule).items() if sync_point == 1}
    assert set(at_first) == {"toy-0003"}
    source_trial, rate, pool = at_first["toy-0003"]
    assert source_trial == "toy-0001"
    assert rate in (pytest.approx(0.3 * 0.8), pytest.approx(0.3 * 1.25))
    assert pool == ("toy-0000 at 1", "toy-0002 at 1", "toy-0001 at 1")
    assert lines(stage_schedule, "toy-0001", "restart") == []
    assert len(lines(stage_schedule, "toy-0001", "go_on")) == 2
    in_time = sorted(restarts(stage_schedule), key=lambda one: one[1])
    assert [name for name, kind, _ in said if kind == "restart"] == [name for name, _ in in_time]
    for name in stage_schedule.names:  # a process that runs a paused trial mixes nothing up
        steps = [row["step"] for row in lines(stage_schedule, name, "report")]
        assert sorted(set(steps)) == list(range(1, 10))


def test_async_run(tmp_path: Path) -> None:
    stage_schedule = StageSchedule(str(tmp_path), RATES, "async", last=3)
    first = set(stage_schedule.names[:3])

    def go() -> None:
        wait_for(lambda: ended(stage_schedule) >= first)
        Path(tmp_path, "go").touch()

    beside = threading.Thread(target=go, daemon=True)
    beside.start()
    assert tuner(stage_schedule).fit().num_errors == 0
    assert ended(stage_schedule) == set(stage_schedule.names)
    assert restarts(stage_schedule)["toy-0003", 1][0] in first  # they had ended when it came
    for name in stage_schedule.names:
        for sync_point in (1, 2):
            here = [row for row in lines(stage_schedule, name, "go_on") if row["sync_point"] == sync_point]
            assert bool(here) != ((name, sync_point) in restarts(stage_schedule))
        if not lines(stage_schedule, name, "restart"):
            assert (
                len({row["pid"] for row in lines(stage_schedule, name, "report")}) == 1
            )  # who goes on keeps its process


@pytest.mark.extended  # a population whose driver is killed stands for it
def test_a_killed_process_changes_no_decision(synced: tuple[StageSchedule, Said], tmp_path: Path) -> None:
    undisturbed, _ = synced
    kills = ((0, 4), (3, 3), (1, 8))  # in a search, right after a restart, after the last sync point
    stage_schedule = StageSchedule(str(tmp_path), RATES, "sync", kills=kills)
    assert tuner(stage_schedule).fit().num_errors == 0
    assert len(list(tmp_path.glob("killed-*"))) == 3
    assert ended(stage_schedule) == set(stage_schedule.names)
    assert restarts(stage_schedule) == restarts(undisturbed)


@pytest.mark.extended  # simulated time stands for it
def test_a_trial_that_fails_for_good_holds_nobody_up(tmp_path: Path) -> None:
    stage_schedule = StageSchedule(str(tmp_path), RATES, "sync", errors=((1, 4),))
    results = tuner(stage_schedule).fit()
    assert results.num_errors == 1
    assert ended(stage_schedule) == {"toy-0000", "toy-0002", "toy-0003"}
    at_second = {
        source_trial for (_, sync_point), (source_trial, _, _) in restarts(stage_schedule).items() if sync_point == 2
    }
    assert at_second == {"toy-0003"}  # the best of those that are left, since it took over the failed one's rate
