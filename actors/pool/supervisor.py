"""The supervisor: owns the oracle actors and the dispatcher's memory, so that neither ends with the dispatcher's
process.

It does nothing else, and nothing that could fail. Ray ends the actors of an owner that is gone: the oracles end with
the supervisor, and the supervisor with the driver, so that a run that dies leaves no machine busy.
"""

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import ray

from actors.pool.worker import start_oracle
from actors.ray_internals.private import draining_nodes
from distributed_tuner.config.oracle import OracleConfig

log = logging.getLogger(__name__)


class Supervisor:
    """Starts and ends oracle actors. ``run``: what their names begin with."""

    def __init__(self, config: OracleConfig, run: str) -> None:
        self._config = config
        self._run = run
        self._count = 0  # started so far
        self._actors: dict[str, Any] = {}
        self._memory: object = None

    def __repr__(self) -> str:
        return "supervisor"

    def begin(self, count: int) -> tuple[dict[str, Any], object]:
        """Return the actors by their names, and what was remembered last; the first call starts ``count`` of them."""
        if self._count == 0:
            self.start(count)
        return dict(self._actors), self._memory

    def start(self, count: int, avoid: Sequence[str] = ()) -> dict[str, Any]:
        """Ask Ray for so many actors more and return them. ``avoid``: ids of machines where they must not be."""
        started: dict[str, Any] = {}
        while len(started) < count:
            name = f"oracle-{self._count}"
            self._count += 1
            try:
                started[name] = start_oracle(self._config, f"{self._run}/{name}", avoid)
            except ValueError:  # of an actor that ends with the supervisor before this one
                log.warning("the name %s is still taken", name)
        self._actors |= started
        return started

    def end(self, names: Iterable[str]) -> None:
        """End actors; those that are not known have ended."""
        for name in names:
            if (actor := self._actors.pop(name, None)) is not None:
                ray.kill(actor)

    def close(self) -> None:
        """End all actors."""
        self.end(list(self._actors))

    def remember(self, memory: object) -> None:
        """Keep what a dispatcher wants to know when it is started again."""
        self._memory = memory

    def drained(self) -> set[str]:
        """Return the ids of machines that are going away: drained by the autoscaler, or ahead of a spot's end."""
        return draining_nodes()


SupervisorActor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Supervisor)
