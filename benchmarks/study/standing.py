"""Results of a study: means over splits with intervals, and comparisons of methods.

Tasks are what they are; what is drawn anew is the split, and with it the search's own randomness. So intervals are of
means over these tasks, and their spread is that of the splits within each task, taken together over tasks (Student's t
with one degree of freedom for every split of a task but its first). Test rows are the same for all splits and methods:
their own sampling error is in no interval, and no difference of two methods needs it.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd

LEVEL = 0.05


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean with its interval of 95 %, which is None where no task has two splits."""

    mean: float
    low: float | None
    high: float | None

    @property
    def spelled(self) -> str:
        """The mean, and how far the interval goes on either side."""
        return f"{self.mean:.3f}" if self.high is None else f"{self.mean:.3f} ± {self.high - self.mean:.3f}"


def mean_of(values: "pd.Series[float]", tasks: "pd.Series[str]") -> Mean:
    """Return the mean over tasks of their means over splits. ``tasks``: of which task each value is."""
    from scipy.stats import t

    mean, error, degrees = _error(values.to_numpy(np.float64), tasks.to_numpy())
    if degrees == 0:
        return Mean(mean, None, None)
    half = float(t.ppf(1 - LEVEL / 2, degrees)) * error
    return Mean(mean, mean - half, mean + half)


def p_value(values: "pd.Series[float]", tasks: "pd.Series[str]") -> float:
    """Return the two-sided p-value that the mean of ``mean_of`` is zero; NaN where no task has two splits."""
    from scipy.stats import t

    mean, error, degrees = _error(values.to_numpy(np.float64), tasks.to_numpy())
    if degrees == 0:
        return float("nan")
    if error == 0:
        return 1.0 if mean == 0 else 0.0
    return float(2 * t.sf(abs(mean) / error, degrees))


def _error(values: npt.NDArray[Any], tasks: npt.NDArray[Any]) -> tuple[float, float, int]:
    """Return the mean over tasks, its standard error from the spread within tasks, and its degrees of freedom."""
    groups = [values[tasks == task] for task in np.unique(tasks)]
    mean = float(np.mean([group.mean() for group in groups]))
    degrees = sum(len(group) - 1 for group in groups)
    if degrees == 0:
        return mean, float("nan"), 0
    within = sum(float(((group - group.mean()) ** 2).sum()) for group in groups) / degrees
    return mean, float(np.sqrt(within * sum(1 / len(group) for group in groups)) / len(groups)), degrees


@dataclass(frozen=True, slots=True)
class Ranking:
    """How methods stand at one budget, best first.

    ranks: mean rank over the draws that all methods have, 1 is best, equals share. alike: runs of neighbours (first,
    last place) of which no two are told apart: two-sided paired tests of their differences, Holm's correction at 5 %.
    friedman: p-value of Friedman's test over tasks that all are alike; critical_difference: Nemenyi's of mean ranks
    over tasks. Both None with fewer than three methods or two tasks.
    """

    methods: tuple[str, ...]
    ranks: tuple[float, ...]
    alike: tuple[tuple[int, int], ...]
    draws: int
    tasks: int
    friedman: float | None
    critical_difference: float | None


def ranking(frame: "pd.DataFrame", value: str) -> Ranking | None:
    """Rank the methods of a frame with one row a method, task and split; None with fewer than two methods."""
    wide = frame.pivot(index=["task", "split"], columns="method", values=value).dropna()
    if wide.shape[1] < 2 or not len(wide):
        return None
    ranks = wide.rank(axis=1, ascending=False).mean().sort_values(kind="stable")
    methods = [str(name) for name in ranks.index]
    tasks = wide.index.to_frame(index=False)["task"]
    apart = _told_apart(wide, methods, tasks)
    by_task = wide.groupby(level="task").mean()
    return Ranking(
        tuple(methods),
        tuple(float(rank) for rank in ranks),
        tuple(_alike(len(methods), {(methods.index(a), methods.index(b)) for a, b in apart})),
        len(wide),
        len(by_task),
        *_friedman(by_task),
    )


def _told_apart(wide: "pd.DataFrame", methods: Sequence[str], tasks: "pd.Series[str]") -> list[tuple[str, str]]:
    """Return the pairs that differ, by Holm's step-down of their p-values."""
    pairs = {(a, b): p_value(wide[a] - wide[b], tasks) for a, b in itertools.combinations(methods, 2)}
    apart: list[tuple[str, str]] = []
    for place, (pair, p) in enumerate(sorted(pairs.items(), key=lambda item: item[1])):
        if not p <= LEVEL / (len(pairs) - place):
            break
        apart.append(pair)
    return apart


def _alike(count: int, apart: set[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the longest runs of two places or more without a pair that is told apart."""
    runs: list[tuple[int, int]] = []
    for first in range(count):
        last = first
        while last + 1 < count and not any((other, last + 1) in apart for other in range(first, last + 1)):
            last += 1
        if last > first and not (runs and runs[-1][1] >= last):
            runs.append((first, last))
    return runs


def _friedman(by_task: "pd.DataFrame") -> tuple[float | None, float | None]:
    """Return Friedman's p-value and Nemenyi's critical difference at 5 % (Demsar 2006, section 3.2.2)."""
    from scipy.stats import friedmanchisquare, studentized_range

    tasks, methods = by_task.shape
    if tasks < 2 or methods < 3:
        return None, None
    p = float(friedmanchisquare(*(by_task[name] for name in by_task)).pvalue)
    quantile = float(studentized_range.ppf(1 - LEVEL, methods, np.inf)) / 2**0.5
    return p, quantile * (methods * (methods + 1) / (6 * tasks)) ** 0.5
