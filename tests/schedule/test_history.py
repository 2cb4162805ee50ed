"""Scored texts in a ledger, read again for a resumed run."""

import math

from distributed_tuner.ledger.rows import CostRow, FeedbackRow, RestartRow, ScoredText
from distributed_tuner.prompts.pool import PooledText
from distributed_tuner.schedule.history import scored_before


def feedback(trial_id: str, time: float, *texts: ScoredText) -> FeedbackRow:
    accounting = {"cost": CostRow(), "spent": CostRow(), "elapsed": 0.0}
    return FeedbackRow(time=time, trial_id=trial_id, stage=1, texts=list(texts), **accounting)


def restart(trial_id: str, time: float, *texts: ScoredText) -> RestartRow:
    accounting = {"cost": CostRow(), "spent": CostRow(), "elapsed": 0.0}
    return RestartRow(
        time=time,
        trial_id=trial_id,
        stage=1,
        incumbent_loss=1.0,
        scored=list(texts),
        adopted="none",
        text="",
        **accounting,
    )


def test_texts_come_in_the_order_in_which_they_were_scored_and_prompts_without_words_are_left_out() -> None:
    rows = [
        feedback("a", 1.0, ScoredText(text="one", source="trajectory", loss=0.5, metric=0.75)),
        restart(
            "a",
            4.0,
            ScoredText(text="", source="source_trial", loss=0.1, metric=1.0),
            ScoredText(text="four", source="proposal", loss=0.2, metric=1.0),
        ),
        feedback("b", 2.0, ScoredText(text="two", source="trajectory", loss=0.4, metric=0.5)),
    ]
    assert scored_before(rows) == [
        PooledText("one", 0.5, 0.75, "trajectory", "a", 1),
        PooledText("two", 0.4, 0.5, "trajectory", "b", 1),
        PooledText("four", 0.2, 1.0, "proposal", "a", 1),
    ]


def test_a_score_that_the_ledger_lacks_is_not_a_number() -> None:
    (entry,) = scored_before([feedback("a", 1.0, ScoredText(text="x", source="trajectory", loss=None, metric=None))])
    assert math.isnan(entry.loss)
    assert math.isnan(entry.metric)


def test_a_row_that_was_written_again_after_a_resume_counts_once() -> None:
    row = feedback("a", 1.0, ScoredText(text="one", source="trajectory", loss=0.5, metric=0.75))
    assert len(scored_before([row, row])) == 1
