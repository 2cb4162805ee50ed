"""Answers that a server generates: what is asked, what counts as a text, and what a server that misbehaves costs."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from completions_server import Asked, CompletionsServer, Reply, answered, refusal
from tiny_models import SPEC, batch_of, make_tokenizer

from distributed_tuner.config.oracle import Price
from distributed_tuner.errors import ModelError
from distributed_tuner.oracles.cost_model import build_counter
from distributed_tuner.oracles.served.openai import OpenAIOracle
from distributed_tuner.prompts.spec import NO_ROWS
from distributed_tuner.values import Decoding, Point, Request, Text

TEXTS = (Text("Name the film"), Text(""))
BATCH = batch_of(["a good film", "bad"])
OUTPUT = {"prompt_tokens": 20, "completion_tokens": 3, "total_tokens": 23}

Make = Callable[..., OpenAIOracle]


WANTED = (("film", "bad"),) * 2


def asking(batch: Any = BATCH, **how: Any) -> Request:
    decoding = Decoding(**({"max_new_tokens": 8} | how))
    return Request(TEXTS, replace(batch, label_words=(), decoding=decoding), NO_ROWS)


def echo(asked: Asked) -> Reply:
    """Answer with the text's last word, and go on."""
    return answered(asked, None, f" {asked.prompt.split()[-3]}\nand more", usage=OUTPUT)


# --------------------------------------------------------------------------------------------------- what is sent
@pytest.mark.parametrize("api", ["completions", "chat"])
def test_texts_are_asked_for_with_their_limits(api: str, make: Make, server: CompletionsServer) -> None:
    server.answer = echo
    answer = make(api=api).evaluate(asking(stop=("\n", "END", "B", "C", "z"), temperature=0.5, seed=3))
    assert answer.texts == WANTED
    bodies = [dict(asked.body) for asked in server.asked]
    seeds = {body.pop("seed") for body in bodies}
    for body in bodies:
        body.pop("prompt", None), body.pop("messages", None)
        assert body == {"model": "m", "max_tokens": 8, "temperature": 0.5, "stop": ["\n", "END", "B", "C"]}
    assert len(seeds) == 4


def test_a_greedy_request_has_no_seed_and_a_text_no_stop_string(make: Make, server: CompletionsServer) -> None:
    server.answer = echo
    answer = make().evaluate(asking())
    assert answer.texts == WANTED
    assert all("seed" not in asked.body and asked.body["temperature"] == 0.0 for asked in server.asked)
    assert answer.counts == {}
    assert answer.logits.shape == (2, 2, 0)


def test_a_model_that_reasons_first_gets_more_tokens_and_no_stop_string(make: Make, server: CompletionsServer) -> None:
    thought = "<think>\nwell, a film\n</think>\n\nThe film\nbecause"
    server.answer = lambda asked: answered(asked, None, thought, usage=OUTPUT)
    oracle = make(api="chat", max_tokens=500)
    answer = oracle.evaluate(asking())
    assert answer.texts == (("The film",) * 2,) * 2
    assert {asked.body["max_tokens"] for asked in server.asked} == {500}
    assert not any("stop" in asked.body for asked in server.asked)
    assert oracle.cost(asking()).output_tokens == 4 * 500


def test_a_server_that_takes_no_stop_strings_is_asked_without(make: Make, server: CompletionsServer) -> None:
    def answer(asked: Asked) -> Reply:
        if "stop" in asked.body:
            return refusal(400, "Unsupported parameter: 'stop' is not supported with this model.", param="stop")
        return echo(asked)

    server.answer = answer
    found = make(concurrency=1).evaluate(asking())
    assert all(text and "\n" not in text for row in found.texts for text in row)
    assert sum("stop" in asked.body for asked in server.asked) == 1


# --------------------------------------------------------------------------------------------------- what is billed
def test_output_tokens_are_bounded_before_and_billed_as_told(
    make: Make, settings: Any, server: CompletionsServer
) -> None:
    price = Price(usd_per_million_input_tokens=1.0, usd_per_million_output_tokens=10.0)
    server.answer = echo
    oracle = make(price=price)
    bound, cost = oracle.cost(asking()), oracle.evaluate(asking()).cost
    assert bound == build_counter(settings(price=price)).cost(asking())
    assert bound.output_tokens == 4 * 8
    assert (cost.queries, cost.forwards, cost.tokens, cost.output_tokens) == (2, 4, 4 * 23, 4 * 3)
    assert cost.usd == pytest.approx(4 * (20 + 3 * 10) / 1e6)


# --------------------------------------------------------------------------------------------------- what comes back
def one_bad(server: CompletionsServer, reply: Callable[[Asked], Reply]) -> None:
    server.answer = lambda asked: reply(asked) if asked.prompt == "bad It was" else echo(asked)


def test_an_empty_text_is_an_answer(make: Make, server: CompletionsServer) -> None:
    one_bad(server, lambda asked: answered(asked, None, "", usage=OUTPUT))
    answer = make().evaluate(asking())
    assert answer.texts[1][1] == ""
    assert answer.counts == {}


def test_no_tokens_left_for_a_text_is_a_failed_example(make: Make, server: CompletionsServer) -> None:
    one_bad(server, lambda asked: answered(asked, None, "", finish="length"))
    answer = make().evaluate(asking())
    assert answer.texts[1][1] is None
    assert answer.counts == {"unusable_answers": 1, "failed_answers": 1}
    assert [kind for kind, _ in answer.remarks] == ["unusable_answer"]


def test_what_a_filter_keeps_back_is_an_empty_text_and_counted(make: Make, server: CompletionsServer) -> None:
    one_bad(server, lambda asked: answered(asked, None, "x", finish="content_filter"))
    answer = make().evaluate(asking())
    assert answer.texts[1][1] == ""
    assert answer.counts == {"refused_examples": 1}
    assert "is refused, by a filter" in answer.remarks[0][1]


def test_a_server_that_cuts_answers_is_told_of_and_the_text_kept(make: Make, server: CompletionsServer) -> None:
    one_bad(server, lambda asked: answered(asked, None, " half of", finish="length", usage=OUTPUT))
    answer = make().evaluate(asking())
    assert answer.texts[1][1] == "half of"
    assert answer.counts == {"cut_answers": 1}
    assert "1 of 4 answers" in dict(answer.remarks)["cut_answer"]
    full = OUTPUT | {"completion_tokens": 8}
    one_bad(server, lambda asked: answered(asked, None, " all of it", finish="length", usage=full))
    assert make().evaluate(asking()).counts == {}


def test_a_server_without_texts_ends_the_run(make: Make, server: CompletionsServer) -> None:
    server.answer = lambda asked: Reply('{"choices": [{"index": 0, "finish_reason": "stop"}]}')
    with pytest.raises(ModelError, match=r"an answer must hold a text, but each of 4 from .* holds no text; check"):
        make(attempts=1).evaluate(asking())


def test_a_busy_server_is_asked_again(make: Make, server: CompletionsServer) -> None:
    left = [refusal(429), refusal(503)]
    server.answer = lambda asked: left.pop() if left else echo(asked)
    answer = make(concurrency=1).evaluate(asking())
    assert len(server.asked) == 6
    assert all(text for row in answer.texts for text in row)


# --------------------------------------------------------------------------------------------------- bad input
def test_prompt_and_answer_must_fit_where_the_context_is_known(
    make: Make, server: CompletionsServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer = make_tokenizer(bos=False)
    tokenizer.model_max_length = 40
    tokenizer.save_pretrained(folder)
    oracle = make(tokenizer=str(folder))
    with pytest.raises(ModelError, match="context of 40 tokens"):
        oracle.evaluate(asking(max_new_tokens=39))
    server.answer = echo
    assert oracle.evaluate(asking(max_new_tokens=4)).texts


SOFT = Point(np.zeros(SPEC.length * 8, dtype=np.float32))


@pytest.mark.parametrize("more", [{"gradient": True}, {"candidates": (SOFT,), "prompt": SPEC}])
def test_what_a_server_cannot_generate_is_refused(more: dict[str, Any], make: Make) -> None:
    with pytest.raises(ModelError, match=r"no gradient|takes no embeddings"):
        make().evaluate(replace(asking(), **more))
