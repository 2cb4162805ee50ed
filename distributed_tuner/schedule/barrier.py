"""The barrier of a population in "sync" mode: who meets at a sync point, for whom they wait, and how long."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from distributed_tuner.schedule.population import Standing


@dataclass(frozen=True, slots=True)
class Barrier:
    """The lowest sync point at which trials wait.

    there: who waits. late: who has not reached it. since: the first arrival, in seconds.
    """

    sync_point: int
    there: tuple[str, ...]
    late: tuple[str, ...]
    since: float

    def opens(self, now: float, patience: float) -> bool:
        """Tell whether those that are there decide now: all have come, or they have waited for ``patience`` seconds."""
        return not self.late or now - self.since >= patience


def lowest_barrier(standings: Iterable[Standing], waiting: Mapping[str, float]) -> Barrier | None:
    """Return the barrier at which trials wait, None where none does.

    standings: of every trial that has not failed, also of those that have yet to begin. waiting: since when, by trial.
    A trial that has ended, or gone on from that sync point already, is not waited for.
    """
    live = sorted((one for one in standings if not one.ended), key=lambda one: one.trial_id)
    held = [one for one in live if one.trial_id in waiting]
    if not held:
        return None
    sync_point = min(one.sync_point for one in held)
    there = tuple(one.trial_id for one in held if one.sync_point == sync_point)
    late = tuple(one.trial_id for one in live if one.sync_point < sync_point)
    return Barrier(sync_point, there, late, min(waiting[trial_id] for trial_id in there))
