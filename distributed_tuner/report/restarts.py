"""Restart stages in the report: tables of stages and proposals, exchanges, warnings. No HTML here.

Prompts and answers come from models: they are cut here, and escaped where they are shown.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from distributed_tuner.ledger.digest import Digest
from distributed_tuner.ledger.rows import ExchangeRow, RestartRow, ScoredText
from distributed_tuner.report import formatting

_MOST_STAGES, _MOST_PROPOSALS = 200, 50
_CELL, _LETTER = 300, 4000  # characters of a text in a table, and of an instruction or answer


class StageLine(NamedTuple):
    """A restart stage, with the adopted proposal or else the best one."""

    trial_id: str
    stage: str
    queries: str
    incumbent: str
    best_loss: str
    best_text: str
    source_trial: str
    source_trial_loss: str
    adopted: Literal["none", "proposal", "source_trial"]
    reason: str


class ProposalLine(NamedTuple):
    """A proposal with its scores on the feedback examples, and whence it comes."""

    loss: str
    metric: str
    text: str
    trial_id: str
    stage: str
    adopted: bool


class Letter(NamedTuple):
    """A text as the page shows it, and how many of its characters were cut off."""

    text: str
    cut: int


class Talk(NamedTuple):
    """One request to a proposer and its answer. ``problem``: why nothing of it could be used."""

    title: str
    problem: str
    instruction: Letter
    answer: Letter


class Restarts(NamedTuple):
    """All that the section says. Of each list only so many are shown; the ``_left_out`` count the rest."""

    stages: tuple[StageLine, ...]
    stages_left_out: int
    proposals: tuple[ProposalLine, ...]
    proposals_left_out: int
    talks: tuple[Talk, ...]
    talks_left_out: int
    cost: str
    warnings: tuple[str, ...]


def restarts(digest: Digest, summary: Mapping[str, Any]) -> Restarts | None:
    """Return what there is to say of restart stages; None where none has ended and no proposer was asked."""
    if not digest.restarts and not digest.calls:
        return None
    metric = formatting.MetricWords(summary["best"]["metric"])
    proposed = [(text, row) for row in digest.restarts for text in row.scored if text.source == "proposal"]
    proposed.sort(key=lambda entry: math.inf if entry[0].loss is None else entry[0].loss)
    return Restarts(
        stages=tuple(_stage_line(row) for row in digest.restarts[:_MOST_STAGES]),
        stages_left_out=max(0, len(digest.restarts) - _MOST_STAGES),
        proposals=tuple(_proposal_line(text, row, metric) for text, row in proposed[:_MOST_PROPOSALS]),
        proposals_left_out=max(0, len(proposed) - _MOST_PROPOSALS),
        talks=tuple(_talk(row) for row in digest.talks.values()),
        talks_left_out=len(digest.calls) - len(digest.talks),
        cost=_cost(summary["totals"]),
        warnings=_warnings(digest),
    )


def best_proposal(row: RestartRow) -> ScoredText | None:
    """Return the adopted proposal, else the one of lowest loss; None where there was none."""
    proposals = [text for text in row.scored if text.source == "proposal"]
    adopted = (text for text in proposals if row.adopted == "proposal" and text.text == row.text)
    best = min(proposals, key=lambda text: math.inf if text.loss is None else text.loss, default=None)
    return next(adopted, best)


def loss_of(row: RestartRow, source: str) -> float | None:
    """Return the loss of the first scored text of a source; None where there is none."""
    return next((text.loss for text in row.scored if text.source == source), None)


def _stage_line(row: RestartRow) -> StageLine:
    best, source_trial_loss = best_proposal(row), loss_of(row, "source_trial")
    return StageLine(
        trial_id=row.trial_id,
        stage=str(row.stage),
        queries=formatting.count(row.spent.queries),
        incumbent=formatting.loss(row.incumbent_loss),
        best_loss=formatting.loss(best.loss if best else None),
        best_text=formatting.one_line(best.text, _CELL) if best else "",
        source_trial=row.source_trial or "",
        source_trial_loss="" if source_trial_loss is None else formatting.loss(source_trial_loss),
        adopted=row.adopted,
        reason=formatting.one_line(row.reason, _CELL),
    )


def _proposal_line(text: ScoredText, row: RestartRow, metric: formatting.MetricWords) -> ProposalLine:
    return ProposalLine(
        loss=formatting.loss(text.loss),
        metric=metric.bare(text.metric),
        text=formatting.one_line(text.text, _CELL),
        trial_id=row.trial_id,
        stage=str(row.stage),
        adopted=row.adopted == "proposal" and text.text == row.text,
    )


def _talk(row: ExchangeRow) -> Talk:
    found = "1 prompt" if len(row.texts) == 1 else f"{len(row.texts)} prompts"
    stage = "screen" if row.screen else f"stage {row.stage}"
    title = f"{row.trial_id}, {stage}, request {row.number + 1} to {formatting.one_line(row.proposer, 80)}: {found}"
    return Talk(title, formatting.one_line(row.problem, _CELL), _letter(row.instruction), _letter(row.answer))


def _letter(text: str) -> Letter:
    return Letter(text[:_LETTER], max(0, len(text) - _LETTER))


def _cost(totals: Mapping[str, Any]) -> str:
    """Say what was asked of proposers, and what it cost."""
    calls = totals["proposer_calls"]
    if not calls:
        return "No proposer was asked."
    asked = "1 request" if calls == 1 else f"{formatting.count(calls)} requests"
    cut = totals["proposals_cut"]
    longer = f", {formatting.count(cut)} proposals longer than the prompt and cut" if cut else ""
    return (
        f"{asked} to proposers, {formatting.count(totals['proposer_failures'])} without a usable answer{longer}:"
        f" {formatting.count(totals['proposer_input_tokens'])} tokens in,"
        f" {formatting.count(totals['proposer_output_tokens'])} out,"
        f" {formatting.duration(totals['proposer_seconds'])}, {formatting.money(totals['proposer_usd'])}."
    )


def _warnings(digest: Digest) -> tuple[str, ...]:
    """Return every proposer that was given up, and each trial's first failure."""
    return tuple(
        f"{event.trial_id or 'run'}: {formatting.one_line(event.message, _CELL)}" for event in digest.warnings.values()
    )
