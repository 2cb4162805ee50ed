"""The heartbeat of a run: there while it works, and what it says of its oracles."""

import time
from pathlib import Path

from distributed_tuner import Analytic, tune
from distributed_tuner.runs.heartbeat import NAME, Beat, Heartbeat
from distributed_tuner.runs.pool import Occupancy
from distributed_tuner.storage.json_files import read_told


def wait_for(path: Path) -> None:
    until = time.monotonic() + 30
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.01)


def test_it_says_when_and_how_the_pool_stands(tmp_path: Path) -> None:
    heartbeat = Heartbeat(tmp_path, lambda: Occupancy(workers=3, busy=2, waiting=7))
    heartbeat.start()
    wait_for(tmp_path / NAME)
    heartbeat.stop()
    beat = read_told(tmp_path / NAME, Beat)
    assert (beat.workers, beat.busy, beat.waiting) == (3, 2, 7)
    assert abs(beat.time - time.time()) < 60


def test_a_pool_that_does_not_tell_and_a_folder_that_is_gone_end_nothing(tmp_path: Path) -> None:
    silent, nowhere = Heartbeat(tmp_path, lambda: None), Heartbeat(tmp_path / "gone", lambda: None)
    silent.start()
    nowhere.start()
    wait_for(tmp_path / NAME)
    silent.stop()
    nowhere.stop()
    assert read_told(tmp_path / NAME, Beat).workers is None
    assert not (tmp_path / "gone").exists()


def test_a_run_leaves_one(tmp_path: Path) -> None:
    tune(Analytic(), {"kind": "demo"}, budget=60, progress=False, out=tmp_path / "run")
    beat = read_told(tmp_path / "run" / NAME, Beat)
    assert beat.workers == 1
