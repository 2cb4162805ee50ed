"""The pool of a run as the driver holds it: oracle actors and their dispatcher, started and stopped together."""

import logging
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from actors.dispatcher import DispatcherActor, Statistics
from actors.oracle import start_oracles
from actors.remote import RemoteOracle
from distributed_tuner.config.oracle import OracleConfig, Tile
from distributed_tuner.errors import TunerError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool that answers. ``oracle`` is what trials hold of it."""

    config: OracleConfig
    actors: list[Any]
    dispatcher: Any
    dispatcher_name: str
    oracle: RemoteOracle

    @classmethod
    def start(cls, config: OracleConfig, name: str) -> "Pool":
        """Start a pool and wait until its first actor has loaded the model.

        Raises:
            ModelError: the model cannot be loaded.
        """
        actors = start_oracles(config, name)
        dispatcher_name = f"{name}/dispatcher"
        dispatcher = DispatcherActor.options(name=dispatcher_name).remote(config, actors)
        try:
            oracle = RemoteOracle(dispatcher, ray.get(dispatcher.start.remote()))
            return cls(config, actors, dispatcher, dispatcher_name, oracle)
        except RayTaskError as error:
            if isinstance(error.cause, TunerError):
                raise error.cause from None
            raise

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

    def stop(self) -> None:
        """End the actors."""
        for actor in (self.dispatcher, *self.actors):
            ray.kill(actor)
