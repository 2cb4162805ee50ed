"""What a resumed run takes from checkpoints that its ledger has lost. No Ray is started: trials are stand-ins."""

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyarrow.fs import LocalFileSystem
from ray.tune import Checkpoint

from actors.trial import RECENT_REPORTS, RECENT_ROWS, Saved, TuneTrial
from actors.tuning import recover
from distributed_tuner.ledger import CostRow, LedgerWriter, RunRow, StepRow, TrialEndRow, read
from distributed_tuner.run_directory import RunDirectory

PLANS: list[Any] = [SimpleNamespace(trial_id=name, experiment=SimpleNamespace(schedule=None)) for name in ("a", "b")]


def step(number: int, trial_id: str = "a") -> StepRow:
    return StepRow(
        time=float(number),
        trial_id=trial_id,
        stage=0,
        step=number,
        loss=0.5,
        best_loss=0.5,
        failed=0,
        cost=CostRow(queries=2),
        spent=CostRow(queries=2 * number),
        elapsed=1.0,
    )


@dataclass
class RestoredTrial:
    """A trial as Tune restores it."""

    index: int
    checkpoint: Any
    status: str = "PENDING"
    last_result: dict[str, Any] = field(default_factory=dict)
    storage: Any = None
    ERROR = "ERROR"

    @property
    def config(self) -> dict[str, Any]:
        return {"trial": self.index}

    def is_finished(self) -> bool:
        return self.status in ("TERMINATED", "ERROR")


def saved(folder: Path, *reports: list[StepRow], prompt: str | None = None) -> Any:
    folder.mkdir()
    Saved({}, [[row.model_dump() for row in report] for report in reports], prompt).write(folder)
    return Checkpoint(str(folder), LocalFileSystem())


def recovered(directory: RunDirectory, *trials: RestoredTrial) -> list[int]:
    """Recover what the trials know; return the steps in the ledger, line by line."""
    with LedgerWriter(directory.ledger) as writer:
        recover(trials, PLANS, directory, writer)
    return [row.step for row in read(directory.ledger).steps]


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    """A run whose ledger ends after the second step."""
    directory = RunDirectory(tmp_path / "run")
    directory.create()
    with LedgerWriter(directory.ledger) as writer:
        for row in (RunRow(name="r", version="0", seed=0, methods=["zot"]), step(1), step(2)):
            writer.write(row)
    return directory


def test_rows_that_only_a_checkpoint_knows_are_written_down_once(directory: RunDirectory, tmp_path: Path) -> None:
    trial = RestoredTrial(0, saved(tmp_path / "checkpoint", [step(1), step(2)], [step(3)], [step(4), step(5)]))
    assert recovered(directory, trial) == [1, 2, 3, 4, 5]
    before = directory.ledger.read_bytes()
    assert recovered(directory, trial) == [1, 2, 3, 4, 5]
    assert directory.ledger.read_bytes() == before


def test_a_trial_that_has_ended_gets_its_end_and_its_prompt_back(directory: RunDirectory, tmp_path: Path) -> None:
    end = {"reason": "its budget is spent", "progress": {"elapsed": 7.0}}
    done = RestoredTrial(0, saved(tmp_path / "a", [step(3)], prompt="be kind"), "TERMINATED", end)
    stopped = RestoredTrial(1, saved(tmp_path / "b", [step(1, "b")]), "TERMINATED")
    for _ in range(2):
        recovered(directory, done, stopped)
    ends = {row.trial_id: row for row in read(directory.ledger).trial_ends}
    assert (ends["a"].status, ends["a"].reason, ends["a"].wall_seconds) == ("done", "its budget is spent", 7.0)
    assert ends["b"].status == "stopped"
    assert directory.ledger.read_text().count('"trial_end"') == 2
    assert directory.prompt_of("a") == "be kind"
    assert directory.prompt_of("b") is None


def test_an_interruption_is_no_end(directory: RunDirectory, tmp_path: Path) -> None:
    with LedgerWriter(directory.ledger) as writer:
        writer.write(TrialEndRow(trial_id="a", status="interrupted", reason="a person", wall_seconds=1.0))
    failed = RestoredTrial(0, saved(tmp_path / "a", [step(3)]), "ERROR")
    recovered(directory, failed)
    assert [row.status for row in read(directory.ledger).trial_ends] == ["failed"]


def test_without_a_checkpoint_or_with_a_broken_one_nothing_is_added(directory: RunDirectory, tmp_path: Path) -> None:
    broken = saved(tmp_path / "broken", [step(9)])
    file = next(Path(broken.path).iterdir())
    file.write_bytes(file.read_bytes()[:40])
    (tmp_path / "empty").mkdir()
    trials = [
        RestoredTrial(0, None),
        RestoredTrial(0, broken),
        RestoredTrial(1, Checkpoint(str(tmp_path / "empty"), LocalFileSystem())),
    ]
    assert recovered(directory, *trials) == [1, 2]


def test_a_checkpoint_holds_the_last_reports_within_bounds() -> None:
    trial = TuneTrial.__new__(TuneTrial)
    trial._begin_reports()
    for number in range(RECENT_REPORTS + 5):
        trial._remember([step(number).model_dump()])
    assert [report[0]["step"] for report in trial._recent] == list(range(5, RECENT_REPORTS + 5))
    trial._remember([step(number).model_dump() for number in range(2 * RECENT_ROWS)])
    assert len(trial._recent) == 1, "the last report is always whole"
