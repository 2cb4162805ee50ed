"""Asking a proposer on behalf of a stage: what it may still spend, what its answers cost, and the rows that tell it."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

from distributed_tuner.config.proposer import ProposerConfig
from distributed_tuner.ledger.rows import ExchangeRow
from distributed_tuner.proposers.base import Proposer
from distributed_tuner.proposers.instruction import Briefing, Failure
from distributed_tuner.proposers.propose import Exchange, Proposed, propose
from distributed_tuner.stages.accounting import Accounting
from distributed_tuner.stages.trial_memory import Memory
from distributed_tuner.tasks.base import Task
from distributed_tuner.tasks.text_metrics import TextMetrics
from distributed_tuner.values import Evaluation, Example

FAILURES = 4  # that a proposer is shown
SCREEN = "screen"  # in place of a stage's number, in the key of a request


def ask(
    proposer: Proposer,
    briefing: Briefing,
    *,
    accounting: Accounting,
    memory: Memory,
    settings: ProposerConfig,
    known: Collection[str],
    reproduce_paper: bool = False,
    screen: bool = False,
    too_long: Callable[[str], bool] = lambda text: False,
) -> tuple[Proposed, list[ExchangeRow]]:
    """Have a proposer write within what the trial may still spend on it; return what came, and a row a request.

    ``screen``: a screen asks, not the stage that it comes before. ``too_long``: whether a proposal is cut.
    """
    proposed = propose(
        proposer,
        briefing,
        (accounting.trial_id, SCREEN if screen else accounting.stage),
        settings=settings.model_copy(update={"retries": 0}) if reproduce_paper else settings,
        calls=None if settings.calls is None else settings.calls - memory.calls,
        usd=None if settings.usd is None else settings.usd - memory.usd,
        known=known,
        reproduce_paper=reproduce_paper,
    )
    memory.calls += len(proposed.exchanges)
    memory.usd += sum(exchange.usd for exchange in proposed.exchanges)
    names = accounting.names | {"proposer": proposer.label, "screen": screen}
    return proposed, [_row(exchange, names, too_long) for exchange in proposed.exchanges]


def failures_of(task: Task, answer: Evaluation, examples: Sequence[Example]) -> tuple[Failure, ...]:
    """Return some of what was generated with one prompt and is not right, the worst first."""
    texts = answer.texts[0]
    places = TextMetrics(task.text_metrics).worst(texts, examples, FAILURES)
    return tuple(Failure(examples[i].text, texts[i], examples[i].target) for i in places)


def _row(exchange: Exchange, names: dict[str, Any], too_long: Callable[[str], bool]) -> ExchangeRow:
    return ExchangeRow(
        **names,
        number=exchange.number,
        instruction=exchange.instruction,
        answer=exchange.answer,
        texts=list(exchange.texts),
        cut=sum(map(too_long, exchange.texts)),
        problem=exchange.problem,
        input_tokens=exchange.input_tokens,
        output_tokens=exchange.output_tokens,
        seconds=exchange.seconds,
        usd=exchange.usd,
    )
