"""The pool of oracles that a run works with, as the run sees it: in this process, or on Ray."""

from collections import Counter as Tally
from dataclasses import dataclass, field
from typing import Protocol

from distributed_tuner.config.oracle import OracleConfig, Tile
from distributed_tuner.oracles.base import LossOracle


@dataclass(slots=True)
class Statistics:
    """Totals of the pool so far. ``busy_seconds``: device seconds of counted tiles. ``counts``: what their answers
    told beside (``Evaluation.counts``). ``tile``: the size in use, None where it is not known. ``up``: actors that
    answer now; ``most_up``: at any time."""

    tiles: int = 0
    retries: int = 0
    duplicates: int = 0
    restarts: int = 0
    busy_seconds: float = 0.0
    counts: Tally[str] = field(default_factory=Tally)
    events: list[tuple[str, str]] = field(default_factory=list)
    tile: Tile | None = None
    up: int = 0
    most_up: int = 0


@dataclass(frozen=True, slots=True)
class Occupancy:
    """The pool at one moment: workers that answer, those that compute, tiles that wait for a worker."""

    workers: int
    busy: int
    waiting: int


class OraclePool(Protocol):
    """Oracles that answer as one. ``config``: what they were started with; ``oracle``: what trials hold of them."""

    @property
    def config(self) -> OracleConfig: ...

    @property
    def oracle(self) -> LossOracle: ...

    def free_bytes(self) -> int | None:
        """Return the free memory of the first oracle's device; None where it does not tell."""
        ...

    def use_tile(self, tile: Tile) -> None:
        """Have requests cut by this size from here on."""
        ...

    def leave_cache(self) -> None:
        """Have everything computed anew from here on, and kept no more."""
        ...

    def statistics(self) -> Statistics:
        """Return what the pool has done; the events since the last call are handed over."""
        ...

    def occupancy(self) -> Occupancy | None:
        """Return how the pool stands at this moment; None where it does not tell. May be called by any thread."""
        ...

    def stop(self) -> None:
        """End the pool."""
        ...
