"""Many steps at once, as columns of numbers, trial by trial: what a loop of Python over rows would be too slow for."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from distributed_tuner.ledger.quick_rows import QuickStep
from distributed_tuner.ledger.rows import CostRow
from distributed_tuner.values import Array64

Integers: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]


class TrialSteps(NamedTuple):
    """Steps of one trial, in their order.

    ``curve``: shape (steps, 11), the numbers that a trial's curve of steps takes. ``spent``: the row with the largest
    cumulative cost. ``least`` and ``most``: of the losses of candidates; NaN where no step has one.
    """

    trial_id: str
    curve: Array64
    spent: QuickStep
    elapsed: float
    least: float
    most: float


def by_trial(steps: Sequence[QuickStep]) -> Iterator[TrialSteps]:
    """Yield the steps of each trial, of which there is at least one."""
    names: dict[str, int] = {}
    trial = np.array([names.setdefault(row.trial_id, len(names)) for row in steps])
    order = np.argsort(trial, kind="stable")
    starts = np.flatnonzero(np.diff(trial[order], prepend=-1))
    curve = _curve(steps)[order]
    losses = np.stack([curve[:, 5], _column([row.best_loss for row in steps])[order]])
    least = np.fmin.reduceat(np.fmin(*losses), starts)
    most = np.fmax.reduceat(np.fmax(*losses), starts)
    elapsed = np.maximum.reduceat(_column([row.elapsed for row in steps])[order], starts)
    stops = np.append(starts[1:], len(order))
    spent = order if _is_cumulative(curve[:, 4], starts) else _most_spent(steps, trial)
    curve[:, 5] = np.nan_to_num(curve[:, 5])
    for name, start, stop, of, seconds, low, high in zip(
        names, starts.tolist(), stops.tolist(), spent[stops - 1].tolist(), elapsed.tolist(), least, most, strict=True
    ):
        yield TrialSteps(name, curve[start:stop], steps[of], seconds, float(low), float(high))


def span_of(steps: Sequence[QuickStep]) -> tuple[float, float]:
    """Return the times of the first and the last of the steps."""
    times = _column([row.time for row in steps])
    return float(times.min()), float(times.max())


def cost_of(steps: Sequence[QuickStep]) -> CostRow:
    """Return what the steps have cost together."""
    costs = [row.cost for row in steps]
    return CostRow.model_construct(
        queries=sum([cost.queries for cost in costs]),
        forwards=sum([cost.forwards for cost in costs]),
        tokens=sum([cost.tokens for cost in costs]),
        seconds=sum([cost.seconds for cost in costs]),
        usd=sum([cost.usd for cost in costs]),
        output_tokens=sum([cost.output_tokens for cost in costs]),
    )


def _curve(steps: Sequence[QuickStep]) -> Array64:
    """Return stage, step, 1, time, queries, loss (NaN: none), whether there is one, failed, and three of racing."""
    loss = _column([row.loss for row in steps])
    metrics = [row.metrics for row in steps]
    raced = any([one.queries_saved is not None or one.forwards_saved is not None for one in metrics])
    saved = np.array([one.saved for one in metrics], dtype=np.float64) if raced else np.zeros((len(steps), 3))
    return np.column_stack(
        [
            _column([row.stage for row in steps]),
            _column([row.step for row in steps]),
            np.ones(len(steps)),
            _column([row.time for row in steps]),
            _column([row.spent.queries for row in steps]),
            loss,
            ~np.isnan(loss),
            _column([row.failed for row in steps]),
            saved,
        ]
    )


def _is_cumulative(queries: Array64, starts: Integers) -> bool:
    """Tell whether each trial's queries grow from row to row, so that its last row has spent the most."""
    grows = np.diff(queries, prepend=-1.0) > 0
    grows[starts] = True
    return bool(grows.all())


def _most_spent(steps: Sequence[QuickStep], trial: Integers) -> Integers:
    """Return the places of steps sorted by trial, the one that has spent the most last in each."""
    spent = [row.spent for row in steps]
    costs = np.array([(one.tokens, one.forwards, one.queries) for one in spent], dtype=np.int64)
    return np.lexsort((*costs.T, trial))


def _column(values: Sequence[float | None]) -> Array64:
    """Return numbers as an array, None as NaN."""
    return np.array(values, dtype=np.float64)
