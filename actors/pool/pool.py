"""The pool of a run as the driver holds it: supervisor, oracle actors and dispatcher, started and stopped together."""

import logging
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from actors.cluster import head
from actors.pool.client import RemoteOracle
from actors.pool.dispatcher import DispatcherActor
from actors.pool.supervisor import SupervisorActor
from distributed_tuner.config.oracle import OracleConfig, Tile
from distributed_tuner.errors import TunerError
from distributed_tuner.runs.pool import Occupancy, Statistics

log = logging.getLogger(__name__)

CLOSE_SECONDS = 10.0  # for the supervisor to end the oracles; those that are left end with it
OCCUPANCY_SECONDS = 5.0  # for the dispatcher to say how it stands


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool that answers. ``oracle`` is what trials hold of it."""

    config: OracleConfig
    supervisor: Any
    dispatcher: Any
    dispatcher_name: str
    oracle: RemoteOracle

    @classmethod
    def start(cls, config: OracleConfig, name: str) -> "Pool":
        """Start a pool and wait until its first actor has loaded the model.

        Supervisor and dispatcher are kept on the head, which is no spot machine and, unlike the others, never idle.

        Raises:
            ModelError: the model cannot be loaded.
        """
        supervisor_name, dispatcher_name = f"{name}/supervisor", f"{name}/dispatcher"
        supervisor = SupervisorActor.options(name=supervisor_name, resources=head()).remote(config, name)
        supervisor.begin.remote(config.first_actors)  # they load while the dispatcher starts
        dispatcher = DispatcherActor.options(name=dispatcher_name, resources=head()).remote(config, supervisor_name)
        try:
            info = ray.get(dispatcher.start.remote())
        except BaseException as error:
            _end(supervisor, dispatcher)
            if isinstance(error, RayTaskError) and isinstance(error.cause, TunerError):
                raise error.cause from None
            raise
        return cls(config, supervisor, dispatcher, dispatcher_name, RemoteOracle(dispatcher, info))

    def free_bytes(self) -> int | None:
        """Return the free memory of the first actor's device; None where it does not tell."""
        free: int | None = ray.get(self.dispatcher.free_bytes.remote())
        return free

    def use_tile(self, tile: Tile) -> None:
        """Have requests cut by this size from here on."""
        ray.get(self.dispatcher.use_tile.remote(tile))

    def leave_cache(self) -> None:
        """Have everything computed anew from here on, and kept no more."""
        ray.get(self.dispatcher.leave_cache.remote())

    def statistics(self) -> Statistics:
        """Return what the pool has done; the events since the last call are handed over. Nothing if it is gone."""
        try:
            statistics: Statistics = ray.get(self.dispatcher.statistics.remote(), timeout=30)
        except RayError as error:
            log.warning("the dispatcher does not answer: %s", error)
            return Statistics()
        return statistics

    def occupancy(self) -> Occupancy | None:
        """Return how the pool stands at this moment; None if the dispatcher does not answer soon."""
        try:
            occupancy: Occupancy = ray.get(self.dispatcher.occupancy.remote(), timeout=OCCUPANCY_SECONDS)
        except RayError:
            return None
        return occupancy

    def stop(self) -> None:
        """End the actors."""
        _end(self.supervisor, self.dispatcher)


def _end(supervisor: Any, dispatcher: Any) -> None:
    """End the dispatcher first, which would ask for oracles again."""
    ray.kill(dispatcher)
    try:
        ray.get(supervisor.close.remote(), timeout=CLOSE_SECONDS)
    except RayError as error:
        log.warning("the oracles could not be ended one by one: %s", error)
    ray.kill(supervisor)
