"""Several runs side by side: the same axes, the settings that differ, cost beside accuracy. Plain data."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from distributed_tuner.report import formatting
from distributed_tuner.values import Array64
from distributed_tuner.watch.cards import card
from distributed_tuner.watch.run_page import rounded
from distributed_tuner.watch.watched_run import Seen

MOST_RUNS = 8
"""Runs that are compared: more lines cannot be told apart."""
MOST_SETTINGS = 60
"""Settings that are listed."""
_POINTS = 240
_IGNORED = ("name",)  # settings that every run has of its own


def comparison(seen: Sequence[Seen], left_out: int = 0) -> dict[str, Any]:
    """Return the sections of the page that compares runs. left_out: how many more were asked for."""
    compared = [one for one in seen if one.story is not None]
    metric = formatting.MetricWords(compared[0].summary["best"]["metric"]) if compared else None
    return {
        "runs": [card(one) | _costs(one) for one in compared],
        "curves": {"plots": _curves(compared, metric) if metric else []},
        "costs": _dots(compared, metric) if metric else None,
        "settings": _differences(compared),
        "left_out": left_out,
    }


def _costs(seen: Seen) -> dict[str, Any]:
    totals = seen.summary["totals"]
    return {
        "forwards": formatting.short_count(totals["forwards"]),
        "tokens": formatting.short_count(totals["tokens"]),
        "busy": formatting.duration(totals["oracle_busy_seconds"]),
    }


def _curves(compared: Sequence[Seen], metric: formatting.MetricWords) -> list[dict[str, Any]]:
    """Return a line a run: the best dev metric so far of any of its trials, and the lowest train loss."""
    wanted = [
        ("dev", f"Highest dev {metric.name} so far", f"highest dev {metric.axis}", "dev_metric", metric.scale, np.fmax),
        ("loss", "Lowest train loss so far", "train loss (nats)", "train_loss", 1.0, np.fmin),
    ]
    plots = []
    for name, title, y_title, column, scale, better in wanted:
        lines = [_line(one, column, scale, better) for one in compared]
        plots.append(
            {
                "id": name,
                "title": title,
                "x_title": "queries of the run",
                "y_title": y_title,
                "lines": [line for line in lines if line["x"]],
                "marks": [],
                "level": None,
            }
        )
    return [plot for plot in plots if plot["lines"]]


def _line(seen: Seen, column: str, scale: float, better: Any) -> dict[str, Any]:
    points = _in_time(seen, column)
    best = better.accumulate(points[:, 1]) if len(points) else points[:, 1]
    changed = np.flatnonzero(np.diff(best, prepend=np.nan) != 0)  # a staircase needs its steps alone, and its end
    kept = np.unique([*changed.tolist(), *([len(best) - 1] if len(best) else [])])
    if len(kept) > _POINTS:
        kept = kept[np.unique(np.linspace(0, len(kept) - 1, _POINTS).round().astype(int))]
    x, y = points[kept.astype(int), 0], scale * best[kept.astype(int)]
    return {"name": seen.run or "run", "x": rounded(x), "y": rounded(y), "low": [], "high": []}


def _in_time(seen: Seen, column: str) -> Array64:
    """Return (queries of the whole run, value) of every evaluation, in the order of time."""
    assert seen.story is not None
    rows, steps = [np.zeros((0, 3))], [np.zeros((0, 2))]
    for trial in seen.story.trials.values():
        found = trial.evaluations.columns("time", "queries", column)
        rows.append(found)
        paid = np.concatenate([trial.steps.columns("time", "queries"), found[:, :2]])
        paid = paid[np.lexsort((paid[:, 1], paid[:, 0]))]
        steps.append(np.column_stack([paid[:, 0], np.diff(np.maximum.accumulate(paid[:, 1]), prepend=0.0)]))
    every, paid = np.concatenate(rows), np.concatenate(steps)
    every = every[~np.isnan(every[:, 2])]
    every = every[np.argsort(every[:, 0], kind="stable")]
    paid = paid[np.argsort(paid[:, 0], kind="stable")]
    total = np.append(0.0, np.cumsum(paid[:, 1]))
    return np.column_stack([total[np.searchsorted(paid[:, 0], every[:, 0], side="right")], every[:, 2]])


def _dots(compared: Sequence[Seen], metric: formatting.MetricWords) -> dict[str, Any] | None:
    """Return cost and accuracy of each run: on test where every run has been tested, else on dev."""
    bests = [one.listed.found for one in compared]
    tested = all(best.test_metric is not None for best in bests)
    scores = [best.test_metric if tested else best.dev_metric for best in bests]
    dots = [
        {
            "name": one.run or "run",
            "queries": one.summary["totals"]["queries"],
            "usd": one.summary["totals"]["usd"],
            "seconds": one.summary["totals"]["wall_seconds"],
            "metric": metric.scale * score,
        }
        for one, score in zip(compared, scores, strict=True)
        if score is not None
    ]
    return (
        {"y_title": f"{'test' if tested else 'dev'} {metric.axis} of the best prompt", "dots": dots} if dots else None
    )


def _differences(compared: Sequence[Seen]) -> dict[str, Any]:
    """Return the settings that are not the same in all runs, by path; a value that a run has not is None."""
    trees = [dict(_flat(one.config.settings.tree)) for one in compared]
    names = dict.fromkeys(name for tree in trees for name in tree)
    lines = [
        {"name": name, "values": [_shown(tree.get(name)) for tree in trees]}
        for name in names
        if name not in _IGNORED and len({_shown(tree.get(name)) for tree in trees}) > 1
    ]
    return {"lines": lines[:MOST_SETTINGS], "left_out": max(0, len(lines) - MOST_SETTINGS)}


def _flat(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, Mapping) and tree:
        for name, value in tree.items():
            yield from _flat(value, f"{path}.{name}" if path else str(name))
    elif isinstance(tree, list) and any(isinstance(one, Mapping) for one in tree):
        for number, value in enumerate(tree):
            yield from _flat(value, f"{path}.{number}")
    else:
        yield path, tree


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return formatting.one_line(formatting.plain(value) if isinstance(value, int | float) else str(value), 120)
