"""Ray Tune's side of a run: one trial for each plan that has not ended."""

from collections.abc import Callable
from typing import Any, TypeAlias

from actors.cluster import head_for_trials
from actors.metrics import TrialMetrics, run_of
from actors.monitoring.ledger_callback import TuneRecorder
from actors.monitoring.loggers import Meter, build_loggers
from actors.pool.pool import Pool
from actors.proposer import Proposers
from actors.ray_internals.tune_controller import survive_resets
from actors.ray_internals.tune_import import tune
from actors.shutdown import Poll, Stop
from actors.trials.resume_state import TUNE_NAME, Past
from actors.trials.stoppable import Stoppable, StoppableAsha, StoppablePopulation
from actors.trials.trainable import TuneTrial
from distributed_tuner.config.experiment import Experiment
from distributed_tuner.config.schedule import AshaScheduleConfig, PopulationScheduleConfig
from distributed_tuner.config.stage import RestartStageConfig
from distributed_tuner.ledger.reader import read_rows
from distributed_tuner.preflight.prepared import Prepared
from distributed_tuner.runs.directory import RunDirectory
from distributed_tuner.schedule.history import scored_before

CHECKPOINT_EVERY = 1  # report: a step, or as many as fit into REPORT_SECONDS
CHECKPOINTS_KEPT = 3  # of each trial: a machine that dies may leave the last one torn
TRIAL_FAILURES = 3
LAST_RUNG = 10**9  # queries that no trial reaches; a raced one may ask more than was projected
Say: TypeAlias = Callable[[str | None, str, str], None]
"""Takes a trial's name (None: the pool's), the kind of an event, and a message."""

TRIAL_CPUS = 0.01  # a trial waits for the pool nearly all the time


def build_tuner(
    prepared: Prepared,
    directory: RunDirectory,
    pool: Pool,
    proposers: Proposers,
    recorder: TuneRecorder,
    say: Say,
    stop: Stop,
    past: Past,
    resume: bool,
    began: float,
) -> Any:
    """Return the tuner of the trials that have not ended. Those of a resumed run find their checkpoints by themselves,
    since their folders have their names. ``say``: writes an event down; ``began``: when the run did, in unix
    seconds."""
    survive_resets()
    scheduler = build_scheduler(prepared, directory, say, past)
    scheduler.obey(recorder)
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
    names = [plan.trial_id for plan in prepared.plans]
    going = [index for index, name in enumerate(names) if name not in past.ended]

    def name_of(trial: Any) -> str:
        index: int = trial.config["trial"]
        return names[index]

    return tune.Tuner(
        trainable,
        param_space={"trial": tune.grid_search(going)},
        tune_config=tune.TuneConfig(
            max_concurrent_trials=_most_at_a_time(prepared.experiment),
            scheduler=scheduler,
            reuse_actors=True,  # a process that has ended one trial runs the next: starting one takes seconds
            trial_name_creator=name_of,
            trial_dirname_creator=name_of,
        ),
        run_config=tune.RunConfig(
            name=TUNE_NAME,
            storage_path=directory.tune_storage(),
            callbacks=[recorder, *_told_beside(prepared, directory, pool, say, resume, began), Poll(stop)],
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=TRIAL_FAILURES),
            checkpoint_config=tune.CheckpointConfig(
                checkpoint_frequency=CHECKPOINT_EVERY, checkpoint_at_end=True, num_to_keep=CHECKPOINTS_KEPT
            ),
        ),
    )


def _told_beside(
    prepared: Prepared, directory: RunDirectory, pool: Pool, say: Say, resume: bool, began: float
) -> list[tune.Callback]:
    """Return the callbacks that tell others than the ledger how the trials stand."""
    meter = Meter(prepared.plans, TrialMetrics(run_of(pool.dispatcher_name)))
    loggers = prepared.experiment.loggers
    if not loggers:
        return [meter]
    return [meter, *build_loggers(loggers, prepared.plans, directory.path, began, resume, say)]


def build_scheduler(prepared: Prepared, directory: RunDirectory, say: Say, past: Past) -> Stoppable:
    """Return Tune's scheduler for the run's schedule; a population's gets the history of the run."""
    schedule = prepared.experiment.schedule
    plans = prepared.plans
    if isinstance(schedule, PopulationScheduleConfig):
        restarts = [
            stage for plan in plans for stage in plan.experiment.stages if isinstance(stage, RestartStageConfig)
        ]
        return StoppablePopulation(
            schedule,
            [plan.trial_id for plan in plans],
            [i for i, stage in enumerate(plans[0].experiment.stage_schedule) if isinstance(stage, RestartStageConfig)],
            {plan.trial_id: {path: _number_at(plan.experiment, path) for path in schedule.explore} for plan in plans},
            key=(prepared.experiment.seed,),
            shown=max(stage.shown for stage in restarts),
            decisions=past.decisions,
            reports=past.reports,
            failed=[name for name, status in past.ended.items() if status == "failed"],
            stopped=[name for name, status in past.ended.items() if status == "stopped"],
            pool=scored_before(read_rows(directory.ledger)),
            say=say,
            keep=directory.keep_decisions,
        )
    if isinstance(schedule, AshaScheduleConfig):
        most = max(projection.search.queries for projection in prepared.projections)
        return StoppableAsha(
            time_attr="queries",
            metric="dev_loss",
            mode="min",
            grace_period=min(schedule.grace_queries, most),
            reduction_factor=schedule.reduction_factor,
            max_t=LAST_RUNG,  # a trial ends by its budget, never by its last rung
        )
    return Stoppable()


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
