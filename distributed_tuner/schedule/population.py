"""The rule of a population: which trials restart at a sync point, after whom they take, and with which settings.

Exploit and explore as in PBT (Jaderberg et al. 2017), but that a laggard restarts from words. Every draw is a function
of (key, trial, sync point), so that the same standings give the same decisions on every machine.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from distributed_tuner.config.schedule import Bounds
from distributed_tuner.seeds import Key, generator

FACTORS = (0.8, 1.25)


@dataclass(frozen=True, slots=True)
class Standing:
    """State of a trial at a decision. Failed trials have none.

    sync_point: restart stages that it has reached. loss: dev loss of its selected prompt; None, or not finite, where it
    has no prompt. settings: what it explores, by path. ended: it runs no more, but others may still take after it.
    """

    trial_id: str
    sync_point: int
    loss: float | None
    settings: dict[str, float] = field(default_factory=dict)
    ended: bool = False

    @property
    def has_loss(self) -> bool:
        """Tell whether the trial can be compared."""
        return self.loss is not None and math.isfinite(self.loss)


@dataclass(frozen=True, slots=True)
class Decision:
    """What a trial does at its sync point: it goes on with its own prompt, or restarts.

    source_trial: whom it takes after; None in a restart of its own, out of its own prompts and with its own settings.
    settings: the source trial's, explored.
    """

    go_on: bool
    source_trial: str | None = None
    settings: dict[str, float] = field(default_factory=dict)


def decide(
    trial_id: str, standings: Iterable[Standing], quantile: float, explore: Mapping[str, Bounds], key: Key
) -> Decision:
    """Return the decision for one trial of ``standings``, compared with what is known of the others now ("async")."""
    return _decisions([trial_id], list(standings), quantile, explore, key)[trial_id]


def decide_all(
    standings: Iterable[Standing], quantile: float, explore: Mapping[str, Bounds], key: Key
) -> dict[str, Decision]:
    """Return the decisions for all that have met at a sync point ("sync"): for every trial that has not ended."""
    there = list(standings)
    return _decisions([one.trial_id for one in there if not one.ended], there, quantile, explore, key)


def _decisions(
    deciding: Collection[str],
    standings: Sequence[Standing],
    quantile: float,
    explore: Mapping[str, Bounds],
    key: Key,
) -> dict[str, Decision]:
    by_id = {one.trial_id: one for one in standings}
    if len(by_id) == 1:  # a population of one alternates without a source trial
        return {trial_id: Decision(go_on=False) for trial_id in deciding}
    ranked = sorted((one for one in standings if one.has_loss or one.trial_id in deciding), key=_rank)
    count = moved(len(ranked), quantile) if sum(one.has_loss for one in ranked) > 1 else 0
    leaders, laggards = ranked[:count], {one.trial_id for one in ranked[len(ranked) - count :]}
    return {
        trial_id: _restart(by_id[trial_id], leaders, explore, key) if trial_id in laggards else Decision(go_on=True)
        for trial_id in deciding
    }


def moved(count: int, quantile: float) -> int:
    """Return how many of ``count`` ranked trials are laggards, and how many leaders: one at least, half at most."""
    return min(max(1, math.floor(count * quantile)), count // 2)


def _rank(one: Standing) -> tuple[float, str]:
    return (one.loss if one.loss is not None and math.isfinite(one.loss) else math.inf, one.trial_id)


def _restart(laggard: Standing, leaders: Sequence[Standing], explore: Mapping[str, Bounds], key: Key) -> Decision:
    """Draw a source trial and explore its settings; None if it is not better than the restarting trial."""
    better = [one for one in leaders if one.has_loss and _rank(one)[0] < _rank(laggard)[0]]
    if not better:
        return Decision(go_on=True)
    draw = generator((*key, "population", laggard.trial_id, laggard.sync_point))
    source = better[int(draw.integers(len(better)))]
    factors = {path: FACTORS[int(draw.integers(len(FACTORS)))] for path in sorted(explore)}
    settings = {
        path: min(max(source.settings[path] * factor, explore[path].low), explore[path].high)
        for path, factor in factors.items()
        if path in source.settings
    }
    return Decision(go_on=False, source_trial=source.trial_id, settings=settings)
