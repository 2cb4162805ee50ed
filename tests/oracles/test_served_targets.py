"""Likelihoods of targets on a server that repeats its prompt; chats and embeddings are refused."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from completions_server import CompletionsServer, answered
from test_served_phrases import TEXTS, repeated
from tiny_models import SPEC, batch_of

from distributed_tuner.errors import ModelError
from distributed_tuner.oracles.served.openai import OpenAIOracle
from distributed_tuner.prompts.spec import NO_ROWS
from distributed_tuner.values import Batch, Request

Make = Callable[..., OpenAIOracle]
TARGETS = (" a long film", " short\n")


def targeted(per: Any = "token") -> Batch:
    examples = batch_of(["a good film", "bad"]).examples
    told = tuple(replace(e, label=0, target=t) for e, t in zip(examples, TARGETS, strict=True))
    return Batch(told, (), "train", per=per)


@pytest.mark.parametrize("per", ["token", "example"])
def test_each_target_is_one_request_behind_its_line(per: Any, make: Make, server: CompletionsServer) -> None:
    server.answer = repeated
    answer = make().evaluate(Request(TEXTS, targeted(per), NO_ROWS))
    assert sorted(asked.prompt for asked in server.asked if "bad" in asked.prompt) == [
        "Classify the movie review\nbad It was short\n",
        "bad It was short\n",
    ]
    assert all(asked.body["echo"] for asked in server.asked) and len(server.asked) == 4
    sums = np.array([0.5 * len(target) for target in TARGETS])
    wanted = sums / [3, 2] if per == "token" else sums  # tokens
    assert answer.logits.shape == (2, 2, 1)
    np.testing.assert_allclose(answer.example_losses, np.broadcast_to(wanted, (2, 2)), rtol=1e-6)


def test_the_projection_holds_what_is_booked(make: Make, server: CompletionsServer, tokenizer_directory: str) -> None:
    server.answer = repeated
    request = Request(TEXTS, targeted(), NO_ROWS)
    for settings in ({}, {"tokenizer": tokenizer_directory}):
        oracle = make(**settings)
        cost = oracle.evaluate(request).cost
        assert (cost.queries, cost.forwards) == (2, 4) and oracle.cost(request).tokens >= cost.tokens


def test_what_tells_no_likelihoods_is_refused_with_the_next_move(make: Make, server: CompletionsServer) -> None:
    with pytest.raises(ModelError, match=r"a chat tells no log-probabilities of texts .* set objective: metric"):
        make(api="chat").evaluate(Request(TEXTS, targeted(), NO_ROWS))
    with pytest.raises(ModelError, match=r"a server with scores: generated tells no log-probabilities"):
        make(scores="generated").evaluate(Request(TEXTS, targeted(), NO_ROWS))
    assert server.asked == []


def test_soft_prompts_have_no_likelihoods(
    make: Make, server: CompletionsServer, tiny_directory: Callable[..., Any]
) -> None:
    oracle = make(prompt_embeds=True, embeddings=str(tiny_directory("llama")))
    with pytest.raises(ModelError, match="texts behind embeddings, as soft prompts with objective: likelihood"):
        oracle._text.require(targeted(), SPEC)


def test_an_answer_without_logprobs_fails_its_example(make: Make, server: CompletionsServer) -> None:
    server.answer = lambda asked: repeated(asked) if "bad" in asked.prompt else answered(asked, {" x": -1.0})
    answer = make().evaluate(Request(TEXTS, targeted(), NO_ROWS))
    assert np.isnan(answer.losses).all() and np.isfinite(answer.example_losses[:, 1]).all()
    assert answer.counts["unusable_answers"] == 2
