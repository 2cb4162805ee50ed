"""Many trials as one line and a band: resampling, mean, minimum and maximum. Drawing is left to `figures`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from distributed_tuner.values import Array64


@dataclass(frozen=True, slots=True)
class Series:
    """One trial's curve: ``y[i]`` holds from ``x[i]`` on. ``keeps``: its last value stands after it ends."""

    x: tuple[float, ...]
    y: tuple[float, ...]
    keeps: bool = True


@dataclass(frozen=True, slots=True)
class Band:
    """Mean, minimum and maximum over trials at each ``x``; ``trials`` says how many there are at most."""

    x: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    trials: int


def band(series: Sequence[Series], points: int = 240) -> Band | None:
    """Return the band of ``series``; None when none has a point.

    A curve is a staircase: it keeps a value until its next point. A trial that ends before the others keeps its last
    value unless it ``keeps`` none (it failed), and then leaves the mean. The band starts where every trial has a point,
    lest a late starter make the mean jump. At most about ``points`` places are kept.
    """
    filled = [one for one in series if one.x]
    if not filled:
        return None
    grid = _grid(filled, points)
    values = np.stack([_held(one, grid) for one in filled])
    known = ~np.isnan(values).all(axis=0)
    grid, values = grid[known], values[:, known]
    return Band(
        x=tuple(grid.tolist()),
        mean=tuple(np.nanmean(values, axis=0).tolist()),
        low=tuple(np.nanmin(values, axis=0).tolist()),
        high=tuple(np.nanmax(values, axis=0).tolist()),
        trials=len(filled),
    )


def running_best(values: Sequence[float] | Array64) -> tuple[float, ...]:
    """Return the highest value so far at every place."""
    return tuple(np.maximum.accumulate(np.asarray(values, dtype=np.float64)).tolist())


def _grid(series: Sequence[Series], points: int) -> Array64:
    start = max(one.x[0] for one in series)
    grid = np.unique(np.concatenate([np.asarray(one.x, dtype=np.float64) for one in series] + [np.array([start])]))
    grid = grid[grid >= start]
    if len(grid) > points:
        grid = grid[np.unique(np.linspace(0, len(grid) - 1, points).round().astype(int))]
    return grid


def _held(one: Series, grid: Array64) -> Array64:
    """Return the staircase of ``one`` at ``grid``, shape (len(grid),); NaN where it has no value."""
    x, y = np.asarray(one.x, dtype=np.float64), np.asarray(one.y, dtype=np.float64)
    held: Array64 = y[np.searchsorted(x, grid, side="right") - 1]
    return held if one.keeps else np.where(grid <= x[-1], held, np.nan)
