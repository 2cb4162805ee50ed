"""Label phrases on a server that repeats its prompt: what is sent, what is read of the answers, what is refused."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from completions_server import Asked, CompletionsServer, Reply, answered, refusal
from tiny_models import batch_of

from distributed_tuner.clients.openai_answers import Unusable
from distributed_tuner.config.oracle import OpenAIOracleConfig
from distributed_tuner.errors import ModelError, TaskError
from distributed_tuner.oracles.cost_model import build_counter
from distributed_tuner.oracles.served.openai import OpenAIOracle
from distributed_tuner.oracles.served.phrases import phrase_score
from distributed_tuner.prompts.spec import NO_ROWS
from distributed_tuner.values import Request, Text

WORDS = (" not good", " good", " really not good")
BATCH = replace(batch_of(["a good film", "bad"]), label_words=WORDS, label_rule="sum")
TEXTS = (Text("Classify the movie review"), Text(""))
Make = Callable[..., OpenAIOracle]


def repeated(asked: Asked, begin: str = "", written: str = " and") -> Reply:
    """Return what vLLM's server answers with ``echo``: the words of the prompt as tokens, each as likely as it is
    long, the first without."""
    tokens = [*([begin] if begin else []), *re.findall(r"\s?\S+|\n", asked.prompt), written]
    values = [None, *(-0.5 * len(token) for token in tokens[1:])]
    told = {"tokens": tokens, "token_logprobs": values, "top_logprobs": [None] * len(tokens)}
    choice = {"index": 0, "finish_reason": "length", "text": asked.prompt + written, "logprobs": told}
    usage = {"prompt_tokens": len(tokens) - 1, "completion_tokens": 1, "total_tokens": len(tokens)}
    return Reply(json.dumps({"id": "x", "choices": [choice], "usage": usage}))


def test_every_phrase_is_asked_behind_the_line(make: Make, server: CompletionsServer) -> None:
    server.answer = repeated
    answer = make().evaluate(Request(TEXTS, BATCH, NO_ROWS))
    assert sorted(asked.prompt for asked in server.asked if asked.prompt.startswith("bad")) == [
        "bad It was good",
        "bad It was not good",
        "bad It was really not good",
    ]
    assert len(server.asked) == 2 * 2 * len(WORDS)
    rest = {key: value for key, value in server.asked[0].body.items() if key != "prompt"}
    assert rest == {"model": "m", "max_tokens": 1, "temperature": 0.0, "logprobs": 1, "echo": True}
    sums = [-0.5 * len(word) for word in WORDS]
    np.testing.assert_allclose(answer.logits, np.broadcast_to(sums, (2, 2, 3)), rtol=1e-6)
    mean = make().evaluate(Request(TEXTS, replace(BATCH, label_rule="mean"), NO_ROWS))
    means = [value / len(word.split()) for value, word in zip(sums, WORDS, strict=True)]
    np.testing.assert_allclose(mean.logits, np.broadcast_to(means, (2, 2, 3)), rtol=1e-6)


def test_what_the_server_reports_is_booked_and_never_exceeds_the_projection(
    make: Make, server: CompletionsServer, tokenizer_directory: str
) -> None:
    server.answer = repeated
    request = Request(TEXTS, BATCH, NO_ROWS)
    for settings in ({}, {"tokenizer": tokenizer_directory}):
        oracle = make(**settings)
        cost = oracle.evaluate(request).cost
        words = [
            len(f"{text.text} {e.text} It was{w}".split()) for text in TEXTS for e in BATCH.examples for w in WORDS
        ]
        assert cost.tokens == sum(words) + len(words)  # and one that is written
        assert (cost.queries, cost.forwards) == (2, 4)
        assert oracle.cost(request).tokens >= cost.tokens
    config = OpenAIOracleConfig(model="m", base_url=server.url, api="completions", tokenizer=tokenizer_directory)
    counter = build_counter(config)
    single = replace(request, batch=replace(BATCH, label_rule="first"))
    assert counter.seconds(request) == len(WORDS) * counter.seconds(single)


def test_single_words_are_asked_as_ever_where_the_tokenizer_says_so(
    make: Make, server: CompletionsServer, tokenizer_directory: str
) -> None:
    batch = replace(BATCH, label_words=(" great", " terrible", " bad"), label_rule="mean")
    make(tokenizer=tokenizer_directory).evaluate(Request(TEXTS, batch, NO_ROWS))
    assert len(server.asked) == 4
    assert "echo" not in server.asked[0].body


# --------------------------------------------------------------------------------------------------- what is read
def choice(tokens: Any, values: Any = None, text: str = "") -> dict[str, Any]:
    values = [-1.0] * len(tokens) if values is None else values
    return {"text": text, "logprobs": {"tokens": tokens, "token_logprobs": values}}


@pytest.mark.parametrize(
    "tokens",
    [
        ["<s>", "a", " film", " It", " was", " not", " good", " and"],
        ["\u2581a", "\u2581film", "\u2581It", "\u2581was", "\u2581not", "\u2581good", "\u2581and"],
        ["a", "\u0120film", "\u0120It", "\u0120was", "\u0120not", "\u0120good"],
    ],
)
def test_the_phrases_tokens_are_found_by_their_text(tokens: list[str]) -> None:
    values = [-2.0 if token.strip("\u2581\u0120 ") in ("not", "good") else -9.0 for token in tokens]
    assert phrase_score(choice(tokens, values), "a film It was", " not good", "sum") == -4.0
    assert phrase_score(choice(tokens, values), "a film It was", " not good", "mean") == -2.0


def test_a_character_that_is_parted_hides_no_phrase() -> None:
    line, phrase = "caf\u00e9 good It was", " good"
    tokens = ["caf", "\ufffd", "\ufffd", " good", " It", " was", " good", " good"]
    found = choice(tokens, [-9, -9, -9, -8, -9, -9, -1, -7], line + phrase + " good")
    assert phrase_score(found, line, phrase, "sum") == -1.0


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ({"text": "x", "logprobs": None}, "holds no logprobs of the prompt"),
        (choice([" and"]), "does not repeat the prompt"),
        (choice(["a film It", " was not", " good"]), "as one token"),
        (choice(["a film It was", " not", " good"], [None, None, -1.0]), "no logprobs of some tokens"),
        (choice(["a film It was", " not", " good"], [None, "x", -1.0]), "no logarithm of a probability"),
    ],
)
def test_an_answer_that_does_not_tell_is_no_score(answer: Any, why: str) -> None:
    with pytest.raises(Unusable, match=why):
        phrase_score(answer, "a film It was", " not good", "sum")


# --------------------------------------------------------------------------------------------------- what is refused
def test_a_server_without_echo_ends_the_run_with_the_next_move(make: Make, server: CompletionsServer) -> None:
    request = Request(TEXTS, BATCH, NO_ROWS)
    server.answer = lambda asked: answered(asked, {" great": -0.1})
    with pytest.raises(
        ModelError, match=r"label_rule: first, or oracle.scores: generated .* oracle.kind: transformers"
    ):
        make().evaluate(request)
    server.answer = lambda asked: refusal(400, "echo is not supported with logprobs", "echo")
    with pytest.raises(ModelError, match=r"echo with logprobs\), which this one does not: set task.label_rule: first"):
        make().evaluate(request)


def test_what_cannot_be_asked_is_refused_before(
    make: Make, server: CompletionsServer, tokenizer_directory: str
) -> None:
    def ask(batch: Any = BATCH, **settings: Any) -> None:
        make(**settings).evaluate(Request(TEXTS, batch, NO_ROWS))

    with pytest.raises(ModelError, match=r"a chat tells no log-probabilities .* set oracle.api: completions"):
        ask(api="chat")
    with pytest.raises(ModelError, match=r"a chat tells no log-probabilities .* set oracle.api: completions"):
        ask(api="chat", tokenizer=tokenizer_directory)
    with pytest.raises(TaskError, match="label words must differ, but ' good' is there twice"):
        ask(replace(BATCH, label_words=(" good", " good")))
    with pytest.raises(ModelError, match="scores of label words alone"):
        ask(replace(BATCH, answer_words=(" film",)))
    assert server.asked == []
