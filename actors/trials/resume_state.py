"""Resume state: what a run has done before its driver begins, by its ledger, checkpoints and decisions.

All of that is data. Ray Tune's own snapshots, which can hold code, are written by Tune and never read.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow.fs

from actors.trials.checkpoints import Saved, newest
from distributed_tuner.config.schedule import PopulationScheduleConfig
from distributed_tuner.config.space import TrialPlan
from distributed_tuner.errors import RunDirectoryError
from distributed_tuner.ledger.digest import digest
from distributed_tuner.ledger.recovery import lost
from distributed_tuner.ledger.rows import ROW, Row, TrialEndRow
from distributed_tuner.ledger.writer import LedgerWriter
from distributed_tuner.runs.directory import RunDirectory
from distributed_tuner.schedule.decisions import Decisions
from distributed_tuner.stages.ensemble import chosen_of
from distributed_tuner.storage.json_files import read_json

TUNE_NAME = "trials"
"""Tune's name of every run's trials: a folder in which each has one of its own, by its name."""


@dataclass(frozen=True, slots=True)
class Past:
    """Of a new run, nothing. ended: how trials ended, by name. reports: the last one of each, without rows and prompt.
    decisions: those of a population. lost: rows that the checkpoints know and the ledger does not. selected: of the
    trials that have ended, their states."""

    ended: dict[str, str] = field(default_factory=dict)
    reports: dict[str, dict[str, Any]] = field(default_factory=dict)
    decisions: Decisions = field(default_factory=Decisions)
    lost: tuple[Row, ...] = ()
    selected: dict[str, Saved] = field(default_factory=dict)

    @classmethod
    def of(cls, directory: RunDirectory, plans: Sequence[TrialPlan]) -> "Past":
        """Read what a run has behind it. Nothing is written: whatever is wrong there is found before that.

        Raises:
            RunDirectoryError: what the schedule decided cannot be read, or a trial's name is none.
            LedgerError: the ledger is malformed.
        """
        decisions = read_decisions(directory)
        trials = digest(directory.ledger).trials
        ends = {name: str(trial.end.status) for name, trial in trials.items() if trial.end is not None}
        ended = {name: status for name, status in ends.items() if status != "interrupted"}
        files, folder = pyarrow.fs.FileSystem.from_uri(directory.tune_storage(TUNE_NAME))
        reports: dict[str, dict[str, Any]] = {}
        selected: dict[str, Saved] = {}
        rows: list[Row] = []
        for plan in plans:
            name = plan.trial_id
            directory.require_trial_name(name)
            found = newest(files, f"{folder}/{name}")
            if found is not None:
                reports[name] = found.saved.report
                rows += [ROW.validate_python(raw) for report in found.saved.reports for raw in report]
            done = reports.get(name, {}).get("done", False)
            if done and name not in ended:
                ended[name] = "done"
                rows.append(_end_of(name, reports[name]))
            elif not done and ended.get(name) == "done" and _may_be_taken_after(plan):
                del ended[name]  # its driver died before its last report was saved: it ends once more
            if found is not None and found.saved.prompt is not None and name in ended:
                selected[name] = found.saved
        return cls(ended, reports, decisions, tuple(lost(directory.ledger, rows)), selected)

    def write_down(self, directory: RunDirectory, writer: LedgerWriter) -> None:
        """Write down what the checkpoints know and the ledger does not, as when a machine was lost with its end.

        A trial goes on behind its checkpoint, and one that has ended does not go on at all; neither makes these rows
        again.
        """
        for name, saved in self.selected.items():
            if (selected := saved.state.get("selected")) is not None:
                directory.keep_head(name, selected.head)
            if (archive := saved.state.get("archive")) is not None and (chosen := chosen_of(archive)):
                directory.keep_ensemble(name, chosen)
            if saved.prompt is not None:
                directory.keep_prompt(name, saved.prompt)
        for row in self.lost:
            writer.write(row)


def _end_of(trial_id: str, report: dict[str, Any]) -> TrialEndRow:
    elapsed = report["progress"]["elapsed"]
    return TrialEndRow(trial_id=trial_id, status="done", reason=report["reason"], wall_seconds=elapsed)


def _may_be_taken_after(plan: TrialPlan) -> bool:
    return isinstance(plan.experiment.schedule, PopulationScheduleConfig)


def read_decisions(directory: RunDirectory) -> Decisions:
    """Return what the schedule of a run's population has decided so far; nothing where there is none.

    Raises:
        RunDirectoryError: the file holds something else.
    """
    if not directory.population.exists():
        return Decisions()
    raw = read_json(directory.population, name=directory.shown(directory.population), nan=True)
    try:
        return Decisions.from_json(raw)
    except ValueError as error:
        raise RunDirectoryError(
            f"{directory.shown(directory.population)} must hold what a population's schedule decided, but it does not"
            f" ({' '.join(str(error).split())[:200]}); start a new run"
        ) from None
