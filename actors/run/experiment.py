"""A run on Ray: its pool and its trials under Tune."""

import itertools
import os
import time
from collections.abc import Mapping

from ray.exceptions import RayError

from actors.cluster import cluster, quiet_tune, room, shortage
from actors.monitoring.ledger_callback import TuneRecorder
from actors.pool.pool import Pool
from actors.proposer import Proposers
from actors.shutdown import Stop
from actors.trials.resume_state import Past
from actors.trials.tuner import build_tuner
from distributed_tuner.config.oracle import OracleConfig
from distributed_tuner.ledger.follower import Follower
from distributed_tuner.ledger.writer import LedgerWriter
from distributed_tuner.preflight.prepared import Prepared
from distributed_tuner.runs.directory import RunDirectory
from distributed_tuner.runs.observer import Observer
from distributed_tuner.runs.pool import OraclePool
from distributed_tuner.runs.progress import Progress
from distributed_tuner.runs.recorder import Recorder
from distributed_tuner.runs.run import Finished, Run

__all__ = ["Finished", "run"]


def run(
    prepared: Prepared,
    directory: RunDirectory,
    *,
    address: str | None,
    resume: bool,
    command: str,
    observer: Observer | None = None,
) -> Finished:
    """Run every trial and write the whole run directory. ``observer``: the listener; a terminal's progress when left
    out.

    Raises:
        RunDirectoryError: the directory is used already (without ``resume``), or holds no run (with it).
        ModelError: the model cannot be loaded, it computes too coarsely for the steps of a method, or its answers do
            not agree with each other.
        StorageError: the disk took no more; what is on it is whole, and the run can be resumed.
    """
    if not resume:
        directory.create()
    stop = Stop()
    if directory.mirror is not None:
        directory.mirror.on_lost = stop.ask
    with LedgerWriter(directory.ledger, new=not resume, on_trouble=lambda error: stop.ask()) as writer:
        past = Past.of(directory, prepared.plans) if resume else None
        told = observer or Progress(prepared.plans, prepared.tasks[0].metric)
        with cluster(prepared.experiment.oracle, address, told.note), stop.listening():
            prepared = prepared.sized(*room(prepared.experiment.oracle))
            backend = RayBackend(prepared.experiment.name, directory, writer, told, stop, past)
            return Run(prepared, directory, backend, writer, told, command=command, resume=resume).go()


class RayBackend:
    """A pool of oracle actors, and trials under Ray Tune. past: of a resumed run."""

    lost: tuple[type[Exception], ...] = (RayError,)

    def __init__(
        self,
        name: str,
        directory: RunDirectory,
        writer: LedgerWriter,
        observer: Observer,
        stop: Stop,
        past: Past | None,
    ) -> None:
        self._name = f"{name}-{os.getpid()}-{time.time_ns()}"
        self._pools = (f"{self._name}/{number}" for number in itertools.count())
        self._directory = directory
        self._writer = writer
        self._observer = observer
        self._stop = stop
        self._resume = past is not None
        self._past = past or Past()

    @property
    def ended(self) -> Mapping[str, str]:
        return self._past.ended

    def notes(self, oracle: OracleConfig) -> list[str]:
        note = shortage(oracle)
        return [note] if note else []

    def start(self, oracle: OracleConfig) -> Pool:
        return Pool.start(oracle, next(self._pools))

    def run_trials(self, prepared: Prepared, pool: OraclePool, recorder: Recorder, ledger: Follower) -> None:
        assert isinstance(pool, Pool)
        plans, past = prepared.plans, self._past
        past.write_down(self._directory, self._writer)
        proposers = Proposers.start([plan.experiment for plan in plans], self._name, prepared.root, pool)
        try:
            if len(past.ended) < len(plans):
                began = ledger.catch_up().sessions[0].first
                told = TuneRecorder(plans, recorder)
                tuner = build_tuner(
                    prepared,
                    self._directory,
                    pool,
                    proposers,
                    told,
                    recorder.event,
                    self._stop,
                    past,
                    self._resume,
                    began,
                )
                with self._observer, quiet_tune(), self._stop.polled():
                    tuner.fit()
        finally:
            proposers.stop()

    def interrupt(self) -> None:
        self._stop.ask()

    def over(self) -> None:
        self._stop.over()
