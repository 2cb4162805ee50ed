"""Tune's callback in the driver: the ledger's one writer, and what a person sees while the run goes on."""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from actors.monitoring.progress import Progress
from actors.ray_internals.tune_import import tune
from distributed_tuner.config.space import TrialPlan
from distributed_tuner.ledger.rows import (
    ROW,
    EventRow,
    LookRow,
    RestartRow,
    ScreenRow,
    StageRow,
    SurveyRow,
    TrialEndRow,
    TrialRow,
)
from distributed_tuner.ledger.writer import LedgerWriter
from distributed_tuner.report import formatting
from distributed_tuner.runs.directory import RunDirectory


class Recorder(tune.Callback):  # type: ignore[misc]
    """Writes what trials report.

    pool_events: hands over what the dispatcher has to tell. ended: how trials ended before this driver began, by name.
    """

    def __init__(
        self,
        plans: list[TrialPlan],
        writer: LedgerWriter,
        directory: RunDirectory,
        progress: Progress,
        pool_events: Callable[[], list[tuple[str, str]]],
        ended: Mapping[str, str],
    ) -> None:
        self._plans = plans
        self._writer = writer
        self._directory = directory
        self._progress = progress
        self._pool_events = pool_events
        self._attempts: dict[str, int] = {}
        self._ended = dict(ended)
        self._last: dict[str, dict[str, Any]] = {}
        self._next_poll = 0.0

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks into the experiment; a ledger being written has no place there."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        plan = self._plan(trial)
        if self._last.get(plan.trial_id, {}).get("waiting"):  # it was paused at a boundary, and goes on as decided
            self._progress.status(plan.trial_id, "running")
            return
        attempt = self._attempts.get(plan.trial_id, -1) + 1
        self._attempts[plan.trial_id] = attempt
        self._writer.write(
            TrialRow(
                trial_id=plan.trial_id,
                method=plan.method,
                seed=plan.experiment.seed,
                split_seed=plan.experiment.task.split_seed,
                drawn=plan.drawn,
                attempt=attempt,
            )
        )
        if attempt:
            self.event(plan.trial_id, "trial_retry", f"started again from its last checkpoint, attempt {attempt + 1}")
        self._progress.status(plan.trial_id, "running")

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        plan = self._plan(trial)
        self._last[plan.trial_id] = result
        for raw in result["rows"]:
            row = ROW.validate_python(raw)
            self._writer.write(row)
            if isinstance(row, LookRow):
                self._progress.look(plan.trial_id, row)
            elif isinstance(row, RestartRow):
                self._progress.restart(plan.trial_id, row)
            elif isinstance(row, SurveyRow):
                self._progress.survey(plan.trial_id, row)
            elif isinstance(row, ScreenRow):
                self._progress.screen(plan.trial_id, row)
            elif isinstance(row, StageRow):
                self._progress.stage(plan.trial_id, row)
            elif isinstance(row, EventRow):
                self._progress.note(f"{plan.trial_id}: {formatting.one_line(row.message, 500)}")
        if result.get("head") is not None:
            self._directory.keep_head(plan.trial_id, result["head"])
        if result.get("ensemble") is not None:
            self._directory.keep_ensemble(plan.trial_id, result["ensemble"])
        if result.get("prompt") is not None:
            self._directory.keep_prompt(plan.trial_id, result["prompt"])
        self._progress.update(plan.trial_id, result["progress"])
        self._poll()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        plan = self._plan(trial)
        result = self._last.get(plan.trial_id, {})
        if result.get("reason"):
            self._end(plan.trial_id, "done", result["reason"])
        else:
            self._end(plan.trial_id, "stopped", "stopped by the schedule")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._end(self._plan(trial).trial_id, "failed", _last_line(trial)[:500])

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._poll()

    def event(self, trial_id: str | None, kind: str, message: str) -> None:
        """Write down that something happened, and show it."""
        self._writer.write(EventRow(trial_id=trial_id, kind=kind, message=message))
        self._progress.note(f"{trial_id or 'pool'}: {message}")

    def close(self) -> str:
        """Write how the trials that have not ended stand; return the run's status: done, interrupted or failed.

        Tune's own status does not tell: at the end it calls every trial terminated that it has had to stop.
        """
        self._drain()
        unfinished = [plan.trial_id for plan in self._plans if plan.trial_id not in self._ended]
        for trial_id in unfinished:
            if trial_id in self._attempts:
                self._end(trial_id, "interrupted", "stopped by a person; --resume goes on from its last checkpoint")
        if unfinished:
            return "interrupted"
        return "failed" if set(self._ended.values()) == {"failed"} else "done"

    # ------------------------------------------------------------------------------------------------ parts
    def _plan(self, trial: Any) -> TrialPlan:
        plan: TrialPlan = self._plans[trial.config["trial"]]
        return plan

    def _end(self, trial_id: str, status: Any, reason: str) -> None:
        self._ended[trial_id] = status
        elapsed = self._last.get(trial_id, {}).get("progress", {}).get("elapsed", 0.0)
        self._writer.write(TrialEndRow(trial_id=trial_id, status=status, reason=reason, wall_seconds=elapsed))
        self._progress.status(trial_id, status)

    def _poll(self) -> None:
        if time.monotonic() >= self._next_poll:
            self._next_poll = time.monotonic() + 2.0
            self._drain()

    def _drain(self) -> None:
        for kind, message in self._pool_events():
            self.event(None, kind, message)


def _last_line(trial: Any) -> str:
    """Return the last line of what Tune wrote down of a trial's error."""
    text = ""
    if trial.error_file is not None:
        with suppress(OSError):
            text = Path(trial.error_file).read_text(encoding="utf-8", errors="replace").strip()
    return text.splitlines()[-1] if text else "see Ray's log of the trial"
