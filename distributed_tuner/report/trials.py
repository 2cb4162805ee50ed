"""What became of each trial: scores, cost and status, from the rows that name it. Totals are left to `summary`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from distributed_tuner.ledger.reader import Ledger
from distributed_tuner.ledger.rows import CostRow, LookRow, StepRow, TrialEndRow, TrialRow

PENDING = "pending"
"""Status of a trial that is in the config but never started."""
UNFINISHED = "unfinished"
"""Status of a trial or run without an end row: it died, or is still going."""


@dataclass(frozen=True, slots=True)
class TrialSummary:
    """One trial. Scores are those of its last selected look; ``test_metric`` was measured once, for that prompt.

    ``spent`` is what the trial's budget paid for. ``failed`` counts candidates that had no finite loss.
    ``queries_saved`` and ``forwards_saved`` are what racing saved of its steps' full cost; None where none was raced.
    """

    trial_id: str
    method: str
    seed: int | None
    split_seed: int | None
    drawn: Mapping[str, Any]
    config: Mapping[str, Any]
    train_loss: float | None
    dev_loss: float | None
    dev_metric: float | None
    test_metric: float | None
    spent: CostRow
    wall_seconds: float
    failed: int
    queries_saved: int | None
    forwards_saved: int | None
    status: str
    reason: str

    @property
    def counts(self) -> bool:
        """Whether its scores enter the averages of its method: it started, and did not fail."""
        return self.status not in (PENDING, "failed")


def summarize_trials(ledger: Ledger, config: Mapping[str, Any]) -> list[TrialSummary]:
    """Return every trial of ``config["trials"]`` in that order, then those that only the ledger knows."""
    planned = {str(entry["trial_id"]): entry for entry in config.get("trials") or [] if "trial_id" in entry}
    started = {row.trial_id: row for row in ledger.trials}
    rows = _RowsByTrial(ledger)
    return [_summarize(name, planned.get(name, {}), started.get(name), rows) for name in {**planned, **started}]


class _RowsByTrial:
    """The rows of a ledger, found by trial."""

    def __init__(self, ledger: Ledger) -> None:
        self.steps: dict[str, list[StepRow]] = {}
        self.looks: dict[str, list[LookRow]] = {}
        for step in ledger.steps:
            self.steps.setdefault(step.trial_id, []).append(step)
        for look in ledger.looks:
            self.looks.setdefault(look.trial_id, []).append(look)
        self.ends: dict[str, TrialEndRow] = {end.trial_id: end for end in ledger.trial_ends}
        self.tests = {
            row.trial_id: row.metric for row in ledger.measures if row.what == "selected" and row.split == "test"
        }


def _summarize(name: str, plan: Mapping[str, Any], start: TrialRow | None, rows: _RowsByTrial) -> TrialSummary:
    steps, looks, end = rows.steps.get(name, []), rows.looks.get(name, []), rows.ends.get(name)
    selected = next((look for look in reversed(looks) if look.selected), None)
    drawn = start.drawn if start else plan.get("drawn") or {}
    return TrialSummary(
        trial_id=name,
        method=start.method if start else str(plan.get("method", "?")),
        seed=start.seed if start else plan.get("seed"),
        split_seed=start.split_seed if start else plan.get("split_seed"),
        drawn=drawn,
        config=plan.get("config") or drawn,
        train_loss=selected.train_loss if selected else None,
        dev_loss=selected.dev_loss if selected else None,
        dev_metric=selected.dev_metric if selected else None,
        test_metric=rows.tests.get(name),
        spent=_spent(steps, looks),
        wall_seconds=end.wall_seconds if end else _elapsed(steps, looks),
        failed=sum(row.failed for row in steps),
        queries_saved=_saved(steps, "queries_saved"),
        forwards_saved=_saved(steps, "forwards_saved"),
        status=end.status if end else UNFINISHED if start else PENDING,
        reason=end.reason if end else "",
    )


def _spent(steps: list[StepRow], looks: list[LookRow]) -> CostRow:
    """Return the largest of the cumulative costs, for steps and looks of one moment may come in either order."""
    spent = [*(row.spent for row in steps), *(row.spent for row in looks)]
    return max(spent, key=lambda cost: (cost.queries, cost.forwards, cost.tokens), default=CostRow())


def _saved(steps: list[StepRow], name: str) -> int | None:
    saved = [row.metrics[name] for row in steps if name in row.metrics]
    return round(sum(saved)) if saved else None


def _elapsed(steps: list[StepRow], looks: list[LookRow]) -> float:
    return max([*(row.elapsed for row in steps), *(row.elapsed for row in looks)], default=0.0)


def best_trial(trials: list[TrialSummary]) -> TrialSummary | None:
    """Return the trial of highest dev metric, then lowest dev loss, then the first; failed ones only if all failed.

    None when no trial has a dev metric.
    """
    scored = [trial for trial in trials if trial.dev_metric is not None]
    candidates = [trial for trial in scored if trial.counts] or scored
    return max(candidates, key=_merit, default=None)


def _merit(trial: TrialSummary) -> tuple[float, float]:
    loss = trial.dev_loss if trial.dev_loss is not None else float("inf")
    return (trial.dev_metric if trial.dev_metric is not None else float("-inf"), -loss)
