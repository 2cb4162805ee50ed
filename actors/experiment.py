"""A whole run on Ray: pool, baseline, trials under Tune, then the best prompt and the report. The driver's side."""

import dataclasses
import logging
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from actors.dispatcher import DispatcherActor, Statistics
from actors.oracle import start_oracles
from actors.progress import Progress
from actors.recorder import Recorder
from actors.remote import RemoteOracle
from actors.trial import TuneTrial
from distributed_tuner import __version__
from distributed_tuner.config.schedule import AshaScheduleConfig
from distributed_tuner.config.space import TrialPlan
from distributed_tuner.ledger.reader import read
from distributed_tuner.ledger.rows import CostRow, MeasureRow, RunEndRow, RunRow
from distributed_tuner.ledger.writer import LedgerWriter
from distributed_tuner.preflight import SPLITS, Prepared
from distributed_tuner.prompts.export import ExportedPrompt, write
from distributed_tuner.prompts.spec import prompt_spec
from distributed_tuner.report.html import write_report
from distributed_tuner.report.summary import summarize
from distributed_tuner.run_directory import RunDirectory, write_json
from distributed_tuner.stages.search import scores_of
from distributed_tuner.tasks.base import Task
from distributed_tuner.values import Batch, Candidate, Layout, OracleInfo, Point, PromptSpec, Request, Split, Text

log = logging.getLogger(__name__)

TUNE_NAME = "trials"
CHECKPOINT_EVERY = 3  # reports of some seconds each
CHECKPOINTS_KEPT = 20  # Tune's own snapshot may point to one that is this old
TRIAL_FAILURES = 3
TRIAL_CPUS = 0.01  # a trial waits for the pool nearly all the time


@dataclasses.dataclass(frozen=True, slots=True)
class Finished:
    """How a run ended: "done", "interrupted" or "failed", and where its report is."""

    status: str
    report: Path
    summary: dict[str, Any]


def run(prepared: Prepared, directory: RunDirectory, *, address: str | None, resume: bool, command: str) -> Finished:
    """Run every trial and write the whole run directory.

    Raises:
        RunDirectoryError: the directory is used already (without ``resume``), or holds no run (with it).
        ModelError: the model cannot be loaded.
    """
    if not resume:
        directory.create()
    with cluster(prepared, address):
        return _Run(prepared, directory, command, resume).go()


@contextmanager
def cluster(prepared: Prepared, address: str | None) -> Iterator[None]:
    """Join the Ray cluster at ``address`` ("auto" or ray://...), or start one on this machine for the run."""
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the new one prints a banner at any verbosity
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    joined = ray.is_initialized()
    if not joined:
        oracle = prepared.experiment.oracle
        root = str(Path(__file__).resolve().parent.parent)
        options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        if address is None and "RAY_ADDRESS" not in os.environ:
            cpus = max(os.cpu_count() or 1, oracle.actors * oracle.threads) + 1
            options |= {"address": "local", "num_cpus": cpus, "include_dashboard": False}
            options["runtime_env"] = {"env_vars": {"PYTHONPATH": root}}
        else:
            options |= {"address": address or os.environ["RAY_ADDRESS"]}
        ray.init(**options)
    try:
        yield
    finally:
        if not joined:
            ray.shutdown()


class _Run:
    """One run from pool to report."""

    def __init__(self, prepared: Prepared, directory: RunDirectory, command: str, resume: bool) -> None:
        self._prepared = prepared
        self._directory = directory
        self._command = command
        self._resume = resume
        self._began = time.monotonic()
        self._name = f"{prepared.experiment.name}-{os.getpid()}-{time.time_ns()}"

    def go(self) -> Finished:
        import ray

        experiment = self._prepared.experiment
        metric = self._prepared.tasks[0].metric
        progress = Progress(self._prepared.plans, metric)
        model = getattr(experiment.oracle, "model", "the analytic oracle")
        progress.note(f"loading {model} in {experiment.oracle.actors} oracle actor(s)")
        actors = start_oracles(experiment.oracle, self._name)
        dispatcher = DispatcherActor.options(name=f"{self._name}/dispatcher").remote(experiment.oracle, actors)
        oracle = _started(dispatcher)
        if not self._resume:
            write_json(self._directory.config, self._config(oracle.info))
        status = "failed"
        with LedgerWriter(self._directory.ledger) as writer:
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
            try:
                self._measure_manual_prompts(oracle, writer, progress)
                status = self._run_trials(dispatcher, oracle.info, writer, progress)
                if status == "done":
                    self._measure_best(oracle, writer)
            except KeyboardInterrupt:
                status = "interrupted"
            finally:
                statistics = _statistics(dispatcher)
                writer.write(
                    RunEndRow(
                        status=status,
                        wall_seconds=time.monotonic() - self._began,
                        oracle_busy_seconds=statistics.busy_seconds,
                        oracle_actors=experiment.oracle.actors,
                        tiles=statistics.tiles,
                        retries=statistics.retries,
                    )
                )
                self._export(oracle)
                report = write_report(self._directory.path)
        for actor in (dispatcher, *actors):
            ray.kill(actor)
        return Finished(status, report, summarize(read(self._directory.ledger), self._directory.read_config()))

    # ------------------------------------------------------------------------------------------------ parts
    def _config(self, info: OracleInfo) -> dict[str, Any]:
        task = self._prepared.tasks[0]
        packages = ("ray", "torch", "transformers", "cma", "nevergrad", "numpy")
        return {
            "experiment": self._prepared.experiment.model_dump(mode="json"),
            "trials": [plan_to_json(plan) for plan in self._prepared.plans],
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

    def _measure_manual_prompts(self, oracle: RemoteOracle, writer: LedgerWriter, progress: Progress) -> None:
        done = {
            (row.split_seed, row.split) for row in read(self._directory.ledger).measures if row.what == "manual_prompt"
        }
        nothing = PromptSpec(1, "zeros", "", "prefix", "paper")
        measured: dict[tuple[str, Batch], MeasureRow] = {}
        for split_seed, task in self._prepared.baselines():
            for split in SPLITS[1:]:
                if (split_seed, split) in done:
                    continue
                asked = (task.manual_prompt, task.batch(split))
                if asked in measured:  # test sets are often the same for every split seed
                    row = measured[asked].model_copy(update={"split_seed": split_seed, "cost": CostRow()})
                else:
                    row = _measured(oracle, task, Text(task.manual_prompt), nothing, split, split_seed, None)
                    measured[asked] = row
                writer.write(row)
                progress.note(f"manual prompt, split {split_seed}: {split} {task.metric} {row.metric:.4f}")

    def _run_trials(self, dispatcher: Any, info: OracleInfo, writer: LedgerWriter, progress: Progress) -> str:
        recorder = Recorder(
            self._prepared.plans, writer, self._directory, progress, lambda: _statistics(dispatcher).events
        )
        tuner = self._tuner(dispatcher, info, recorder)
        with progress, _quiet_tune():
            results = tuner.fit()
            trials = results._experiment_analysis.trials
            interrupted = recorder.close()
        if interrupted:
            return "interrupted"
        return "failed" if all(str(trial.status) == "ERROR" for trial in trials) else "done"

    def _tuner(self, dispatcher: Any, info: OracleInfo, recorder: Recorder) -> Any:
        from ray import tune

        plans, tasks = self._prepared.plans, self._prepared.tasks
        trainable = tune.with_resources(
            tune.with_parameters(TuneTrial, dispatcher=dispatcher, info=info, plans=plans, tasks=tasks),
            {"cpu": TRIAL_CPUS},
        )
        storage = self._directory.tune.resolve()
        run_config = tune.RunConfig(
            name=TUNE_NAME,
            storage_path=str(storage),
            callbacks=[recorder],
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=TRIAL_FAILURES),
            checkpoint_config=tune.CheckpointConfig(
                checkpoint_frequency=CHECKPOINT_EVERY, checkpoint_at_end=True, num_to_keep=CHECKPOINTS_KEPT
            ),
        )
        if self._resume and tune.Tuner.can_restore(str(storage / TUNE_NAME)):
            tuner = tune.Tuner.restore(str(storage / TUNE_NAME), trainable=trainable, resume_unfinished=True)
            tuner._local_tuner._run_config.callbacks = [recorder]  # the pickled one holds the first run's ledger
            return tuner
        return tune.Tuner(
            trainable,
            param_space={"trial": tune.grid_search(list(range(len(plans))))},
            tune_config=tune.TuneConfig(
                max_concurrent_trials=self._prepared.experiment.max_concurrent_trials,
                scheduler=self._scheduler(),
                reuse_actors=True,  # a process that has ended one trial runs the next: starting one takes seconds
            ),
            run_config=run_config,
        )

    def _scheduler(self) -> Any:
        from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

        schedule = self._prepared.experiment.schedule
        if isinstance(schedule, AshaScheduleConfig):
            most = max(projection.search.queries for projection in self._prepared.projections)
            return ASHAScheduler(
                time_attr="queries",
                metric="dev_loss",
                mode="min",
                grace_period=min(schedule.grace_queries, most),
                reduction_factor=schedule.reduction_factor,
                max_t=most + 1,  # a trial ends by its budget, never by its last rung
            )
        return FIFOScheduler()

    def _best(self) -> tuple[TrialPlan, Task, dict[str, Any]] | None:
        """Return the best trial with its task and its line in the summary, if its prompt is known."""
        summary = summarize(read(self._directory.ledger), self._directory.read_config())
        for plan, task in zip(self._prepared.plans, self._prepared.tasks, strict=True):
            if plan.trial_id == summary["best"]["trial_id"] and self._directory.prompt_of(plan.trial_id).exists():
                return plan, task, next(trial for trial in summary["trials"] if trial["trial_id"] == plan.trial_id)
        return None

    def _measure_best(self, oracle: RemoteOracle, writer: LedgerWriter) -> None:
        """Score the best prompt on test if its trial was stopped by the schedule before it could."""
        best = self._best()
        if best is None or best[2]["test_metric"] is not None:
            return
        plan, task, _ = best
        rows = np.load(self._directory.prompt_of(plan.trial_id))
        spec = PromptSpec(len(rows), "zeros", "", prompt_spec(plan.experiment.prompt, task).layout, "paper")
        writer.write(
            _measured(
                oracle, task, Point(rows.reshape(-1)), spec, "test", plan.experiment.task.split_seed, plan.trial_id
            )
        )

    def _export(self, oracle: RemoteOracle) -> None:
        """Write ``best/`` from the trial that the summary calls best, if any has looked at its prompt."""
        best = self._best()
        if best is not None:
            plan, task, scores = best
            write(
                exported(plan, task, np.load(self._directory.prompt_of(plan.trial_id)), scores, oracle),
                self._directory.best,
            )


def exported(plan: TrialPlan, task: Task, rows: Any, scores: dict[str, Any], oracle: Any) -> ExportedPrompt:
    """Return a trial's prompt with all that is needed to use it elsewhere."""
    experiment = plan.experiment
    layout: Layout = "suffix" if experiment.prompt.layout == "suffix" else "prefix"
    return ExportedPrompt(
        rows=rows,
        layout=layout,
        model=getattr(experiment.oracle, "model", "analytic"),
        trial_id=plan.trial_id,
        method=plan.method,
        nearest_tokens=oracle.nearest_tokens(rows),
        template={
            "cue": task.train[0].cue,
            "label_words": list(task.label_words),
            "example": task.train[0].text + task.train[0].cue,
        },
        scores={name: scores[name] for name in ("train_loss", "dev_loss", "dev_metric", "test_metric")},
    )


def _measured(
    oracle: RemoteOracle,
    task: Task,
    candidate: Candidate,
    spec: PromptSpec,
    split: Split,
    split_seed: int,
    trial_id: str | None,
) -> MeasureRow:
    """Score a candidate beside any budget; without a trial it is the manual prompt."""
    batch = task.batch(split)
    answer = oracle.evaluate(Request((candidate,), batch, spec))
    scores = scores_of(task, answer, batch)
    return MeasureRow(
        trial_id=trial_id,
        what="selected" if trial_id else "manual_prompt",
        split="dev" if split == "dev" else "test",
        split_seed=split_seed,
        loss=float(answer.losses[0]),
        metric=scores[task.metric],
        metrics=scores,
        cost=CostRow.of(answer.cost),
    )


def plan_to_json(plan: TrialPlan) -> dict[str, Any]:
    """Return a trial's plan as config.json holds it."""
    return {
        "trial_id": plan.trial_id,
        "index": plan.index,
        "method": plan.method,
        "seed": plan.experiment.seed,
        "split_seed": plan.experiment.task.split_seed,
        "drawn": plan.drawn,
        "config": plan.experiment.model_dump(mode="json"),
    }


def _started(dispatcher: Any) -> RemoteOracle:
    import ray
    from ray.exceptions import RayTaskError

    from distributed_tuner.errors import TunerError

    try:
        return RemoteOracle(dispatcher, ray.get(dispatcher.start.remote()))
    except RayTaskError as error:
        if isinstance(error.cause, TunerError):
            raise error.cause from None
        raise


def _statistics(dispatcher: Any) -> Statistics:
    import ray

    try:
        statistics: Statistics = ray.get(dispatcher.statistics.remote(), timeout=30)
    except ray.exceptions.RayError as error:
        log.warning("the dispatcher does not answer: %s", error)
        return Statistics()
    return statistics


@contextmanager
def _quiet_tune() -> Iterator[None]:
    """Keep Tune's own console output out of ours; errors still come through."""
    loggers = [logging.getLogger(name) for name in ("ray.tune", "ray.train", "ray.air")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
