"""The numbers behind the report's figures, one function a figure. Drawing them is left to `figures`."""

import bisect
import itertools
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar

from distributed_tuner.ledger.reader import Ledger
from distributed_tuner.ledger.rows import LookRow, RestartRow, StepRow
from distributed_tuner.report import words
from distributed_tuner.report.curves import Band, Series, band, running_best
from distributed_tuner.report.verdict import reference

By: TypeAlias = Literal["queries", "seconds"]
T = TypeVar("T", LookRow, StepRow)

_GROUPS = 50
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


def train_loss_data(ledger: Ledger, summary: Mapping[str, Any], by: By) -> Curves:
    """Gather the train loss of the recommended prompt (never of perturbed candidates) for each method."""
    bands = _bands(ledger.looks, summary, by, lambda look: look.train_loss)
    return Curves(_X_TITLES[by], "train loss (nats)", bands, None, _marks(ledger, summary, by, bands))


def dev_metric_data(ledger: Ledger, summary: Mapping[str, Any], by: By) -> Curves:
    """Gather the best dev metric so far of each method, and the manual prompt's."""
    metric = words.MetricWords(summary["best"]["metric"])
    bands = _bands(ledger.looks, summary, by, lambda look: _scaled(metric, look.dev_metric), best_so_far=True)
    manual = _scaled(metric, reference(summary)[1]["dev_metric"])
    marks = _marks(ledger, summary, by, bands)
    return Curves(_X_TITLES[by], f"best dev {metric.axis} so far", bands, manual, marks)


def candidate_loss_data(ledger: Ledger, summary: Mapping[str, Any]) -> Curves:
    """Gather the mean loss of the candidates each step asked for, averaged over neighbouring steps of a trial."""
    bands = _bands(ledger.steps, summary, "queries", lambda step: step.loss, groups=_GROUPS)
    marks = _marks(ledger, summary, "queries", bands)
    return Curves(_X_TITLES["queries"], "mean candidate loss (nats)", bands, None, marks)


def test_cost_data(summary: Mapping[str, Any]) -> Dots:
    """Gather each trial's test metric and cost; dollars only where something was paid."""
    metric = words.MetricWords(summary["best"]["metric"])
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
    ledger: Ledger, summary: Mapping[str, Any], by: By, bands: Iterable[tuple[str, Band]]
) -> tuple[tuple[str, tuple[tuple[float, float], ...]], ...]:
    """Return where restarts adopted a prompt, on the lines of ``bands``; what lies beside a line is left out."""
    methods = {trial["trial_id"]: trial["method"] for trial in summary["trials"]}
    places: dict[str, set[float]] = {}
    for row in ledger.restarts:
        if row.adopted != "none" and row.trial_id in methods:
            places.setdefault(methods[row.trial_id], set()).add(_at(row, by))
    marks = []
    for method, one in bands:
        inside = sorted(x for x in places.get(method, ()) if one.x[0] <= x <= one.x[-1])
        if inside:
            marks.append((method, tuple((x, one.mean[bisect.bisect_right(one.x, x) - 1]) for x in inside)))
    return tuple(marks)


def _at(row: LookRow | StepRow | RestartRow, by: By) -> float:
    return row.elapsed if by == "seconds" else float(row.spent.queries)


def _bands(
    rows: Iterable[T],
    summary: Mapping[str, Any],
    by: By,
    value: Callable[[T], float | None],
    *,
    best_so_far: bool = False,
    groups: int | None = None,
) -> tuple[tuple[str, Band], ...]:
    """Return a band for each method, in the order of the summary; rows without a value are left out."""
    points: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        number = value(row)
        if number is not None:
            points.setdefault(row.trial_id, []).append((_at(row, by), number))
    found = []
    for method in methods_of(summary):
        series = [
            _series(
                _grouped(sorted(points.get(trial["trial_id"], [])), groups), trial["status"] != "failed", best_so_far
            )
            for trial in summary["trials"]
            if trial["method"] == method
        ]
        if (one := band(series)) is not None:
            found.append((method, one))
    return tuple(found)


def _series(points: Sequence[tuple[float, float]], keeps: bool, best_so_far: bool) -> Series:
    values = tuple(y for _, y in points)
    return Series(tuple(x for x, _ in points), running_best(values) if best_so_far else values, keeps)


def _grouped(points: Sequence[tuple[float, float]], groups: int | None) -> Sequence[tuple[float, float]]:
    """Average runs of neighbouring points, so that at most ``groups`` remain; each stands at its last x."""
    if groups is None or len(points) <= groups:
        return points
    cuts = [round(place * len(points) / groups) for place in range(groups + 1)]
    runs = [points[start:stop] for start, stop in itertools.pairwise(cuts)]
    return [(run[-1][0], statistics.fmean(y for _, y in run)) for run in runs]


def methods_of(summary: Mapping[str, Any]) -> list[str]:
    """Return the methods in the order that gives them their colours."""
    return [line["method"] for line in summary["methods"]]


def _scaled(metric: words.MetricWords, value: float | None) -> float | None:
    return None if value is None else metric.scale * value
