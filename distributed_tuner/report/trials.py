"""What became of each trial: scores, cost and status, from the rows that name it. Totals are left to `summary`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from distributed_tuner.ledger.reader import Ledger
from distributed_tuner.ledger.rows import (
    CostRow,
    ExchangeRow,
    FeedbackRow,
    LookRow,
    RestartRow,
    ScreenRow,
    StepRow,
    SurveyRow,
    TrialEndRow,
    TrialRow,
)

PaidRow: TypeAlias = StepRow | LookRow | FeedbackRow | RestartRow | SurveyRow | ScreenRow
"""A row of a trial that says what its budget has paid for until then."""
R = TypeVar("R", StepRow, LookRow, ExchangeRow, RestartRow, PaidRow)

PENDING = "pending"
"""Status of a trial that is in the config but never started."""
UNFINISHED = "unfinished"
"""Status of a trial or run without an end row: it died, or is still going."""


@dataclass(frozen=True, slots=True)
class TrialSummary:
    """One trial. Scores are those of its last selected look; ``test_metric`` was measured once, for that prompt.
    ``text`` is the prompt itself where it is in words. ``score`` is the loss by cross-validation over train and dev,
    ``losses`` what it is the mean of; ``by_score``: whether that selected. ``test_metric_label_words`` is that of the
    same answers without the head.

    ``spent`` is what the trial's budget paid for. ``failed`` counts candidates that had no finite loss.
    ``queries_saved`` and ``forwards_saved`` are what racing saved of its steps' full cost; None where none was raced.
    ``proposer_usd`` is not bought from the budget. ``restarts`` counts restart stages that ended; ``restarts_adopted``
    those of them after which the trial went on from another prompt, a proposal or a donor's.
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
    test_metric_label_words: float | None
    score: float | None
    losses: tuple[float | None, ...]
    by_score: bool
    text: str | None
    spent: CostRow
    wall_seconds: float
    failed: int
    queries_saved: int | None
    forwards_saved: int | None
    proposer_calls: int
    proposer_usd: float
    restarts: int
    restarts_adopted: int
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


def paid_rows(ledger: Ledger) -> list[PaidRow]:
    """Return the rows that budgets have paid for, kind after kind."""
    return [*ledger.steps, *ledger.looks, *ledger.feedbacks, *ledger.restarts, *ledger.surveys, *ledger.screens]


def by_trial(rows: Iterable[R]) -> dict[str, list[R]]:
    """Return the rows of each trial, in their order."""
    found: dict[str, list[R]] = {}
    for row in rows:
        found.setdefault(row.trial_id, []).append(row)
    return found


class _RowsByTrial:
    """The rows of a ledger, found by trial."""

    def __init__(self, ledger: Ledger) -> None:
        self.steps = by_trial(ledger.steps)
        self.looks = by_trial(ledger.looks)
        self.paid = by_trial(paid_rows(ledger))
        self.exchanges = by_trial(ledger.exchanges)
        self.restarts = by_trial(ledger.restarts)
        self.ends: dict[str, TrialEndRow] = {end.trial_id: end for end in ledger.trial_ends}
        self.tests = {row.trial_id: row for row in ledger.measures if row.what == "selected" and row.split == "test"}


def _summarize(name: str, plan: Mapping[str, Any], start: TrialRow | None, rows: _RowsByTrial) -> TrialSummary:
    steps, looks, end = rows.steps.get(name, []), rows.looks.get(name, []), rows.ends.get(name)
    paid, exchanges, restarts = rows.paid.get(name, []), rows.exchanges.get(name, []), rows.restarts.get(name, [])
    selected = next((look for look in reversed(looks) if look.selected), None)
    test = rows.tests.get(name)
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
        test_metric=None if test is None else test.metric,
        test_metric_label_words=None if test is None else test.label_words_metric,
        score=selected.score if selected else None,
        losses=tuple(selected.losses) if selected else (),
        by_score=_by_score(plan.get("config") or {}),
        text=selected.text if selected else None,
        spent=_spent(paid),
        wall_seconds=end.wall_seconds if end else max((row.elapsed for row in paid), default=0.0),
        failed=sum(row.failed for row in steps),
        queries_saved=_saved(steps, "queries_saved"),
        forwards_saved=_saved(steps, "forwards_saved"),
        proposer_calls=len(exchanges),
        proposer_usd=sum(row.usd for row in exchanges),
        restarts=len(restarts),
        restarts_adopted=sum(row.adopted != "none" for row in restarts),
        status=end.status if end else UNFINISHED if start else PENDING,
        reason=end.reason if end else "",
    )


def _by_score(config: Mapping[str, Any]) -> bool:
    """Tell whether a trial's looks selected by cross-validation; not in runs of before it was there."""
    stages = config.get("stages") or []
    rules = {stage.get("select") for stage in stages if isinstance(stage, Mapping) and stage.get("kind") != "restart"}
    return bool(stages) and rules <= {"cross_validation"}


def _spent(rows: Sequence[PaidRow]) -> CostRow:
    """Return the largest of the cumulative costs, for rows of one moment may come in any order."""
    return max(
        (row.spent for row in rows), key=lambda cost: (cost.queries, cost.forwards, cost.tokens), default=CostRow()
    )


def _saved(steps: list[StepRow], name: str) -> int | None:
    saved = [row.metrics[name] for row in steps if name in row.metrics]
    return round(sum(saved)) if saved else None


def best_trial(trials: list[TrialSummary]) -> TrialSummary | None:
    """Return the trial of lowest loss by cross-validation where all were selected by it; else of highest dev metric,
    then lowest dev loss, then the first. Failed ones only if all failed.

    None when no trial has a dev metric.
    """
    scored = [trial for trial in trials if trial.dev_metric is not None]
    candidates = [trial for trial in scored if trial.counts] or scored
    if candidates and all(trial.by_score and trial.score is not None for trial in candidates):
        return min(candidates, key=lambda trial: float("inf") if trial.score is None else trial.score)
    return max(candidates, key=_merit, default=None)


def _merit(trial: TrialSummary) -> tuple[float, float]:
    loss = trial.dev_loss if trial.dev_loss is not None else float("inf")
    return (trial.dev_metric if trial.dev_metric is not None else float("-inf"), -loss)
