"""Fixtures of the proposers: a chat server, a tiny random chat model, a recorded run."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from chat_server import ChatServer, chat_server
from tiny_models import save_tiny

from distributed_tuner.ledger.rows import ExchangeRow

CHAT = (
    "{% for message in messages %}{{ message['content'] }}{% endfor %}{% if add_generation_prompt %} It was{% endif %}"
)


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server() as state:
        yield state


@pytest.fixture(scope="session")
def plain_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny random model without a chat template; its context is 128 tokens."""
    return save_tiny("llama", tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="session")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny random model with a chat template."""
    directory = save_tiny("llama", tmp_path_factory.mktemp("chat"))
    (directory / "chat_template.jinja").write_text(CHAT)
    return directory


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """Return a file of exchange rows alone: an answer, one of another request, a failure, a bad answer."""
    answers = [
        ("zot+local-0000", 1, 0, "1. Classify the review\n2. Judge the mood", ""),
        ("zot+local-0000", 1, 1, "Name the tone", ""),
        ("zot+local-0000", 3, 0, "", "the server cannot be reached"),
        ("zot+local-0001", 1, 0, "no list here:", "the answer holds no prompt"),
    ]
    rows = [
        ExchangeRow(
            trial_id=trial,
            stage=stage,
            number=number,
            proposer="local m",
            instruction="Write.",
            answer=answer,
            texts=[],
            problem=problem,
            input_tokens=11,
            output_tokens=7,
            seconds=0.5,
            usd=0.25,
        )
        for trial, stage, number, answer, problem in answers
    ]
    path = tmp_path / "ledger.jsonl"
    path.write_text("".join(row.model_dump_json() + "\n" for row in rows))
    return path
