"""Scores of a selected prompt on test, outside the budgets, with the first of the answers as a ledger keeps them."""

from collections.abc import Mapping, Sequence

from distributed_tuner.ledger.rows import CostRow, GeneratedText, MeasureRow
from distributed_tuner.oracles.base import LossOracle
from distributed_tuner.stages.validation import AnyReader, scores_of
from distributed_tuner.values import Array64, Candidate, Cost, Example, PromptSpec, Request

MOST = 500
"""Test examples whose answers are kept: the first."""
_CHARACTERS = 500


def measure(
    oracle: LossOracle,
    reader: AnyReader,
    candidate: Candidate,
    spec: PromptSpec,
    state: Mapping[str, Array64],
    split_seed: int,
    trial_id: str,
) -> MeasureRow:
    """Score a trial's selected prompt on test. ``state``: of the head that goes with it."""
    task, asked = reader.task, [Request((candidate,), batch, spec) for batch in reader.measured("test")]
    answers = [oracle.evaluate(request) for request in asked]
    loss, scores = reader.measure(state, answers, "test")
    plain = {} if task.has_targets else scores_of(task, answers[0], asked[0].batch)
    return MeasureRow(
        trial_id=trial_id,
        what="selected",
        split="test",
        split_seed=split_seed,
        loss=loss,
        metric=scores[task.metric],
        metrics=scores,
        label_words_metric=plain.get(task.metric),
        texts=kept_texts(task.test, answers[0].texts[0]) if task.has_targets else [],
        cost=CostRow.of(sum((answer.cost for answer in answers), Cost())),
    )


def kept_texts(
    examples: Sequence[Example], texts: Sequence[str | None], with_inputs: bool = False
) -> list[GeneratedText]:
    """Return the answers to the first examples; ``with_inputs`` also what was asked, and the targets."""
    pairs = list(zip(examples, texts, strict=True))[:MOST]
    if not with_inputs:
        return [GeneratedText(uid=example.uid, text=_cut(text)) for example, text in pairs]
    return [
        GeneratedText(
            uid=example.uid, text=_cut(text), input=_cut(example.text) or "", target=_cut(example.target.strip()) or ""
        )
        for example, text in pairs
    ]


def _cut(text: str | None) -> str | None:
    return None if text is None else text[:_CHARACTERS]
