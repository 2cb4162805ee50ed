"""The barrier of a population in "sync" mode: who meets at a boundary, for whom they wait, and how long."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from distributed_tuner.schedule.population import Standing


@dataclass(frozen=True, slots=True)
class Barrier:
    """The lowest boundary at which trials wait.

    there: who waits. late: who has not reached it. since: the first arrival, in seconds.
    """

    boundary: int
    there: tuple[str, ...]
    late: tuple[str, ...]
    since: float

    def opens(self, now: float, patience: float) -> bool:
        """Tell whether those that are there decide now: all have come, or they have waited for ``patience`` seconds."""
        return not self.late or now - self.since >= patience


def lowest_barrier(standings: Iterable[Standing], waiting: Mapping[str, float]) -> Barrier | None:
    """Return the barrier at which trials wait, None where none does.

    standings: of every trial that has not failed, also of those that have yet to begin. waiting: since when, by trial.
    A trial that has ended, or gone on from that boundary already, is not waited for.
    """
    live = sorted((one for one in standings if not one.ended), key=lambda one: one.trial_id)
    held = [one for one in live if one.trial_id in waiting]
    if not held:
        return None
    boundary = min(one.boundary for one in held)
    there = tuple(one.trial_id for one in held if one.boundary == boundary)
    late = tuple(one.trial_id for one in live if one.boundary < boundary)
    return Barrier(boundary, there, late, min(waiting[trial_id] for trial_id in there))
