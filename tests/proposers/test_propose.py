"""One stage's requests: repetition, limits, and that a bad proposer costs its proposals and nothing else."""

from pathlib import Path
from typing import Any

import pytest

from distributed_tuner.config.proposer import ProposerConfig, RandomProposerConfig
from distributed_tuner.errors import ModelError, OracleError, ProposerError
from distributed_tuner.ledger.rows import ROW, ExchangeRow
from distributed_tuner.proposers.base import Ask
from distributed_tuner.proposers.instruction import Briefing
from distributed_tuner.proposers.propose import Proposed, propose
from distributed_tuner.values import Answer

BRIEFING = Briefing("a task", (" bad", " good"), (("Judge the mood", 1.0, 0.5),), "accuracy", 6, 2)
GOOD = "1. Classify the review\n2. Name the tone of it\n3. Say more about it"


class Script:
    """Answers from a list, the last one for ever; an exception is raised."""

    label = "script"

    def __init__(self, *answers: str | Exception) -> None:
        self.answers = answers
        self.asked: list[Ask] = []

    def answer(self, ask: Ask) -> Answer:
        self.asked.append(ask)
        answer = self.answers[min(len(self.asked), len(self.answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return Answer(answer, 10, 5, 0.25, 0.5)


def ask(script: Script, settings: dict[str, Any] | None = None, **more: Any) -> Proposed:
    config: ProposerConfig = RandomProposerConfig(kind="random", **(settings or {"retries": 2}))
    limits: dict[str, Any] = {"calls": None, "usd": None, "known": {"Judge the mood"}, "reproduce_paper": False}
    return propose(script, BRIEFING, ("zot-0000", 3), settings=config, **(limits | more))


def test_a_good_answer_is_the_only_one() -> None:
    script = Script(GOOD)
    proposed = ask(script)
    assert proposed.texts == ("Classify the review", "Name the tone of it")
    assert proposed.problem == ""
    (exchange,) = proposed.exchanges
    assert exchange.texts == proposed.texts
    assert (exchange.number, exchange.answer, exchange.problem) == (0, GOOD, "")
    assert (exchange.input_tokens, exchange.output_tokens, exchange.seconds, exchange.usd) == (10, 5, 0.25, 0.5)
    (asked,) = script.asked
    assert (asked.key, asked.count, asked.instruction) == (("zot-0000", 3, 0), 2, exchange.instruction)
    assert "Judge the mood" in asked.instruction


def test_another_request_follows_an_answer_that_is_no_use() -> None:
    script = Script("", "Judge the MOOD", "!!!", GOOD)
    proposed = ask(script, {"retries": 3})
    assert proposed.texts == ("Classify the review", "Name the tone of it")
    assert [exchange.problem for exchange in proposed.exchanges] == [
        "the answer is empty",
        "the answer repeats known prompts",
        "the answer holds no prompt",
        "",
    ]
    assert [asked.key for asked in script.asked] == [("zot-0000", 3, number) for number in range(4)]


@pytest.mark.parametrize("error", [ProposerError("no key"), ModelError("no key"), OracleError("no key")])
def test_a_proposer_that_fails_is_told_of_and_asked_again(error: Exception) -> None:
    proposed = ask(Script(error, GOOD))
    assert proposed.texts
    assert (proposed.exchanges[0].problem, proposed.exchanges[0].answer) == ("no key", "")
    failed = ask(Script(error))
    assert (failed.texts, failed.problem, len(failed.exchanges)) == ((), "no key", 3)


@pytest.mark.parametrize(
    ("limits", "requests", "problem"),
    [
        ({"calls": 2}, 2, "the answer is empty; the trial's proposer.calls are used up"),
        ({"calls": 0}, 0, "the trial's proposer.calls are used up"),
        ({"calls": -1}, 0, "the trial's proposer.calls are used up"),
        ({"usd": 0.75}, 2, "the answer is empty; the trial's proposer.usd are used up"),
        ({"usd": 0.0}, 0, "the trial's proposer.usd are used up"),
        ({"usd": 9.0, "calls": 9}, 3, "the answer is empty"),
    ],
)
def test_limits_end_the_requests(limits: dict[str, Any], requests: int, problem: str) -> None:
    script = Script("")
    proposed = ask(script, **limits)
    assert len(script.asked) == len(proposed.exchanges) == requests
    assert proposed.problem == problem


def test_faithful_takes_the_published_wording_and_rules() -> None:
    script = Script("- short\n- Judge the mood\n- Here are the templates:")
    proposed = ask(script, reproduce_paper=True)
    assert proposed.texts == ("Judge the mood", "Here are the templates:")  # known or a preamble: it does not look
    assert "image classification" in script.asked[0].instruction


def test_a_template_of_the_users_own(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("{{ count }} for {{ description }}")
    script = Script(GOOD)
    assert ask(script, {"instruction": str(tmp_path / "mine.txt")}).texts
    assert script.asked[0].instruction == "2 for a task\n"


@pytest.mark.parametrize(
    "answer", ["Classify \ud800 the review", "\udfff", '["Classify \\ud800 it"]', "\x00\x1b[31mred prompt"]
)
@pytest.mark.parametrize("reproduce_paper", [False, True])
def test_every_exchange_can_be_written_down(answer: str, reproduce_paper: bool) -> None:
    for script in (Script(answer), Script(ProposerError(answer))):
        for exchange in ask(script, reproduce_paper=reproduce_paper).exchanges:
            fields = {name: getattr(exchange, name) for name in exchange.__slots__} | {"texts": list(exchange.texts)}
            row = ExchangeRow(trial_id="t", stage=1, proposer="p", **fields)
            assert ROW.validate_json(row.model_dump_json()) == row
