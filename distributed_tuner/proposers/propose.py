"""One request for proposals, with its repetitions: instruction, answer, parsing, and what came of each.

A proposer that fails costs its proposals, nothing else: what went wrong is told in words, never raised.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace

from distributed_tuner.config.proposer import ProposerConfig
from distributed_tuner.errors import TunerError
from distributed_tuner.proposers.base import Ask, Proposer
from distributed_tuner.proposers.instruction import Briefing, instruction
from distributed_tuner.proposers.parsing import parse, parse_published
from distributed_tuner.seeds import Key
from distributed_tuner.values import Answer


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and its answer. ``problem``: why there is no proposal in it; empty where there is one."""

    number: int
    instruction: str
    answer: str
    texts: tuple[str, ...]
    problem: str
    input_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0
    usd: float = 0.0


@dataclass(frozen=True, slots=True)
class Proposed:
    """The proposals, best effort, every exchange that was needed, and why there are none where there are none."""

    texts: tuple[str, ...]
    exchanges: tuple[Exchange, ...]
    problem: str


def propose(
    proposer: Proposer,
    briefing: Briefing,
    key: Key,
    *,
    settings: ProposerConfig,
    calls: int | None,
    usd: float | None,
    known: Collection[str] = (),
    reproduce_paper: bool = False,
) -> Proposed:
    """Ask until an answer holds a proposal, ``settings.retries`` times more at most.

    key: (trial_id, stage), to which the number of the request is added. calls, usd: what may still be spent; None: any
    amount. An answer's price is known only afterwards, so that the last one may go beyond ``usd``. known: texts that
    are no news.

    Raises:
        ConfigError: the template of the instruction does not fit, which ``check_template`` finds before.
    """
    told = instruction(briefing, settings.instruction, reproduce_paper)
    exchanges: list[Exchange] = []
    problem = ""
    for number in range(settings.retries + 1):
        if limit := _limit(exchanges, calls, usd):
            problem = f"{problem}; {limit}" if problem else limit
            break
        exchanges.append(_exchange(proposer, Ask(told, briefing.count, (*key, number)), number, known, reproduce_paper))
        if exchanges[-1].texts:
            return Proposed(exchanges[-1].texts, tuple(exchanges), "")
        problem = exchanges[-1].problem
    return Proposed((), tuple(exchanges), problem)


def _limit(exchanges: list[Exchange], calls: int | None, usd: float | None) -> str:
    """Return which limit forbids another request; empty where none does."""
    if calls is not None and len(exchanges) >= calls:
        return "the trial's proposer.calls are used up"
    if usd is not None and sum(exchange.usd for exchange in exchanges) >= usd:
        return "the trial's proposer.usd are used up"
    return ""


def _exchange(proposer: Proposer, ask: Ask, number: int, known: Collection[str], reproduce_paper: bool) -> Exchange:
    try:
        answer = proposer.answer(ask)
    except TunerError as error:
        return Exchange(number, ask.instruction, "", (), _writable(str(error)) or type(error).__name__)
    answer = replace(answer, text=_writable(answer.text))
    texts = _texts(answer, ask.count, known, reproduce_paper)
    problem = "" if texts else _why_none(answer, known)
    return Exchange(
        number,
        ask.instruction,
        answer.text,
        texts,
        problem,
        answer.input_tokens,
        answer.output_tokens,
        answer.seconds,
        answer.usd,
    )


def _writable(text: str) -> str:
    """Return a text that UTF-8 can hold: JSON may bring halves of characters, which no ledger takes."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _texts(answer: Answer, count: int, known: Collection[str], reproduce_paper: bool) -> tuple[str, ...]:
    return tuple(parse_published(answer.text)[:count] if reproduce_paper else parse(answer.text, count, known))


def _why_none(answer: Answer, known: Collection[str]) -> str:
    if not answer.text.strip():
        return f"the answer {answer.note}" if answer.note else "the answer is empty"
    return "the answer repeats known prompts" if parse(answer.text, 1) and known else "the answer holds no prompt"
