"""A chat model on this machine: what it is asked, what makes its answers repeat, and where there is no room."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from distributed_tuner.config.proposer import LocalProposerConfig
from distributed_tuner.errors import ModelError, ProposerError
from distributed_tuner.proposers.base import Ask
from distributed_tuner.proposers.instruction import Briefing
from distributed_tuner.proposers.local import LocalProposer
from distributed_tuner.proposers.propose import propose

ROOT = Path(__file__).resolve().parents[2]
KEY = ("zot-0000", 1, 0)
ASK = Ask("Classify this movie review", 2, KEY)


def make(model: Path | str, **more: Any) -> LocalProposer:
    return LocalProposer(LocalProposerConfig(kind="local", model=str(model), **({"max_tokens": 12} | more)))


def test_it_generates_and_counts(chat_model: Path) -> None:
    answer = make(chat_model).answer(ASK)
    assert 1 <= answer.output_tokens <= 12
    assert answer.text
    assert answer.seconds > 0
    assert answer.usd == 0


def test_a_chat_template_is_used_where_there_is_one(chat_model: Path, plain_model: Path) -> None:
    with_template, plain = make(chat_model).answer(ASK), make(plain_model).answer(ASK)
    assert with_template.input_tokens == plain.input_tokens + 1  # " It was" in place of a line break
    assert with_template.text != plain.text


def test_answers_follow_from_the_key(chat_model: Path) -> None:
    import torch

    proposer = make(chat_model)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = proposer.answer(ASK).text
    assert torch.equal(torch.get_rng_state(), before)  # nobody else's numbers change
    torch.manual_seed(2)
    assert proposer.answer(ASK).text == first
    others = {proposer.answer(Ask(ASK.instruction, 2, (f"zot-{i:04d}", 1, 0))).text for i in range(4)}
    assert len(others) == 4
    assert first in others
    assert proposer.answer(Ask(ASK.instruction, 2, ("zot-0000", 1, 1))).text != first


@pytest.mark.slow
def test_a_fresh_process_gives_the_same_answer(chat_model: Path) -> None:
    code = f"""
from distributed_tuner.config.proposer import LocalProposerConfig
from distributed_tuner.proposers.base import Ask
from distributed_tuner.proposers.local import LocalProposer
config = LocalProposerConfig(kind="local", model={str(chat_model)!r}, max_tokens=12)
print(ascii(LocalProposer(config).answer(Ask({ASK.instruction!r}, 2, {KEY!r})).text))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == ascii(make(chat_model).answer(ASK).text)


def test_without_temperature_the_key_does_not_matter(chat_model: Path) -> None:
    proposer = make(chat_model, temperature=0)
    assert proposer.answer(ASK).text == proposer.answer(Ask(ASK.instruction, 2, ("other", 3, 1))).text


def test_instruction_and_answer_must_fit_into_the_context(chat_model: Path) -> None:
    long = Ask("Classify the review " * 40, 2, KEY)
    with pytest.raises(ProposerError, match=r"128 tokens, but they may have \d+ \+ 12; lower proposer\.max_tokens"):
        make(chat_model).answer(long)


def test_a_model_that_fails_to_generate_is_a_proposer_that_has_no_answer(chat_model: Path) -> None:
    import torch

    proposer = make(chat_model)
    with torch.no_grad():
        next(iter(proposer._model.parameters())).fill_(float("nan"))
    with pytest.raises(ProposerError, match="could not generate"):
        proposer.answer(ASK)


def test_a_model_that_is_not_there() -> None:
    with pytest.raises(ModelError, match="no/such"):
        make("./no/such/model")


@pytest.mark.model
def test_smollm2_proposes_prompts() -> None:
    briefing = Briefing(
        "Say whether a movie review is positive or negative.",
        (" terrible", " great"),
        (("Read this and answer.", 0.9, 0.5), ("Is this movie review good or bad?", 0.5, 0.8)),
        "accuracy",
        12,
        3,
    )
    config = LocalProposerConfig(kind="local", max_tokens=80)
    proposer = LocalProposer(config)
    results = [
        propose(proposer, briefing, ("zot-0000", stage), settings=config, calls=None, usd=None, known=set())
        for stage in (1, 1, 3)
    ]
    assert all(result.texts for result in results)
    assert results[0].texts == results[1].texts != results[2].texts
    assert proposer.label == "local smollm2-135m"
