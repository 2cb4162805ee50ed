"""Resume state: what a resumed run has done, and rows that checkpoints have and the ledger lost. Without Ray."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from actors.trials.checkpoints import STATE_FILE, Saved
from actors.trials.resume_state import TUNE_NAME, Past
from actors.trials.trainable import RECENT_REPORTS, RECENT_ROWS, TuneTrial
from distributed_tuner.config.experiment import Experiment
from distributed_tuner.config.schedule import PopulationScheduleConfig
from distributed_tuner.config.space import TrialPlan
from distributed_tuner.errors import RunDirectoryError
from distributed_tuner.ledger import CostRow, LedgerWriter, RunRow, StepRow, TrialEndRow, read
from distributed_tuner.runs.directory import RunDirectory
from distributed_tuner.schedule.decisions import Decisions
from distributed_tuner.schedule.population import Decision

PLANS = [TrialPlan(name, index, "zot", {}, Experiment.model_construct()) for index, name in enumerate(("a", "b"))]


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


def save(directory: RunDirectory, name: str, *reports: list[StepRow], prompt: str | None = None, **report: Any) -> Path:
    """Write a trial's checkpoint; return its file."""
    folder = Path(directory.tune_storage(TUNE_NAME), name, "checkpoint_000000")
    folder.mkdir(parents=True)
    Saved({}, [[row.model_dump() for row in rows] for rows in reports], report, prompt).write(folder)
    return folder / STATE_FILE


def past_of(directory: RunDirectory, plans: Sequence[TrialPlan] = PLANS) -> Past:
    with LedgerWriter(directory.ledger) as writer:
        past = Past.of(directory, plans)
        past.write_down(directory, writer)
    return replace(past, lost=(), selected={})


def steps(directory: RunDirectory) -> list[int]:
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


def test_rows_that_only_a_checkpoint_knows_are_written_down_once(directory: RunDirectory) -> None:
    save(directory, "a", [step(1), step(2)], [step(3)], [step(4), step(5)], done=False, dev_loss=0.5)
    past = past_of(directory)
    assert steps(directory) == [1, 2, 3, 4, 5]
    assert past.ended == {}
    assert past.reports == {"a": {"done": False, "dev_loss": 0.5}}
    before = directory.ledger.read_bytes()
    assert past_of(directory) == past
    assert directory.ledger.read_bytes() == before


def test_a_trial_that_has_ended_gets_its_end_and_its_prompt_back(directory: RunDirectory) -> None:
    end = {"done": True, "reason": "its budget is spent", "progress": {"elapsed": 7.0}}
    save(directory, "a", [step(3)], prompt="be kind", **end)
    save(directory, "b", [step(1, "b")], prompt="be brief", done=False)
    for _ in range(2):
        assert past_of(directory).ended == {"a": "done"}
    (row,) = read(directory.ledger).trial_ends
    assert (row.trial_id, row.status, row.reason, row.wall_seconds) == ("a", "done", "its budget is spent", 7.0)
    assert directory.ledger.read_text().count('"trial_end"') == 1
    assert directory.prompt_of("a") == "be kind"
    assert directory.prompt_of("b") is None, "it goes on, and will tell"


def test_an_interruption_is_no_end_and_the_ledgers_word_counts(directory: RunDirectory) -> None:
    with LedgerWriter(directory.ledger) as writer:
        writer.write(TrialEndRow(trial_id="a", status="interrupted", reason="a person", wall_seconds=1.0))
        writer.write(TrialEndRow(trial_id="b", status="stopped", reason="by the schedule", wall_seconds=1.0))
    save(directory, "b", [step(1, "b")], prompt="be brief", done=False)
    assert past_of(directory).ended == {"b": "stopped"}
    assert directory.prompt_of("b") == "be brief"


def test_who_may_be_taken_after_ends_once_more_if_its_end_was_not_saved(directory: RunDirectory) -> None:
    schedule = PopulationScheduleConfig(kind="population")
    population = [replace(plan, experiment=Experiment.model_construct(schedule=schedule)) for plan in PLANS]
    with LedgerWriter(directory.ledger) as writer:
        for name, status in (("a", "done"), ("b", "failed")):
            writer.write(TrialEndRow(trial_id=name, status=status, reason="it is over", wall_seconds=1.0))
    assert past_of(directory, population).ended == {"b": "failed"}
    save(directory, "a", [step(2)], done=False)
    assert past_of(directory, population).ended == {"b": "failed"}
    assert past_of(directory).ended == {"a": "done", "b": "failed"}, "elsewhere the ledger has all that is needed"
    directory.tune.rename(directory.path / "older")
    save(directory, "a", [step(2)], done=True, reason="it is over", progress={"elapsed": 1.0})
    assert past_of(directory, population).ended == {"a": "done", "b": "failed"}


def test_without_a_checkpoint_or_with_a_broken_one_nothing_is_added(directory: RunDirectory) -> None:
    assert past_of(directory) == Past()
    broken = save(directory, "a", [step(9)], done=True)
    broken.write_bytes(broken.read_bytes()[:40])
    Path(directory.tune_storage(TUNE_NAME), "b", "checkpoint_000000").mkdir(parents=True)
    assert past_of(directory) == Past()
    assert steps(directory) == [1, 2]


def test_a_populations_decisions_come_back_as_they_were(directory: RunDirectory) -> None:
    decisions = Decisions({"a": {1: Decision(False, "b", {"rate": 0.1 + 0.2}), 2: Decision(True)}})
    directory.keep_decisions(decisions)
    assert past_of(directory).decisions == decisions


@pytest.mark.parametrize(
    "text", ["", "[" * 10**5, "[1]", '{"decided": {"a": {"1": {"go_on": "perhaps"}}}}', '{"met": {"x": []}}']
)
def test_decisions_that_no_run_wrote_are_refused(directory: RunDirectory, text: str) -> None:
    directory.population.write_text(text)
    with pytest.raises(RunDirectoryError, match=r"population\.json must "):
        past_of(directory)


@pytest.mark.parametrize("name", ["..", "../elsewhere", "a/b", ""])
def test_a_trials_name_that_leads_elsewhere_is_refused(directory: RunDirectory, name: str) -> None:
    before = directory.ledger.read_bytes()
    with pytest.raises(RunDirectoryError, match="a trial's name is one folder's"):
        past_of(directory, [replace(PLANS[0], trial_id=name)])
    assert directory.ledger.read_bytes() == before


def test_a_checkpoint_holds_the_last_reports_within_bounds() -> None:
    trial = TuneTrial.__new__(TuneTrial)
    trial._begin_reports()
    for number in range(RECENT_REPORTS + 5):
        trial._remember([step(number).model_dump()])
    assert [report[0]["step"] for report in trial._recent] == list(range(5, RECENT_REPORTS + 5))
    trial._remember([step(number).model_dump() for number in range(2 * RECENT_ROWS)])
    assert len(trial._recent) == 1, "the last report is always whole"
