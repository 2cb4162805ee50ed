"""Ray Tune's side of a run: one trial for each plan, restored from its checkpoints when the run is resumed."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

from actors.cluster import head_for_trials
from actors.loggers import Meter, build_loggers
from actors.metrics import TrialMetrics, run_of
from actors.pool import Pool
from actors.proposer import Proposers
from actors.recorder import Recorder
from actors.scheduler import PopulationScheduler
from actors.stopping import Poll, Stop
from actors.trial import Saved, TuneTrial
from distributed_tuner.config.experiment import Experiment
from distributed_tuner.config.schedule import AshaScheduleConfig, PopulationScheduleConfig
from distributed_tuner.config.space import TrialPlan
from distributed_tuner.config.stage import RestartStageConfig
from distributed_tuner.ledger.reader import read
from distributed_tuner.ledger.recovery import lost
from distributed_tuner.ledger.rows import ROW, TrialEndRow
from distributed_tuner.ledger.writer import LedgerWriter
from distributed_tuner.preflight import Prepared
from distributed_tuner.run_directory import RunDirectory
from distributed_tuner.schedule.history import scored_before
from distributed_tuner.storage import Mirror, is_uri

log = logging.getLogger(__name__)

TUNE_NAME = "trials"
CHECKPOINT_EVERY = 1  # report: a step, or as many as fit into REPORT_SECONDS
CHECKPOINTS_KEPT = 20  # Tune's own snapshot may point to one that is this old
TRIAL_FAILURES = 3
LAST_RUNG = 10**9  # queries that no trial reaches; a raced one may ask more than was projected
TRIAL_CPUS = 0.01  # a trial waits for the pool nearly all the time


SNAPSHOT_SECONDS = 10.0  # for which one of Tune's snapshots waits until the ledger is at a URI


def build_tuner(
    prepared: Prepared,
    directory: RunDirectory,
    pool: Pool,
    proposers: Proposers,
    recorder: Recorder,
    writer: LedgerWriter,
    stop: Stop,
    resume: bool,
) -> Any:
    """Return the tuner of a run; a resumed one goes on with the trials that have not ended.

    What of a resumed run's ledger was lost with a machine, and is known from checkpoints, is written to it first.
    """
    trainable = tune.with_resources(
        tune.with_parameters(
            TuneTrial,
            dispatcher=pool.dispatcher,
            info=pool.oracle.info,
            plans=prepared.plans,
            tasks=prepared.tasks,
            proposers=proposers.remote,
        ),
        {"cpu": TRIAL_CPUS, **head_for_trials()},
    )
    experiment = directory.tune_storage(TUNE_NAME)
    tuner = None
    if resume and _can_restore(experiment):
        tuner = tune.Tuner.restore(experiment, trainable=trainable, resume_unfinished=True)
        restored = tuner._local_tuner._experiment_analysis
        recover(restored.trials if restored is not None else [], prepared.plans, directory, writer)
    scheduler = build_scheduler(prepared, directory, recorder, resume)
    callbacks = [recorder, *_told_beside(prepared, directory, pool, recorder, resume), Poll(stop)]
    if directory.mirror is not None:
        callbacks.append(LedgerFirst(directory.mirror))
    if tuner is not None:
        tuner._local_tuner._run_config.callbacks = callbacks  # the pickled ones hold the first run's ledger
        tuner._local_tuner._tune_config.scheduler = scheduler  # the pickled one knows nothing of what has been since
        return tuner
    return tune.Tuner(
        trainable,
        param_space={"trial": tune.grid_search(list(range(len(prepared.plans))))},
        tune_config=tune.TuneConfig(
            max_concurrent_trials=_most_at_a_time(prepared.experiment),
            scheduler=scheduler,
            reuse_actors=True,  # a process that has ended one trial runs the next: starting one takes seconds
        ),
        run_config=tune.RunConfig(
            name=TUNE_NAME,
            storage_path=directory.tune_storage(),
            callbacks=callbacks,
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=TRIAL_FAILURES),
            checkpoint_config=tune.CheckpointConfig(
                checkpoint_frequency=CHECKPOINT_EVERY, checkpoint_at_end=True, num_to_keep=CHECKPOINTS_KEPT
            ),
        ),
    )


def _told_beside(
    prepared: Prepared, directory: RunDirectory, pool: Pool, recorder: Recorder, resume: bool
) -> list[tune.Callback]:
    """Return the callbacks that tell others than the ledger how the trials stand."""
    meter = Meter(prepared.plans, TrialMetrics(run_of(pool.dispatcher_name)))
    loggers = prepared.experiment.loggers
    if not loggers:
        return [meter]
    began = read(directory.ledger).sessions[0].first
    return [meter, *build_loggers(loggers, prepared.plans, directory.path, began, resume, recorder.event)]


class LedgerFirst(tune.Callback):  # type: ignore[misc]
    """Has the rows sent to a run's URI before Tune's snapshot is: no snapshot there knows of a checkpoint whose rows
    are not there as well."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks into the experiment; a mirror has no place there."""
        return {}

    def get_state(self) -> None:
        """Tune asks for this when it has written a snapshot down, and sends it then."""
        self._mirror.catch_up(SNAPSHOT_SECONDS)


def recover(trials: Sequence[Any], plans: Sequence[TrialPlan], directory: RunDirectory, writer: LedgerWriter) -> None:
    """Write down what the checkpoints of restored trials know and the ledger does not.

    That is so when a machine was lost with the end of the ledger. A trial goes on behind its checkpoint, and one that
    has ended does not go on at all; neither makes these rows again.
    """
    ended = {row.trial_id for row in read(writer.path).trial_ends if row.status != "interrupted"}
    for trial in trials:
        plan = plans[trial.config["trial"]]
        saved = _saved(trial, plan)
        if saved is None:
            continue
        for row in lost(writer.path, [ROW.validate_python(raw) for report in saved.reports for raw in report]):
            writer.write(row)
        if trial.is_finished():
            if saved.prompt is not None:
                directory.keep_prompt(plan.trial_id, saved.prompt)
            if plan.trial_id not in ended:
                writer.write(_end_of(plan.trial_id, trial))


def _end_of(trial_id: str, trial: Any) -> TrialEndRow:
    """Return the row of a trial that Tune knows to have ended."""
    result = trial.last_result or {}
    elapsed = result.get("progress", {}).get("elapsed", 0.0)
    if trial.status == trial.ERROR:
        return TrialEndRow(trial_id=trial_id, status="failed", reason="failed before", wall_seconds=elapsed)
    done = bool(result.get("reason"))
    return TrialEndRow(
        trial_id=trial_id,
        status="done" if done else "stopped",
        reason=result["reason"] if done else "stopped by the schedule",
        wall_seconds=elapsed,
    )


def _saved(trial: Any, plan: TrialPlan) -> Saved | None:
    """Return the checkpoint that a trial goes on from; None where it has none, or none that can be read: the trial
    itself will have to say so."""
    if isinstance(plan.experiment.schedule, PopulationScheduleConfig):
        known = trial.checkpoint
    elif trial.checkpoint is not None:
        known = Saved.newest(trial.checkpoint)
    else:
        known = Saved.newest_in(trial.storage) if trial.storage is not None else None
    return None if known is None else Saved.within(known)


def _can_restore(experiment: Path | str) -> bool:
    """Tell whether Tune can go on from its snapshot. One that a crash cut off is set aside: the trials begin anew, and
    make the same rows again, of which the ledger's reader keeps one. At a URI a snapshot is whole or not there."""
    if is_uri(str(experiment)):
        return bool(tune.Tuner.can_restore(experiment))
    snapshots = sorted(Path(experiment).glob("experiment_state-*.json"), key=lambda path: path.stat().st_mtime)
    if snapshots:
        try:
            json.loads(snapshots[-1].read_text(encoding="utf-8"))
        except ValueError:
            log.warning("Tune's snapshot %s was cut off by a crash; its trials begin anew", snapshots[-1])
            snapshots[-1].rename(snapshots[-1].with_suffix(".torn"))
            return False
    return bool(tune.Tuner.can_restore(str(experiment)))


def build_scheduler(prepared: Prepared, directory: RunDirectory, recorder: Recorder, resume: bool) -> Any:
    """Return Tune's scheduler for the run's schedule; a population's is told which texts were scored before."""
    schedule = prepared.experiment.schedule
    plans = prepared.plans
    if isinstance(schedule, PopulationScheduleConfig):
        restarts = [
            stage for plan in plans for stage in plan.experiment.stages if isinstance(stage, RestartStageConfig)
        ]
        return PopulationScheduler(
            schedule,
            [plan.trial_id for plan in plans],
            [i for i, stage in enumerate(plans[0].experiment.course) if isinstance(stage, RestartStageConfig)],
            {plan.trial_id: {path: _number_at(plan.experiment, path) for path in schedule.explore} for plan in plans},
            key=(prepared.experiment.seed,),
            shown=max(stage.shown for stage in restarts),
            pool=scored_before(read(directory.ledger)) if resume else [],
            say=recorder.event,
        )
    if isinstance(schedule, AshaScheduleConfig):
        most = max(projection.search.queries for projection in prepared.projections)
        return ASHAScheduler(
            time_attr="queries",
            metric="dev_loss",
            mode="min",
            grace_period=min(schedule.grace_queries, most),
            reduction_factor=schedule.reduction_factor,
            max_t=LAST_RUNG,  # a trial ends by its budget, never by its last rung
        )
    return FIFOScheduler()


def _most_at_a_time(experiment: Experiment) -> int | None:
    """Return how many trials Tune may have begun and not ended. Those of a population that meet must all have begun."""
    schedule = experiment.schedule
    meet = isinstance(schedule, PopulationScheduleConfig) and schedule.mode == "sync"
    return None if meet else experiment.max_concurrent_trials


def _number_at(experiment: Experiment, path: str) -> float:
    """Return the number at a dotted path, which was checked before."""
    place: Any = experiment.model_dump()
    for part in path.split("."):
        place = place[int(part)] if isinstance(place, list | tuple) else place[part]
    return float(place)
