"""Conformance suite of proposers."""

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

from distributed_tuner import proposers
from distributed_tuner.config.proposer import CustomProposerConfig
from distributed_tuner.custom import path_of
from distributed_tuner.oracles.generation import require_room
from distributed_tuner.proposers.base import Ask, Proposer
from distributed_tuner.seeds import Key, generator
from distributed_tuner.values import Answer, Sampling

KEY: Key = ("zot+local-0000", 1, 0)
OTHER: Key = ("zot+local-0000", 1, 1)
WORDS = tuple(f" word{i}" for i in range(40))

Build = Callable[..., Proposer]


@dataclass
class MadeUpModel:
    """A tuned model that writes some of its words, by the seed. ``context``: in words. ``asked``: what it was asked."""

    name: str = "made-up"
    vocabulary: tuple[str, ...] = WORDS
    context: int = 128
    asked: list[Sampling] = field(default_factory=list)

    def words(self) -> tuple[str, ...]:
        return self.vocabulary

    def write(self, instruction: str, sampling: Sampling) -> Answer:
        self.asked.append(sampling)
        count = len(instruction.split())
        require_room(count, sampling, self.context)
        drawn = generator((sampling.seed,)).choice(self.vocabulary, 5)
        return Answer("Say" + "".join(drawn), count, 6, 0.25, 0.001)


class ProposerSuite:
    """Tests of one proposer. part: its class. settings: what it is made with."""

    part: ClassVar[type]
    settings: ClassVar[Mapping[str, Any]] = {}

    @pytest.fixture
    def kind(self) -> str:
        """Return the kind that its label begins with."""
        return "custom"

    @pytest.fixture
    def build(self) -> Build:
        """Return what builds the proposer anew."""
        config = CustomProposerConfig(import_path=path_of(self.part), settings=dict(self.settings))
        return lambda: proposers.build(config, root=Path(), tuned=MadeUpModel())

    def test_its_label_begins_with_its_kind(self, kind: str, build: Build) -> None:
        label = build().label
        assert label.split()[0] == kind
        assert label.isprintable()

    def test_it_answers_in_words_and_counts_what_it_took(self, build: Build) -> None:
        answer = build().answer(Ask("Write two prompts.", 2, KEY))
        assert isinstance(answer, Answer)
        assert answer.text
        assert min(answer.input_tokens, answer.output_tokens, answer.seconds, answer.usd) >= 0
        assert pickle.loads(pickle.dumps(answer)) == answer

    def test_the_same_ask_has_the_same_answer_whatever_was_asked_before(self, build: Build) -> None:
        ask, other = Ask("Write two prompts.", 2, KEY), Ask("Write two prompts.", 2, OTHER)
        one, two = build(), build()
        two.answer(other)
        assert one.answer(ask).text == two.answer(ask).text == one.answer(ask).text
