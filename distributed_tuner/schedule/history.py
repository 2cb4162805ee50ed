"""History for a population's schedule that begins again: the scored text prompts in a run's ledger."""

from collections.abc import Iterable

from distributed_tuner.ledger.reader import collect
from distributed_tuner.ledger.rows import FeedbackRow, RestartRow, Row, ScoredText
from distributed_tuner.prompts.pool import PooledText


def scored_before(ledger_rows: Iterable[Row]) -> list[PooledText]:
    """Return every text that was scored on the feedback examples, as the trials reported it."""
    ledger = collect(row for row in ledger_rows if isinstance(row, FeedbackRow | RestartRow))
    rows: list[FeedbackRow | RestartRow] = [*ledger.feedbacks, *ledger.restarts]
    return [
        pooled(text, row)
        for row in sorted(rows, key=lambda row: row.time)
        for text in (row.texts if isinstance(row, FeedbackRow) else row.scored)
        if text.text  # a source trial's prompt has none
    ]


def pooled(text: ScoredText, row: FeedbackRow | RestartRow) -> PooledText:
    """Return a text of ``row`` as the pool holds it; a score that is missing becomes NaN."""
    return PooledText(
        text=text.text,
        loss=float("nan") if text.loss is None else text.loss,
        metric=float("nan") if text.metric is None else text.metric,
        source=text.source,
        trial_id=row.trial_id,
        stage=row.stage,
    )
