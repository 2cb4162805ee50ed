"""Metric loggers: Prometheus always, and TensorBoard, MLflow or W&B where the settings name them.

TensorBoard, MLflow and Weights & Biases are reached through Ray's own logger callbacks. These are made for flat results
and do their work in Tune's loop; here each of them gets flat numbers under the trial's name, in a thread of its own, so
that a server that hangs or is down is spoken of once and costs the run nothing.
"""

import math
import os
import queue
import re
import threading
import time
from collections import Counter as Tally
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

from actors.metrics import TrialMetrics
from actors.ray_internals.tune_import import tune
from distributed_tuner.config.budget import BudgetConfig
from distributed_tuner.config.logger import LoggerConfig, MlflowLoggerConfig, TensorboardLoggerConfig, WandbLoggerConfig
from distributed_tuner.config.space import TrialPlan
from distributed_tuner.report import formatting

MOST_WAITING = 1000  # reports that a logger may be behind; later ones are not sent
PATIENCE_SECONDS = 30.0  # that a run waits at its end for what a logger has yet to send
HURRY_SECONDS = 2.0  # ... where it was interrupted, or the logger has failed just now
SHOWN = 300  # characters of a failure
POLL_SECONDS = 2.0  # between two polls of how all trials stand

Scalar: TypeAlias = bool | int | float | str
Say: TypeAlias = Callable[[str | None, str, str], None]


# --------------------------------------------------------------------------------------------------------- reports
def flat(result: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a trial's report: how it stands, and its latest step. No text, nothing that is not finite.

    ``training_iteration``, by which Ray's loggers order reports, is the number of queries.
    """
    numbers: dict[str, Any] = dict(result["progress"])
    for row in result["rows"]:
        numbers |= _numbers_of(row)
    finite = {name: float(value) for name, value in numbers.items() if _is_finite(value)}
    return finite | {"training_iteration": int(result["progress"]["queries"])}


def _numbers_of(row: Mapping[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = {"usd": row["spent"]["usd"]} if "spent" in row else {}
    match row["type"]:
        case "step":
            told |= {"stage": row["stage"], "step_loss": row["loss"], "step_best_loss": row["best_loss"]}
            told |= {f"optimizer/{name}": value for name, value in row["metrics"].items()}
        case "measure":
            told |= {f"{row['split']}_loss": row["loss"], f"{row['split']}_metric": row["metric"]}
    return told


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def parameters(plan: TrialPlan) -> dict[str, Scalar]:
    """Return a trial's method, seeds and drawn settings: numbers, switches and names.

    Drawn texts (anything with a blank) may be prompts, and lists and mappings hold them: they stay in the ledger.
    """
    drawn = {path: value for path, value in plan.drawn.items() if _is_setting(value)}
    seeds = {"seed": plan.experiment.seed, "split_seed": plan.experiment.task.split_seed}
    return {"method": plan.method, **seeds, **drawn}


def _is_setting(value: Any) -> bool:
    return isinstance(value, bool | int | float) or (isinstance(value, str) and not re.search(r"\s", value))


def budget_used(limits: BudgetConfig, progress: Mapping[str, float], usd: float) -> float:
    """Return the share of the budget that is spent, by the limit that is nearest; 0 without limits."""
    spent = {**progress, "seconds": progress["elapsed"], "usd": usd}
    limited = {unit: limit for unit, limit in limits if limit is not None}
    return max((spent[unit] / limit for unit, limit in limited.items()), default=0.0)


# ---------------------------------------------------------------------------------------------------- Prometheus
class Meter(tune.Callback):  # type: ignore[misc]
    """Tells Prometheus how trials stand, what proposers were asked, and what restart stages adopted."""

    def __init__(self, plans: Sequence[TrialPlan], metrics: TrialMetrics) -> None:
        self._plans = plans
        self._metrics = metrics
        self._usd: dict[str, float] = {}
        self._next_eval = 0.0

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks into the experiment; a resumed run has new ones."""
        return {}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        plan, progress = self._plans[trial.config["trial"]], result["progress"]
        for row in result["rows"]:
            if row["type"] == "exchange":
                self._metrics.proposer_call(not row["problem"], row["usd"])
            elif row["type"] == "restart":
                self._metrics.restart(row["adopted"])
            if "spent" in row:
                self._usd[plan.trial_id] = row["spent"]["usd"]
        if math.isfinite(progress["dev_loss"]):  # a prompt was selected
            self._metrics.best(plan.trial_id, progress["dev_loss"], progress["dev_metric"])
        used = budget_used(plan.experiment.budget, progress, self._usd.get(plan.trial_id, 0.0))
        self._metrics.budget_used(plan.trial_id, used)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if time.monotonic() >= self._next_eval:
            self._next_eval = time.monotonic() + POLL_SECONDS
            self._validate(trials)

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        self._validate(trials)

    def _validate(self, trials: list[Any]) -> None:
        counts = Tally(str(trial.status).lower() for trial in trials)
        counts["pending"] += len(self._plans) - len(trials)  # Tune has yet to make them
        self._metrics.update(counts)


# ---------------------------------------------------------------------------------------------------- loggers
@dataclass(frozen=True, eq=False, slots=True)
class LoggedTrial:
    """A trial as Ray's loggers look at one: named as in the ledger, its drawn settings in the place of Tune's config.

    ``trial_id`` is the trial's alone among all runs, and the same after ``--resume``.
    """

    trial_id: str
    name: str
    config: dict[str, Scalar]
    local_path: str
    experiment_dir_name: str
    checkpoint: None = None

    @property
    def evaluated_params(self) -> dict[str, Scalar]:
        """Settings for TensorBoard's table."""
        return self.config

    def init_local_path(self) -> None:
        """Make the directory for files."""
        Path(self.local_path).mkdir(parents=True, exist_ok=True)

    def __str__(self) -> str:
        return self.name


@dataclass(slots=True)
class _Outbox:
    """Executes calls one after the other in a thread. Callers neither wait nor fail."""

    name: str
    most: int
    failed: bool = False  # the call that was carried out last
    lost: int = 0  # calls that failed, or found no room
    problems: "queue.SimpleQueue[str]" = field(default_factory=queue.SimpleQueue)
    _calls: "queue.Queue[Callable[[], None] | None]" = field(init=False)
    _thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self._calls = queue.Queue(self.most)
        self._thread = threading.Thread(target=self._work, name=self.name, daemon=True)
        self._thread.start()

    def put(self, call: Callable[[], None]) -> None:
        """Have a call carried out, if there is room for it."""
        try:
            self._calls.put_nowait(call)
        except queue.Full:
            self.lost += 1

    def close(self, seconds: float) -> bool:
        """Let the thread end with what it has; wait so long. Returns False where it has not ended by then."""
        until = time.monotonic() + seconds
        try:
            self._calls.put(None, timeout=seconds)
        except queue.Full:
            return False
        self._thread.join(max(0.0, until - time.monotonic()))
        return not self._thread.is_alive()

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                call()
            except BaseException as error:  # whatever a library does, it is no concern of the run's
                if not self.failed:
                    self.problems.put(_told(error))
                self.failed, self.lost = True, self.lost + 1
            else:
                self.failed = False


def _told(error: BaseException) -> str:
    """Return a failure on one line, without a user or password that a URL in it may hold."""
    text = re.sub(r"://[^/\s@]+@", "://", str(error))
    return formatting.one_line(f"{type(error).__name__}: {text}", SHOWN)


class TrialLogger(tune.Callback):  # type: ignore[misc]
    """Hands trials to one of Ray's logger callbacks. ``make`` builds it, in the thread that will use it.

    say: takes (trial_id, kind, message) for the ledger and the console, in Tune's thread.
    """

    def __init__(
        self, kind: str, make: Callable[[], Any], trials: Sequence[LoggedTrial], say: Say, most: int = MOST_WAITING
    ) -> None:
        self._kind = kind
        self._make = make
        self._trials = trials
        self._say = say
        self._outbox = _Outbox(f"{kind} logger", most)
        self._running: set[LoggedTrial] = set()
        self._complained = False
        self._logger: Any = None  # from here on, of the outbox's thread alone
        self._begun: dict[LoggedTrial, bool] = {}  # trials that were started, and whether they have ended

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks into the experiment; a resumed run has new ones."""
        return {}

    # ------------------------------------------------------------------------------------------------ Tune's calls
    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        logged = self._trials[trial.config["trial"]]
        self._running.add(logged)
        self._outbox.put(partial(self._start, logged))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        logged = self._trials[trial.config["trial"]]
        self._outbox.put(partial(self._log, iteration, logged, flat(result)))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._ended(trial, failed=False)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._ended(trial, failed=True)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._tell()

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """Wait a while for what is on its way; what is not sent by then is given up."""
        self._outbox.put(self._close)
        hurry = self._outbox.failed or self._running  # of a run that is interrupted, some are
        ended = self._outbox.close(HURRY_SECONDS if hurry else PATIENCE_SECONDS)
        self._tell()
        if self._outbox.lost or not ended:
            some = f"{self._outbox.lost} reports are missing there" if self._outbox.lost else "not all was sent in time"
            self._say(None, "logger", f"{self._kind}: {some}; the ledger has everything")

    # ------------------------------------------------------------------------------------------------ in the thread
    def _start(self, trial: LoggedTrial) -> None:
        """Begin with a trial; one that was paused, or begins again after a failure, has been begun with."""
        if self._logger is None:
            logger = self._make()
            logger.setup()
            self._logger = logger
        if trial not in self._begun:
            trial.init_local_path()
            self._logger.log_trial_start(trial)
        self._begun[trial] = False

    def _log(self, iteration: int, trial: LoggedTrial, numbers: dict[str, float]) -> None:
        if trial not in self._begun:  # what failed before may do now
            self._start(trial)
        self._logger.log_trial_result(iteration, trial, numbers)

    def _end(self, trial: LoggedTrial, failed: bool) -> None:
        if self._begun.get(trial) is False:
            self._begun[trial] = True
            self._logger.log_trial_end(trial, failed=failed)

    def _close(self) -> None:
        """End what is left: trials that were interrupted count as failed until a resumed run goes on with them."""
        for trial in [trial for trial, ended in self._begun.items() if not ended]:
            self._end(trial, True)
        if self._logger is not None:
            self._logger.on_experiment_end(trials=[])

    # ------------------------------------------------------------------------------------------------ small things
    def _ended(self, trial: Any, failed: bool) -> None:
        logged = self._trials[trial.config["trial"]]
        self._running.discard(logged)
        self._outbox.put(partial(self._end, logged, failed))

    def _tell(self) -> None:
        """Say what went wrong, once; the thread itself must not write into the ledger."""
        while not self._outbox.problems.empty():
            problem = self._outbox.problems.get()
            if not self._complained:
                self._complained = True
                self._say(None, "logger", f"{self._kind} accepts no reports ({problem}); the run continues without it")


# ---------------------------------------------------------------------------------------------------- from settings
def build_loggers(
    configs: Sequence[LoggerConfig], plans: Sequence[TrialPlan], directory: Path, began: float, resume: bool, say: Say
) -> list[TrialLogger]:
    """Return the callbacks of a run's loggers.

    began: unix seconds, those of the run's first row whether it is resumed or not; names its trials among those of
    other runs.
    """
    return [_build(config, plans, directory, began, resume, say) for config in configs]


def _build(
    config: LoggerConfig, plans: Sequence[TrialPlan], directory: Path, began: float, resume: bool, say: Say
) -> TrialLogger:
    name = plans[0].experiment.name
    run = f"{name}-{began * 1000:.0f}"
    trials = [
        LoggedTrial(
            trial_id=f"{run}-{plan.trial_id}",
            name=plan.trial_id,
            config=parameters(plan),
            local_path=str((directory / config.kind / plan.trial_id).resolve()),
            experiment_dir_name=run,
        )
        for plan in plans
    ]
    match config:
        case TensorboardLoggerConfig():
            make: Callable[[], Any] = _tensorboard
        case MlflowLoggerConfig():
            make = partial(_mlflow, config.tracking_uri, config.experiment or name, run, resume)
        case WandbLoggerConfig():
            make = partial(_wandb, config.project or name, config.entity)
    return TrialLogger(config.kind, make, trials, say)


def _tensorboard() -> Any:
    from ray.tune.logger import TBXLoggerCallback

    return TBXLoggerCallback()


def _mlflow(tracking_uri: str | None, experiment: str, run: str, resume: bool) -> Any:
    """Return Ray's callback, which begins an MLflow run for every trial; ``resume``: goes on with that of before."""
    mlflow: Any = import_module("mlflow")
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    class ResumedMlflow(MLflowLoggerCallback):  # type: ignore[misc]
        def log_trial_start(self, trial: LoggedTrial) -> None:
            if resume and trial not in self._trial_runs:
                client = mlflow.MlflowClient(tracking_uri)
                mine = f"tags.prompt_tuner_run = '{run}' and tags.trial_name = '{trial}'"
                for found in client.search_runs([self.mlflow_util.experiment_id], mine, max_results=1):
                    client.update_run(found.info.run_id, status="RUNNING")
                    self._trial_runs[trial] = found.info.run_id
            super().log_trial_start(trial)

    return ResumedMlflow(tracking_uri, experiment_name=experiment, tags={"prompt_tuner_run": run})


def _wandb(project: str, entity: str | None) -> Any:
    """Return Ray's callback, whose processes on this node upload. Those of a cluster that was joined know nothing of
    this process's environment, so the mode travels with the settings."""
    from ray.air.integrations.wandb import WandbLoggerCallback

    more: dict[str, Any] = {"resume": "allow"}
    if entity is not None:
        more["entity"] = entity
    if os.environ.get("WANDB_MODE"):
        more["mode"] = os.environ["WANDB_MODE"]
    if os.environ.get("WANDB_BASE_URL"):
        more["settings"] = {"base_url": os.environ["WANDB_BASE_URL"]}
    # It gives up later than the run does, which says so.
    return WandbLoggerCallback(project, upload_timeout=int(2 * PATIENCE_SECONDS), **more)
