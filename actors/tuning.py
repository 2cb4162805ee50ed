"""Ray Tune's side of a run: one trial for each plan, restored from its checkpoints when the run is resumed."""

import json
import logging
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

from actors.pool import Pool
from actors.proposer import Proposers
from actors.recorder import Recorder
from actors.scheduler import PopulationScheduler
from actors.trial import TuneTrial
from distributed_tuner.config.experiment import Experiment
from distributed_tuner.config.schedule import AshaScheduleConfig, PopulationScheduleConfig
from distributed_tuner.config.stage import RestartStageConfig
from distributed_tuner.ledger.reader import read
from distributed_tuner.preflight import Prepared
from distributed_tuner.run_directory import RunDirectory
from distributed_tuner.schedule.history import scored_before

log = logging.getLogger(__name__)

TUNE_NAME = "trials"
CHECKPOINT_EVERY = 3  # reports of some seconds each
CHECKPOINTS_KEPT = 20  # Tune's own snapshot may point to one that is this old
TRIAL_FAILURES = 3
LAST_RUNG = 10**9  # queries that no trial reaches; a raced one may ask more than was projected
TRIAL_CPUS = 0.01  # a trial waits for the pool nearly all the time


def build_tuner(
    prepared: Prepared, directory: RunDirectory, pool: Pool, proposers: Proposers, recorder: Recorder, resume: bool
) -> Any:
    """Return the tuner of a run; a resumed one goes on with the trials that have not ended."""
    trainable = tune.with_resources(
        tune.with_parameters(
            TuneTrial,
            dispatcher=pool.dispatcher,
            info=pool.oracle.info,
            plans=prepared.plans,
            tasks=prepared.tasks,
            proposers=proposers.remote,
        ),
        {"cpu": TRIAL_CPUS},
    )
    storage = directory.tune.resolve()
    scheduler = build_scheduler(prepared, directory, recorder, resume)
    if resume and _can_restore(storage / TUNE_NAME):
        tuner = tune.Tuner.restore(str(storage / TUNE_NAME), trainable=trainable, resume_unfinished=True)
        tuner._local_tuner._run_config.callbacks = [recorder]  # the pickled one holds the first run's ledger
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
            storage_path=str(storage),
            callbacks=[recorder],
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=TRIAL_FAILURES),
            checkpoint_config=tune.CheckpointConfig(
                checkpoint_frequency=CHECKPOINT_EVERY, checkpoint_at_end=True, num_to_keep=CHECKPOINTS_KEPT
            ),
        ),
    )


def _can_restore(experiment: Path) -> bool:
    """Tell whether Tune can go on from its snapshot. One that a crash cut off is set aside: the trials begin anew, and
    make the same rows again, of which the ledger's reader keeps one."""
    snapshots = sorted(experiment.glob("experiment_state-*.json"), key=lambda path: path.stat().st_mtime)
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
