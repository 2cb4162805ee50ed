"""Recorder: the ledger's one writer; passes on to observers what trials report."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from distributed_tuner.config.space import TrialPlan
from distributed_tuner.ledger.rows import ROW, EventRow, TrialEndRow, TrialRow
from distributed_tuner.ledger.writer import LedgerWriter
from distributed_tuner.runs.directory import RunDirectory
from distributed_tuner.runs.observer import Observer

POLL_SECONDS = 2.0


class Recorder:
    """Writes what trials report.

    pool_events: hands over what the pool has to tell. ended: how trials ended before this run of the driver, by name.
    stops: who has stopped which trials; another thread adds to it.
    """

    def __init__(
        self,
        plans: list[TrialPlan],
        writer: LedgerWriter,
        directory: RunDirectory,
        observer: Observer,
        pool_events: Callable[[], list[tuple[str, str]]],
        ended: Mapping[str, str],
        stops: Mapping[str, str],
    ) -> None:
        self._plans = plans
        self._writer = writer
        self._directory = directory
        self._observer = observer
        self._pool_events = pool_events
        self._attempts: dict[str, int] = {}
        self._ended = dict(ended)
        self._stops = stops
        self._heard: set[str] = set()  # stops that were written down
        self._last: dict[str, Mapping[str, Any]] = {}
        self._next_poll = 0.0

    def started(self, plan: TrialPlan) -> None:
        """A trial begins, begins again after a failure, or goes on from a sync point."""
        if self._last.get(plan.trial_id, {}).get("waiting"):  # it was paused at a sync point, and goes on as decided
            self._observer.status(plan.trial_id, "running")
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
        self._observer.status(plan.trial_id, "running")

    def reported(self, plan: TrialPlan, result: Mapping[str, Any]) -> None:
        """Take a trial's report: its new rows as data, its prompt and head where these are new, how it stands."""
        self._last[plan.trial_id] = result
        rows = [ROW.validate_python(raw) for raw in result["rows"]]
        for row in rows:
            self._writer.write(row)
        if result.get("head") is not None:
            self._directory.keep_head(plan.trial_id, result["head"])
        if result.get("ensemble") is not None:
            self._directory.keep_ensemble(plan.trial_id, result["ensemble"])
        if result.get("prompt") is not None:
            self._directory.keep_prompt(plan.trial_id, result["prompt"])
        for row in rows:  # last, because a listener may end the run
            self._observer.row(plan.trial_id, row)
        self._observer.update(plan.trial_id, result["progress"])
        self.poll()

    def completed(self, plan: TrialPlan) -> None:
        """A trial has ended, by itself or because a schedule or somebody stopped it."""
        if reason := self._last.get(plan.trial_id, {}).get("reason"):
            self._end(plan.trial_id, "done", reason)
        else:
            self._end(plan.trial_id, "stopped", f"stopped by {self._stops.get(plan.trial_id, 'the schedule')}")

    def is_stopped(self, plan: TrialPlan) -> bool:
        """Tell whether a trial that has not ended shall end, as somebody has asked for."""
        return plan.trial_id in self._stops and plan.trial_id not in self._ended

    def failed(self, plan: TrialPlan, reason: str) -> None:
        """A trial has failed for good."""
        self._end(plan.trial_id, "failed", reason[:500])

    def event(self, trial_id: str | None, kind: str, message: str) -> None:
        """Write down that something happened, and show it."""
        self._writer.write(EventRow(trial_id=trial_id, kind=kind, message=message))
        self._observer.note(f"{trial_id or 'pool'}: {message}")

    def poll(self) -> None:
        """Write down who has stopped which trials, and every few seconds what the pool has to tell."""
        if len(self._stops) > len(self._heard):
            self._hear_stops()
        if time.monotonic() >= self._next_poll:
            self._next_poll = time.monotonic() + POLL_SECONDS
            self._drain()

    def close(self) -> str:
        """Write how the trials that have not ended stand; return the run's status: done, interrupted or failed."""
        self._hear_stops()
        self._drain()
        unfinished = []
        for trial_id in [plan.trial_id for plan in self._plans if plan.trial_id not in self._ended]:
            if trial_id in self._stops:  # its request is read and gone: it stays ended when the run is resumed
                self._end(trial_id, "stopped", f"stopped by {self._stops[trial_id]}")
                continue
            unfinished.append(trial_id)
            if trial_id in self._attempts:
                self._end(trial_id, "interrupted", "stopped by the user; --resume continues from its last checkpoint")
        if unfinished:
            return "interrupted"
        return "failed" if set(self._ended.values()) == {"failed"} else "done"

    # ------------------------------------------------------------------------------------------------ parts
    def _end(self, trial_id: str, status: Any, reason: str) -> None:
        self._ended[trial_id] = status
        elapsed = self._last.get(trial_id, {}).get("progress", {}).get("elapsed", 0.0)
        self._writer.write(TrialEndRow(trial_id=trial_id, status=status, reason=reason, wall_seconds=elapsed))
        self._observer.status(trial_id, status)

    def _hear_stops(self) -> None:
        known = {plan.trial_id for plan in self._plans}
        for trial_id, by in list(self._stops.items()):
            if trial_id not in self._heard and trial_id in known:
                status = self._ended.get(trial_id)
                late = "" if status is None else f", but has ended already ({status})"
                self.event(trial_id, "stop", f"shall end, as {by} has asked for{late}")
            self._heard.add(trial_id)

    def _drain(self) -> None:
        for kind, message in self._pool_events():
            self.event(None, kind, message)
