"""The numbers behind the report's figures, one function a figure. Drawing them is left to `figures`."""

import bisect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from distributed_tuner.ledger.digest import Digest
from distributed_tuner.ledger.rows import RestartRow
from distributed_tuner.report import formatting
from distributed_tuner.report.curves import Band, Series, band, running_best
from distributed_tuner.report.significance import reference
from distributed_tuner.values import Array64

By: TypeAlias = Literal["queries", "seconds"]

_GROUPS = 50
_NO_POINTS: Array64 = np.zeros((0, 2))
_X_TITLES: Mapping[By, str] = {"queries": "queries per trial", "seconds": "wall-clock time per trial (s)"}


class Curves(NamedTuple):
    """Lines with bands against a common x, and the manual prompt's level where there is one.

    ``marks`` lie on a method's line, (x, y), where a restart of one of its trials adopted a prompt.
    """

    x_title: str
    y_title: str
    bands: tuple[tuple[str, Band], ...]
    manual: float | None
    marks: tuple[tuple[str, tuple[tuple[float, float], ...]], ...] = ()


class Dot(NamedTuple):
    """A trial: what it cost and what it reached (test metric, in the figure's unit)."""

    trial_id: str
    method: str
    cost: Mapping[str, float]
    metric: float


class Dots(NamedTuple):
    """Trials against cost. ``axes`` gives the title of each kind of cost that may be chosen, the first one shown."""

    axes: Mapping[str, str]
    y_title: str
    dots: tuple[Dot, ...]
    manual: float | None


def train_loss_data(digest: Digest, summary: Mapping[str, Any], by: By) -> Curves:
    """Gather the train loss of the recommended prompt (never of perturbed candidates) for each method."""
    bands = _bands(summary, lambda trial: _validator(digest, trial, by, "train_loss"))
    return Curves(_X_TITLES[by], "train loss (nats)", bands, None, _marks(digest, summary, by, bands))


def dev_metric_data(digest: Digest, summary: Mapping[str, Any], by: By) -> Curves:
    """Gather the best dev metric so far of each method, and the manual prompt's."""
    metric = formatting.MetricWords(summary["best"]["metric"])
    scale = np.array([1.0, metric.scale])
    bands = _bands(summary, lambda trial: scale * _validator(digest, trial, by, "dev_metric"), best_so_far=True)
    manual = _scaled(metric, reference(summary)[1]["dev_metric"])
    marks = _marks(digest, summary, by, bands)
    return Curves(_X_TITLES[by], f"best dev {metric.axis} so far", bands, manual, marks)


def candidate_loss_data(digest: Digest, summary: Mapping[str, Any]) -> Curves:
    """Gather the mean loss of the candidates each step asked for, averaged over neighbouring steps of a trial."""
    bands = _bands(summary, lambda trial: _candidates(digest, trial))
    marks = _marks(digest, summary, "queries", bands)
    return Curves(_X_TITLES["queries"], "mean candidate loss (nats)", bands, None, marks)


def test_cost_data(summary: Mapping[str, Any]) -> Dots:
    """Gather each trial's test metric and cost; dollars only where something was paid."""
    metric = formatting.MetricWords(summary["best"]["metric"])
    axes = {"queries": "queries per trial", "tokens": "tokens per trial"}
    if any(trial["usd"] > 0 for trial in summary["trials"]):
        axes["usd"] = "cost per trial (US dollars)"
    axes["wall_seconds"] = _X_TITLES["seconds"]
    dots = tuple(
        Dot(
            trial["trial_id"],
            trial["method"],
            {axis: trial[axis] for axis in axes},
            metric.scale * trial["test_metric"],
        )
        for trial in summary["trials"]
        if trial["test_metric"] is not None
    )
    manual = _scaled(metric, reference(summary)[1]["test_metric"])
    return Dots(axes, f"test {metric.axis}", dots, manual)


def _marks(
    digest: Digest, summary: Mapping[str, Any], by: By, bands: Iterable[tuple[str, Band]]
) -> tuple[tuple[str, tuple[tuple[float, float], ...]], ...]:
    """Return where restarts adopted a prompt, on the lines of ``bands``; points off a line are left out."""
    methods = {trial["trial_id"]: trial["method"] for trial in summary["trials"]}
    places: dict[str, set[float]] = {}
    for row in digest.restarts:
        if row.adopted != "none" and row.trial_id in methods:
            places.setdefault(methods[row.trial_id], set()).add(_at(row, by))
    marks = []
    for method, one in bands:
        inside = sorted(x for x in places.get(method, ()) if one.x[0] <= x <= one.x[-1])
        if inside:
            marks.append((method, tuple((x, one.mean[bisect.bisect_right(one.x, x) - 1]) for x in inside)))
    return tuple(marks)


def _at(row: RestartRow, by: By) -> float:
    return row.elapsed if by == "seconds" else float(row.spent.queries)


def _validator(digest: Digest, trial_id: str, by: By, name: str) -> Array64:
    """Return the evaluations of a trial as points, shape (looks, 2); those without a value are left out."""
    trial = digest.trials.get(trial_id)
    points = trial.evaluations.columns("queries" if by == "queries" else "elapsed", name) if trial else _NO_POINTS
    return points[~np.isnan(points[:, 1])]


def _candidates(digest: Digest, trial_id: str) -> Array64:
    """Return mean losses over neighbouring steps of a trial, at most ``_GROUPS`` of them, each at its last query."""
    trial = digest.trials.get(trial_id)
    if trial is None:
        return _NO_POINTS
    rows = _sorted(trial.steps.columns("queries", "loss", "losses"))
    rows = rows[rows[:, 2] > 0]
    cuts = np.unique(np.round(np.linspace(0, len(rows), min(len(rows), _GROUPS) + 1)).astype(int))
    if len(cuts) < 2:
        return _NO_POINTS
    sums = np.add.reduceat(rows, cuts[:-1])
    return np.column_stack([rows[cuts[1:] - 1, 0], sums[:, 1] / sums[:, 2]])


def _bands(
    summary: Mapping[str, Any], points_of: Callable[[str], Array64], *, best_so_far: bool = False
) -> tuple[tuple[str, Band], ...]:
    """Return a band for each method, in the order of the summary, from the points (x, y) of its trials."""
    found = []
    for method in methods_of(summary):
        series = [
            _series(points_of(trial["trial_id"]), trial["status"] != "failed", best_so_far)
            for trial in summary["trials"]
            if trial["method"] == method
        ]
        if (one := band(series)) is not None:
            found.append((method, one))
    return tuple(found)


def _series(points: Array64, keeps: bool, best_so_far: bool) -> Series:
    x, y = _sorted(points).T
    return Series(tuple(x.tolist()), running_best(y) if best_so_far else tuple(y.tolist()), keeps)


def _sorted(points: Array64) -> Array64:
    return points[np.lexsort((points[:, 1], points[:, 0]))]


def methods_of(summary: Mapping[str, Any]) -> list[str]:
    """Return the methods in the order that gives them their colours."""
    return [line["method"] for line in summary["methods"]]


def _scaled(metric: formatting.MetricWords, value: float | None) -> float | None:
    return None if value is None else metric.scale * value
