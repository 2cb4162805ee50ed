"""Trial summaries: scores, cost and status, from the rows that name a trial. Totals are left to `summary`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distributed_tuner.ledger.digest import Digest, TrialDigest
from distributed_tuner.ledger.rows import CostRow, MeasureRow, RestartRow
from distributed_tuner.runs.recorded_config import Recorded, RecordedSettings, RecordedTrial

PENDING = "pending"
"""Status of a trial that is in the config but never started."""
UNFINISHED = "unfinished"
"""Status of a trial or run without an end row: it died, or is still going."""
ALIKE = 1e-9
"""Of a loss: how far two may be apart that are the same."""


@dataclass(frozen=True, slots=True)
class TrialSummary:
    """One trial. Scores are those of its last selected look; ``test_metric`` was measured once, for that prompt.
    ``text`` is the prompt itself where it is in words. ``score`` is the loss by cross-validation over train and dev,
    ``losses`` what it is the mean of; ``by_score``: whether that selected. ``test_metric_label_words`` is that of the
    same answers without the head.

    ``spent`` is what the trial's budget paid for. ``failed`` counts candidates that had no finite loss. ``tied``: the
    loss that every candidate of its steps had, where all had the same.
    ``queries_saved`` and ``forwards_saved`` are what racing saved of its steps' full cost; None where none was raced.
    ``proposer_usd`` is not bought from the budget. ``restarts`` counts restart stages that ended; ``restarts_adopted``
    those of them after which the trial went on from another prompt, a proposal or a source trial's.
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
    tied: float | None
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


def summarize_trials(digest: Digest, config: Recorded) -> list[TrialSummary]:
    """Return every trial of ``config.trials`` in that order, then those that only the ledger knows."""
    planned = {trial.trial_id: trial for trial in config.trials}
    restarts = by_trial(digest.restarts)
    tests = {row.trial_id: row for row in digest.measures if row.what == "selected" and row.split == "test"}
    nothing = TrialDigest()
    return [
        _summarize(name, planned.get(name), digest.trials.get(name, nothing), restarts.get(name, []), tests.get(name))
        for name in {**planned, **digest.started}
    ]


def by_trial(rows: Iterable[RestartRow]) -> dict[str, list[RestartRow]]:
    """Return the rows of each trial, in their order."""
    found: dict[str, list[RestartRow]] = {}
    for row in rows:
        found.setdefault(row.trial_id, []).append(row)
    return found


def _summarize(
    name: str,
    plan: RecordedTrial | None,
    trial: TrialDigest,
    restarts: Sequence[RestartRow],
    test: MeasureRow | None,
) -> TrialSummary:
    start, end, selected, calls = trial.start, trial.end, trial.selected, trial.calls.values()
    drawn = start.drawn if start else plan.drawn if plan else {}
    config = plan.config if plan else None
    return TrialSummary(
        trial_id=name,
        method=start.method if start else plan.method if plan else "?",
        seed=start.seed if start else plan.seed if plan else None,
        split_seed=start.split_seed if start else plan.split_seed if plan else None,
        drawn=drawn,
        config=config.tree if config and config.tree else drawn,
        train_loss=selected.train_loss if selected else None,
        dev_loss=selected.dev_loss if selected else None,
        dev_metric=selected.dev_metric if selected else None,
        test_metric=None if test is None else test.metric,
        test_metric_label_words=None if test is None else test.label_words_metric,
        score=selected.score if selected else None,
        losses=selected.losses if selected else (),
        by_score=_by_score(config),
        text=selected.text if selected else None,
        spent=trial.spent,
        wall_seconds=end.wall_seconds if end else trial.elapsed,
        failed=round(trial.steps["failed"].sum()),
        tied=_tied(trial),
        queries_saved=_saved(trial, "queries_saved"),
        forwards_saved=_saved(trial, "forwards_saved"),
        proposer_calls=len(calls),
        proposer_usd=sum(row.usd for row in calls),
        restarts=len(restarts),
        restarts_adopted=sum(row.adopted != "none" for row in restarts),
        status=end.status if end else UNFINISHED if start else PENDING,
        reason=end.reason if end else "",
    )


def _by_score(config: RecordedSettings | None) -> bool:
    """Tell whether a trial's evaluations selected by cross-validation; not in runs of before it was there."""
    stages = config.stages if config else []
    rules = {stage.select for stage in stages if stage.kind != "restart"}
    return bool(stages) and rules <= {"cross_validation"}


def _tied(trial: TrialDigest) -> float | None:
    """Return the loss that all candidates had; None where they differ, or there are too few steps to say."""
    alike = trial.most - trial.least <= ALIKE * max(1.0, abs(trial.most))
    return trial.least if trial.steps["rows"].sum() > 1 and alike and trial.least <= trial.most else None


def _saved(trial: TrialDigest, name: str) -> int | None:
    """Return what racing saved; None where no step was raced."""
    return round(trial.steps[name].sum()) if trial.steps["raced"].any() else None


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
