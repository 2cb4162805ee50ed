"""Conformance of proposers: every member passes the shipped suite. A new member is one case in MEMBERS."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer, completion
from pydantic import TypeAdapter

from distributed_tuner import proposers
from distributed_tuner.config.proposer import ProposerConfig
from distributed_tuner.errors import ProposerError
from distributed_tuner.proposers.base import Ask, Proposer
from distributed_tuner.testing import ProposerSuite
from distributed_tuner.testing.proposers import KEY, WORDS, MadeUpModel

MEMBERS: dict[str, Callable[[pytest.FixtureRequest], dict[str, Any]]] = {
    "openai": lambda get: {"model": "m", "base_url": get.getfixturevalue("server").url, "attempts": 1},
    "local": lambda get: {"model": str(get.getfixturevalue("chat_model")), "max_tokens": 12},
    "vllm": lambda get: {"max_tokens": 12},
    "random": lambda get: {},
    "replay": lambda get: {"ledger": get.getfixturevalue("recorded").name},
}
FAILING: dict[str, dict[str, Any]] = {
    "openai": {"base_url": "http://127.0.0.1:9/v1"},
    "local": {"max_tokens": 1000},
    "vllm": {"max_tokens": 1000},
    "random": {},
    "replay": {},
}


def test_every_kind_is_a_member() -> None:
    mapping = TypeAdapter(ProposerConfig).json_schema()["discriminator"]["mapping"]
    assert set(mapping) == {*MEMBERS, "custom"}


class TestEveryProposer(ProposerSuite):
    @pytest.fixture(params=sorted(MEMBERS))
    def kind(self, request: pytest.FixtureRequest) -> str:
        name: str = request.param
        return name

    @pytest.fixture
    def build(
        self, kind: str, request: pytest.FixtureRequest, server: ChatServer, recorded: Path
    ) -> Callable[..., Proposer]:
        """Return proposers of one kind; ``words``: what random prompts are made of."""
        server.replies = [completion("1. Classify the review\n2. Judge the mood")]

        def built(words: tuple[str, ...] = WORDS, **more: Any) -> Proposer:
            config: ProposerConfig = TypeAdapter(ProposerConfig).validate_python(
                {"kind": kind} | MEMBERS[kind](request) | more
            )
            return proposers.build(config, root=recorded.parent, tuned=MadeUpModel(vocabulary=words))

        return built

    def test_other_requests_have_other_answers(
        self, kind: str, build: Callable[..., Proposer], server: ChatServer
    ) -> None:
        proposer = build()
        for key in (KEY, ("zot+local-0000", 1, 1), ("zot+local-0001", 1, 0)):
            proposer.answer(Ask("Write two prompts.", 2, key))
        if kind == "openai":  # the answers are the server's; it gets another seed for each
            assert len({body["seed"] for body in server.bodies}) == 3
            return
        texts = [
            proposer.answer(Ask("Write two prompts.", 2, key)).text
            for key in (KEY, ("zot+local-0000", 1, 1), ("zot+local-0001", 1, 0))
        ]
        assert len(set(texts)) == 3

    def test_what_goes_wrong_is_a_proposer_error_that_crosses_processes(
        self, kind: str, build: Callable[..., Proposer]
    ) -> None:
        proposer = build(words=(), **FAILING[kind])
        with pytest.raises(ProposerError) as caught:
            proposer.answer(Ask("Write two prompts.", 2, ("zot-0009", 7, 0)))
        again = pickle.loads(pickle.dumps(caught.value))
        assert type(again) is ProposerError
        assert str(again) == str(caught.value) != ""
