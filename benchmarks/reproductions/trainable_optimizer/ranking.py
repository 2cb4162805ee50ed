"""Rankings of optimizers after their runs, with paired comparisons over seeds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np

from benchmarks.reproductions.trainable_optimizer.methods import VARIANTS
from benchmarks.reproductions.trainable_optimizer.tuning import Contest
from distributed_tuner.values import Array64

LEVEL = 0.05

Outcome: TypeAlias = Literal["better", "worse", "tie"]
Cells: TypeAlias = Mapping[tuple[bool, bool], tuple[Array64, Array64]]


@dataclass(frozen=True, eq=False, slots=True)
class Standing:
    """How a contest ended.

    losses: final training losses by method, above the optimum where it is known, (S,), seeds in the same order. errors:
    mean squared errors of the late estimates, (S,). decaying: whether tuning had rates decay. ablation: losses and
    errors of the diagonal variant by (slope trained, rates decaying). edges: methods whose step size lies at an end of
    what was tried.
    """

    title: str
    losses: Mapping[str, Array64]
    errors: Mapping[str, Array64]
    decaying: bool = True
    ablation: Cells = field(default_factory=dict)
    edges: Sequence[str] = ()

    @property
    def variants(self) -> list[str]:
        """The trainable optimizers that took part."""
        return [name for name in VARIANTS if name in self.losses]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One method's final losses less another's. change: of the mean, relative to the other's. p: of a paired t-test,
    NaN where a run diverged."""

    difference: float
    change: float
    p: float
    outcome: Outcome


def standing(contest: Contest) -> Standing:
    """Return how a contest ended."""
    optimum = contest.about.optimum or 0.0
    return Standing(
        title=contest.about.title,
        losses={name: entry.runs.final - optimum for name, entry in contest.entries.items()},
        errors={name: entry.runs.late_errors for name, entry in contest.entries.items()},
        decaying=contest.plan.course.decaying,
        ablation={
            cell: (runs.final - optimum, runs.late_errors)
            for entry in contest.entries.values()
            for cell, runs in entry.ablation.items()
        },
        edges=[entry.method.label for entry in contest.entries.values() if entry.edge],
    )


def compare_pair(first: Array64, second: Array64, level: float = LEVEL) -> Comparison:
    """Compare two methods' losses on the same seeds, both (S,); lower is better.

    Where runs diverged, the method with fewer such runs is better, and none where both have as many.
    """
    from scipy.stats import ttest_rel

    lost = np.count_nonzero(~np.isfinite(first)) - np.count_nonzero(~np.isfinite(second))
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        outcome: Outcome = "tie" if lost == 0 else ("worse" if lost > 0 else "better")
        return Comparison(math.nan, math.nan, math.nan, outcome)
    difference = float(np.mean(first - second))
    change = difference / abs(float(second.mean())) if second.mean() else math.nan
    if np.ptp(first - second) == 0.0:
        p = 1.0 if difference == 0.0 else (0.0 if len(first) > 1 else math.nan)
    else:
        p = float(ttest_rel(first, second).pvalue)
    if not p < level:
        return Comparison(difference, change, p, "tie")
    return Comparison(difference, change, p, "better" if difference < 0 else "worse")


def comparisons(standing: Standing, rival: str) -> dict[str, Comparison]:
    """Compare every variant with a rival; the level is shared among them, since the best one will be looked at."""
    level = LEVEL / max(1, len(standing.variants))
    return {name: compare_pair(standing.losses[name], standing.losses[rival], level) for name in standing.variants}


def against(standing: Standing, rival: str) -> Outcome:
    """Return "better" where some variant is significantly better, "worse" where all that took part are worse."""
    outcomes = [comparison.outcome for comparison in comparisons(standing, rival).values()]
    if "better" in outcomes:
        return "better"
    return "worse" if outcomes and all(outcome == "worse" for outcome in outcomes) else "tie"
