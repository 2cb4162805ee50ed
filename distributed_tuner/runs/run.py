"""A whole run: startup, baselines, trials, then the best prompt and the report. The driver's side, wherever the trials
run."""

import dataclasses
import logging
import platform
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from distributed_tuner import __version__
from distributed_tuner.config.oracle import OracleConfig
from distributed_tuner.config.space import TrialPlan
from distributed_tuner.errors import RunDirectoryError, TunerError
from distributed_tuner.ledger.follower import Follower
from distributed_tuner.ledger.rows import DATA_WARNING, EventRow, RunEndRow, RunRow
from distributed_tuner.ledger.writer import LedgerWriter
from distributed_tuner.oracles.base import LossOracle
from distributed_tuner.oracles.codec import codec_of
from distributed_tuner.preflight.prepared import SPLITS, Prepared, screen_of
from distributed_tuner.prompts.ensemble_export import ENSEMBLE, write_ensemble
from distributed_tuner.prompts.export import ExportedPrompt, exported, write
from distributed_tuner.prompts.spec import framed, prompt_spec
from distributed_tuner.report.html import write_report
from distributed_tuner.report.summary import summarize, write_summary
from distributed_tuner.report.trials import best_trial, summarize_trials
from distributed_tuner.runs.directory import RunDirectory, write_json
from distributed_tuner.runs.final_scores import measure_bags_of_words, measure_baselines, measure_ensemble
from distributed_tuner.runs.heartbeat import Heartbeat
from distributed_tuner.runs.layout_race import race_layouts
from distributed_tuner.runs.live_report import LiveReport
from distributed_tuner.runs.members import asked_members
from distributed_tuner.runs.observer import Observer
from distributed_tuner.runs.pool import OraclePool, Statistics
from distributed_tuner.runs.recorder import Recorder
from distributed_tuner.runs.startup import Started, start_pool, start_pool_again
from distributed_tuner.runs.stopping import StopRequests
from distributed_tuner.stages.measuring import measure
from distributed_tuner.stages.reading import Reader
from distributed_tuner.stages.validation import reader_of
from distributed_tuner.tasks.base import Task
from distributed_tuner.values import Array, OracleInfo

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Finished:
    """Result of a run: "done", "interrupted" or "failed", and the place of its report."""

    status: str
    report: Path
    summary: dict[str, Any]


class Backend(Protocol):
    """Backend of a run: this process, or Ray."""

    lost: tuple[type[Exception], ...]
    """Exceptions of a pool that is gone."""

    @property
    def ended(self) -> Mapping[str, str]:
        """Status of trials that ended before this driver began, by name; empty for a new run."""
        ...

    def notes(self, oracle: OracleConfig) -> list[str]:
        """Return what a person should know of where the run computes."""
        ...

    def start(self, oracle: OracleConfig) -> OraclePool:
        """Start a pool, and wait until it answers.

        Raises:
            ModelError: the model cannot be loaded.
        """
        ...

    def run_trials(self, prepared: Prepared, pool: OraclePool, recorder: Recorder, ledger: Follower) -> None:
        """Run the trials that have not ended, and tell the recorder of each.

        Raises:
            KeyboardInterrupt: the run shall end early.
        """
        ...

    def interrupt(self) -> None:
        """End the run as Ctrl-C does; called by another thread."""
        ...

    def over(self) -> None:
        """From here on the run is being brought to its end."""
        ...


class Run:
    """One run from pool to report. resume: it goes on with what its directory holds. page: the report is drawn at the
    end, and not its numbers alone."""

    def __init__(
        self,
        prepared: Prepared,
        directory: RunDirectory,
        backend: Backend,
        writer: LedgerWriter,
        observer: Observer,
        *,
        command: str,
        resume: bool = False,
        page: bool = True,
    ) -> None:
        self._prepared = prepared
        self._directory = directory
        self._backend = backend
        self._command = command
        self._writer = writer
        self._observer = observer
        self._resume = resume
        self._page = page
        self._began = time.monotonic()
        self._ledger = Follower(directory.ledger)
        self._stops = StopRequests(directory, backend.interrupt)
        self._live_report = LiveReport(directory.path, prepared.experiment.report_every if page else None)

    def go(self) -> Finished:
        """Do the whole run."""
        with self._stops:
            return self._go()

    # ------------------------------------------------------------------------------------------------ parts
    def _go(self) -> Finished:
        experiment = self._prepared.experiment
        note = self._observer.note
        model = getattr(experiment.oracle, "model", f"the {experiment.oracle.kind} oracle")
        note(f"loading {model} in {experiment.oracle.first_actors} oracle actor(s)")
        for told in (*self._backend.notes(experiment.oracle), *self._prepared.notes):
            note(told)
        for warning in self._prepared.warnings:
            note(f"warning: {warning}")
        started = self._started()
        pool, oracle = started.pool, started.pool.oracle
        for told in oracle.info.extra.get("notes", "").splitlines():  # what shows when a model is loaded
            if told not in self._prepared.notes:
                note(told)
        self._prepared = self._prepared.with_oracle(started.oracle).with_answer_words(started.answer_words)
        if self._prepared.experiment.head.kind != experiment.head.kind:
            note(f"head: {self._prepared.experiment.head.kind}, as answers tell of label words alone")
        self._prepared, layouts = race_layouts(self._prepared, oracle, note)
        if not self._resume:
            write_json(self._directory.config, self._config(oracle.info))
        status = "failed"
        writer = self._writer
        methods = list(dict.fromkeys(plan.method for plan in self._prepared.plans))
        writer.write(
            RunRow(
                name=experiment.name,
                version=__version__,
                seed=experiment.seed,
                methods=methods,
                resumed=self._resume,
            )
        )
        for warning in () if self._resume else self._prepared.warnings:
            writer.write(EventRow(kind=DATA_WARNING, message=warning))
        for calibration in started.calibrations:
            writer.write(calibration)
        for parity in started.parities:
            writer.write(parity)
        for layout in layouts:
            writer.write(layout)
        _write_events(started.before, writer)
        self._live_report.start()
        heartbeat = Heartbeat(self._directory.path, pool.occupancy)
        heartbeat.start()
        try:
            measure_baselines(self._prepared, self._directory, oracle, self._ledger, writer, self._observer)
            status = self._run_trials(pool)
            if status == "done":
                measure_bags_of_words(self._prepared, self._ledger, writer, self._observer)
                self._measure_best(oracle, writer)
                self._measure_ensembles(oracle, writer)
        except KeyboardInterrupt:
            status = "interrupted"
            if self._stops.run is not None:
                writer.write(EventRow(kind="stop", message=f"the run was stopped by {self._stops.run}"))
                note(f"stopped by {self._stops.run}")
        finally:
            self._backend.over()
            self._live_report.stop()
            heartbeat.stop()
            statistics = self._hear(pool)
            _write_events(statistics, writer, note)
            writer.write(
                RunEndRow(
                    status=status,
                    wall_seconds=time.monotonic() - self._began,
                    oracle_busy_seconds=started.before.busy_seconds + statistics.busy_seconds,
                    oracle_actors=statistics.most_up or experiment.oracle.first_actors,
                    tiles=started.before.tiles + statistics.tiles,
                    retries=started.before.retries + statistics.retries,
                    counts=dict(started.before.counts + statistics.counts),
                )
            )
            if status == "interrupted":  # a stopped job has only seconds, and the model may be slow
                self._try_report()
            self._try_export(oracle)
            report = self._try_report()
            pool.stop()
        if not self._directory.config.exists():
            raise RunDirectoryError(f"{self._directory.name} was removed while its run went on; start the run again")
        return Finished(status, report, self._summary())

    def _started(self) -> Started:
        """Start the pool; a new run chooses what is "auto", a resumed one has it in its config.json."""
        start = start_pool_again if self._resume else start_pool
        return start(self._prepared, self._backend.start, self._observer.note)

    def _hear(self, pool: OraclePool) -> Statistics:
        """Return the pool's events. A smaller tile is in config.json before its event is reported."""
        statistics = pool.statistics()
        oracle = self._prepared.experiment.oracle
        if statistics.tile not in (None, oracle.tile):
            oracle = oracle.model_copy(update={"tile": statistics.tile})
            self._prepared = self._prepared.with_oracle(oracle)
            self._directory.record_oracle(oracle.model_dump(mode="json"))
        return statistics

    def _config(self, info: OracleInfo) -> dict[str, Any]:
        task = self._prepared.tasks[0]
        packages = ("ray", "torch", "transformers", "cma", "nevergrad", "numpy")
        return {
            "experiment": self._prepared.experiment.model_dump(mode="json"),
            "trials": [plan.to_json() for plan in self._prepared.plans],
            "space": self._prepared.space,
            "task": {
                "name": task.name,
                "metric": task.metric,
                "label_words": list(task.label_words),
                **{split: len(task.examples(split)) for split in SPLITS},
            },
            "model": dataclasses.asdict(info),
            "versions": {"python": platform.python_version()} | {name: version(name) for name in packages},
            "command": self._command,
            "root": str(self._prepared.root),
        }

    def _run_trials(self, pool: OraclePool) -> str:
        _write_events(self._hear(pool), self._writer, self._observer.note)
        pool.use_tile(self._prepared.experiment.oracle.tile)  # what the trials' budgets reckon with
        recorder = Recorder(
            self._prepared.plans,
            self._writer,
            self._directory,
            self._observer,
            lambda: self._hear(pool).events,
            self._backend.ended,
            self._stops.trials,
        )
        try:
            self._backend.run_trials(self._prepared, pool, recorder, self._ledger)
            return recorder.close()
        except KeyboardInterrupt:
            recorder.close()
            raise

    def _summary(self) -> dict[str, Any]:
        """Return what the run has come to so far."""
        return summarize(self._ledger.catch_up(), self._directory.read_config())

    def _best(self) -> tuple[TrialPlan, Task, Array | str, dict[str, Any], dict[str, Any]] | None:
        """Return the best trial with its task, its prompt, its line in the summary, and what the summary says is
        returned, if its prompt is known.

        The plan and the task are as the prompt is asked: a screen may have found another instruction and wording.
        """
        summary = self._summary()
        for plan in self._prepared.plans:
            prompt = self._directory.prompt_of(plan.trial_id)
            if plan.trial_id == summary["best"]["trial_id"] and prompt is not None:
                scores = next(trial for trial in summary["trials"] if trial["trial_id"] == plan.trial_id)
                asked, task = self._prepared.as_screened(plan, self._ledger.catch_up().screens)
                seen = task if isinstance(prompt, str) else framed(task, asked.experiment.prompt)
                return asked, seen, prompt, scores, summary["best"]
        return None

    def _measure_best(self, oracle: LossOracle, writer: LedgerWriter) -> None:
        """Score the best prompt on test if its trial was stopped by the schedule before it could."""
        best = self._best()
        if best is None or best[3]["test_metric"] is not None or not best[1].test:
            return
        plan, task, prompt, scores, _ = best
        state = self._directory.head_of(plan.trial_id)
        candidate, spec = exported(plan, task, prompt, [], scores, state).asked()
        reader, split_seed = reader_of(task, plan.experiment.head), plan.experiment.task.split_seed
        writer.write(measure(oracle, reader, candidate, spec, state, split_seed, plan.trial_id))

    def _measure_ensembles(self, oracle: LossOracle, writer: LedgerWriter) -> None:
        """Score the ensemble of the best trial of every split on test."""
        digest, metric = self._ledger.catch_up(), self._prepared.tasks[0].metric
        done = {row.trial_id for row in digest.measures if row.what == "ensemble"}
        trials = summarize_trials(digest, self._directory.recorded())
        for split_seed in dict.fromkeys(plan.experiment.task.split_seed for plan in self._prepared.plans):
            best = best_trial([trial for trial in trials if trial.split_seed == split_seed])
            plan = next((plan for plan in self._prepared.plans if best and plan.trial_id == best.trial_id), None)
            members = [] if plan is None or plan.trial_id in done else self._members(plan)
            if plan is None or not members or not members[0][0].task.test:
                continue
            try:
                row = measure_ensemble(oracle, members, split_seed, plan.trial_id)
            except TunerError as error:  # as of a test row that is too long behind demonstrations
                message = f"its prompts could not be read together on test: {error}"
                writer.write(EventRow(trial_id=plan.trial_id, kind="ensemble", message=message))
                self._observer.note(f"{plan.trial_id}: {message}")
            else:
                writer.write(row)
                told = f"{len(members)} prompts read together, split {split_seed}: test {metric} {row.metric:.4f}"
                self._observer.note(told)

    def _members(self, plan: TrialPlan, oracle: LossOracle | None = None) -> list[tuple[Reader, ExportedPrompt]]:
        """Return a trial's prompts that are best read together, each with its reader. ``oracle``: tells their nearest
        tokens."""
        found = screen_of(plan, self._ledger.catch_up().screens)

        def nearest(asked: TrialPlan, seen: Task, prompt: Array | str) -> list[tuple[str, float]]:
            return [] if oracle is None else self._nearest(asked, seen, prompt, oracle)

        return asked_members(self._prepared, plan, found, self._directory.ensemble_of(plan.trial_id), nearest)

    def _nearest(self, plan: TrialPlan, task: Task, prompt: Array | str, oracle: LossOracle) -> list[tuple[str, float]]:
        if isinstance(prompt, str):
            return []
        return codec_of(oracle).nearest_tokens(prompt, prompt_spec(plan.experiment.prompt, task).layout)

    def _try_export(self, oracle: LossOracle) -> None:
        """Export; a pool that is gone costs the export, not the report."""
        lost: tuple[type[Exception], ...] = (TunerError, OSError, *self._backend.lost)
        try:
            self._export(oracle)
        except lost as error:
            log.warning("best/ could not be written (%s); --resume writes it", error)

    def _try_report(self) -> Path:
        """Write the report; a disk that is full costs the report, not what else there is to be said."""
        try:
            if self._page:
                write_report(self._directory.path, self._ledger.catch_up())
            else:
                write_summary(self._directory.summary, self._summary())
        except OSError as error:
            log.warning("the report could not be written (%s); `python tune.py report` writes it", error)
        if self._directory.mirror is not None:
            self._directory.mirror.catch_up(0)  # have it sent now, and wait for nothing
        return self._directory.report

    def _export(self, oracle: LossOracle) -> None:
        """Write ``best/`` from the trial that the summary calls best, if any has evaluated its prompt."""
        best = self._best()
        if best is None:
            return
        plan, task, prompt, scores, told = best
        if told["kept"] == "manual_prompt":
            state = self._directory.baseline_head(plan.experiment.task.split_seed)
            task = self._prepared.plain_task(plan)
            found = exported(plan, task, task.manual_prompt, [], told, state, told["method"])
        else:
            state = self._directory.head_of(plan.trial_id)
            found = exported(plan, task, prompt, self._nearest(plan, task, prompt, oracle), scores, state)
        write(found, self._directory.best)
        members = self._members(self._prepared.plans[plan.index], oracle)
        write_ensemble([member for _, member in members], self._directory.path / ENSEMBLE)


def _write_events(statistics: Statistics, writer: LedgerWriter, note: Callable[[str], None] = lambda _: None) -> None:
    for kind, message in statistics.events:
        writer.write(EventRow(kind=kind, message=message))
        note(f"pool: {message}")
