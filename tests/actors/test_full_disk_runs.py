"""A run whose ledger's disk fills up, and goes on once there is room."""

from pathlib import Path

import pytest
from tuner_runs import ZOT, numbers, raw_rows, run_alone, run_space, space, write_space

from benchmarks.fault_kinds import full_disk
from distributed_tuner.errors import StorageError
from distributed_tuner.ledger.reader import read
from distributed_tuner.runs.directory import RunDirectory

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

ROOM = 6000  # bytes: some steps


def test_a_full_disk_ends_a_run_with_one_error_and_resume_makes_what_is_missing(reviews: Path, tmp_path: Path) -> None:
    path = write_space(space({"kind": "analytic"}, [ZOT], budget={"queries": 200}), reviews, "full.yaml")
    directory = RunDirectory(tmp_path / "run")
    with full_disk(ROOM), pytest.raises(StorageError, match="No space left on device") as told:
        run_space(path, directory.path)
    assert told.value.exit_code == 1
    assert "--resume" in str(told.value)
    before = directory.ledger.read_bytes()
    assert before.endswith(b"\n") and len(before) <= ROOM
    steps = len(read(directory.ledger).steps)
    assert 0 < steps < len(run_alone(path).steps)
    assert "unfinished" in directory.summary.read_text()
    assert directory.report.is_file()

    done = run_space(path, directory.path, resume=True)
    assert done.status == "done"
    assert numbers(done.ledger) == numbers(run_alone(path))
    assert directory.ledger.read_bytes().startswith(before)
    assert len(raw_rows(directory, "run")) == 2
