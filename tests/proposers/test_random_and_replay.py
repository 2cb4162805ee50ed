"""The proposers without a model: random words, and answers of an earlier run."""

import json
from pathlib import Path

import pytest
from tuned_models import WORDS, MadeUpModel

from distributed_tuner.config.proposer import RandomProposerConfig
from distributed_tuner.errors import ConfigError, ProposerError
from distributed_tuner.proposers.base import Ask
from distributed_tuner.proposers.parsing import parse
from distributed_tuner.proposers.random import FEWEST, MOST, RandomProposer
from distributed_tuner.proposers.replay import ReplayProposer
from distributed_tuner.values import Answer


# --------------------------------------------------------------------------------------------------- random
def test_random_prompts_are_made_of_the_words() -> None:
    proposer = RandomProposer(RandomProposerConfig(kind="random"), MadeUpModel())
    texts = [text for stage in range(20) for text in parse(proposer.answer(Ask("", 5, ("t", stage, 0))).text, 5)]
    assert len(texts) == 100
    counts = {len(text.split()) for text in texts}
    assert counts == set(range(FEWEST, MOST + 1))
    used = {word for text in texts for word in text.split()}
    assert used == {word.strip() for word in WORDS}


def test_words_are_not_asked_for_before_they_are_needed() -> None:
    class Mute(MadeUpModel):
        def words(self) -> tuple[str, ...]:
            raise AssertionError

    assert RandomProposer(RandomProposerConfig(kind="random"), Mute()).label == "random"


def test_without_words_there_is_no_answer() -> None:
    with pytest.raises(ProposerError, match="choose another proposer"):
        RandomProposer(RandomProposerConfig(kind="random"), MadeUpModel(vocabulary=())).answer(Ask("", 5, ("t", 0, 0)))


# --------------------------------------------------------------------------------------------------- replay
def test_answers_are_found_by_trial_stage_and_number(recorded: Path) -> None:
    proposer = ReplayProposer(recorded)
    first = proposer.answer(Ask("", 3, ("zot+local-0000", 1, 0)))
    assert first == Answer("1. Classify the review\n2. Judge the mood", 11, 7, 0.5, 0.25)
    assert proposer.answer(Ask("", 3, ("zot+local-0000", 1, 1))).text == "Name the tone"
    assert proposer.answer(Ask("", 3, ("zot+local-0001", 1, 0))).text == "no list here:"  # a bad answer is an answer
    assert proposer.label == f"replay {recorded.parent.name}/ledger.jsonl"


def test_a_trial_of_another_method_is_found_by_its_index(recorded: Path) -> None:
    proposer = ReplayProposer(recorded)
    assert proposer.answer(Ask("", 3, ("zot+replay-0000", 1, 1))).text == "Name the tone"
    assert proposer.answer(Ask("", 3, ("zot+replay-0001", 1, 0))).text == "no list here:"


def test_recorded_failures_fail_again(recorded: Path) -> None:
    with pytest.raises(ProposerError, match=r"^the server cannot be reached$"):
        ReplayProposer(recorded).answer(Ask("", 3, ("zot+local-0000", 3, 0)))


@pytest.mark.parametrize(
    "key", [("zot+local-0000", 1, 2), ("zot+local-0000", 5, 0), ("zot+local-0002", 1, 0), ("", 1, 0)]
)
def test_what_was_not_recorded(key: tuple[str | int, ...], recorded: Path) -> None:
    with pytest.raises(ProposerError, match="there is none for"):
        ReplayProposer(recorded).answer(Ask("", 3, key))


def test_the_ledger_of_a_whole_run_will_do(recorded: Path) -> None:
    event = {"type": "event", "time": 0.0, "kind": "k", "message": "m"}
    recorded.write_text(json.dumps(event) + "\n" + recorded.read_text())
    assert ReplayProposer(recorded).answer(Ask("", 3, ("zot+local-0000", 1, 1))).text == "Name the tone"


def test_what_is_no_ledger(tmp_path: Path) -> None:
    (tmp_path / "other.jsonl").write_text('{"a": 1}\n')
    for name in ("none.jsonl", "other.jsonl"):
        with pytest.raises(ConfigError, match=r"proposer\.ledger must be a ledger"):
            ReplayProposer(tmp_path / name)
