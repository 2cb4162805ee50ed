"""Rows of a restart stage: scored texts, requests to the proposer, the prompt that was adopted."""

from typing import Annotated, Literal, TypeAlias

from pydantic import AliasChoices, BeforeValidator, Field

from distributed_tuner.ledger.rows.fields import CostRow, Count, Frozen, Score, Seconds, TypedRow

_PRESENT = {"donor": "source_trial"}
"""Names in ledgers of older versions, with their present ones."""
_Present = BeforeValidator(lambda name: _PRESENT.get(name, name) if isinstance(name, str) else name)
TextSource: TypeAlias = Annotated[Literal["trajectory", "proposal", "source_trial", "incumbent"], _Present]
AdoptedFrom: TypeAlias = Annotated[Literal["none", "proposal", "source_trial"], _Present]


class ScoredText(Frozen):
    """A prompt in words and how it scored on the feedback examples. ``source``: where it comes from."""

    text: str
    source: TextSource
    loss: Score
    metric: Score


class FeedbackRow(TypedRow):
    """Prompts of the stage before, put into words and scored: what a proposer is shown."""

    type: Literal["feedback"] = "feedback"
    trial_id: str
    stage: Count
    texts: list[ScoredText]
    cost: CostRow
    spent: CostRow
    elapsed: Seconds


class ExchangeRow(TypedRow):
    """One request to a proposer and its answer, whole. Answers are data: shown, never run."""

    type: Literal["exchange"] = "exchange"
    trial_id: str
    stage: Count
    number: Count
    """Counts the requests of this stage."""
    screen: bool = False
    """Whether the screen before the stage asked."""
    proposer: str
    """Kind and model, such as "local smollm2-135m"."""
    instruction: str
    answer: str
    texts: list[str]
    """Proposals that were found in the answer."""
    cut: Count = 0
    """Number of them with more tokens than the prompt has rows, which are cut there."""
    problem: str = ""
    """Why there is no answer, or none that can be used; empty where there is."""
    input_tokens: Count = 0
    output_tokens: Count = 0
    seconds: Seconds = 0.0
    usd: Seconds = 0.0


class RestartRow(TypedRow):
    """A restart stage ends: what was scored on the same examples, and what became the start of the next stage."""

    type: Literal["restart"] = "restart"
    trial_id: str
    stage: Count
    incumbent_loss: Score
    """Of the prompt that the trial came with; None where it was not scored."""
    scored: list[ScoredText]
    """Proposals, and the source trial's prompt in a population."""
    adopted: AdoptedFrom
    text: str
    """The adopted prompt in words; empty where none was adopted."""
    source_trial: str | None = Field(default=None, validation_alias=AliasChoices("source_trial", "donor"))
    """The trial whose settings, and perhaps prompt, were taken over (population only)."""
    settings: dict[str, float] = Field(default_factory=dict)
    """The settings that were taken over and explored, by path."""
    reason: str = ""
    """Why nothing was proposed or adopted, in words; empty where something was."""
    cost: CostRow
    spent: CostRow
    elapsed: Seconds
