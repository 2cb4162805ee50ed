"""The oracle that asks a server: what it sends, what it makes of the answers, what it bills, how it paces itself."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from completions_server import USAGE, Asked, CompletionsServer, Reply, answered, refusal
from tiny_models import MIXED, SPEC, batch_of, make_tokenizer

from distributed_tuner.config.oracle import OpenAIOracleConfig
from distributed_tuner.errors import ModelError, TaskError
from distributed_tuner.oracles.codec import codec_of
from distributed_tuner.oracles.cost_model import build_counter
from distributed_tuner.oracles.served.openai import OpenAIOracle
from distributed_tuner.oracles.served.rate_limit import Rate
from distributed_tuner.prompts.spec import NO_ROWS
from distributed_tuner.values import Batch, Candidate, Point, PromptSpec, Request, Text, TokenSpace

BATCH = batch_of(["a good film", "bad"])
TEXTS = (Text("Classify the movie review"), Text(""))

Make = Callable[..., OpenAIOracle]


def request(candidates: tuple[Candidate, ...] = TEXTS, batch: Batch = BATCH, spec: PromptSpec = NO_ROWS) -> Request:
    return Request(candidates, batch, spec)


# --------------------------------------------------------------------------------------------------- what is sent
def test_completions_go_on_after_the_cue(make: Make, server: CompletionsServer) -> None:
    answer = make(top_logprobs=5).evaluate(request())
    assert sorted(asked.prompt for asked in server.asked) == [
        "Classify the movie review\na good film It was",
        "Classify the movie review\nbad It was",
        "a good film It was",
        "bad It was",
    ]
    assert {asked.path for asked in server.asked} == {"/v1/completions"}
    assert {asked.key for asked in server.asked} == {"Bearer sk-RECOGNISABLE-0123456789"}
    rest = {key: value for key, value in server.asked[0].body.items() if key != "prompt"}
    assert rest == {"model": "m", "max_tokens": 1, "temperature": 0.0, "logprobs": 5}
    assert answer.counts == {}


def test_chats_get_one_message_and_answer_without_the_space(make: Make, server: CompletionsServer) -> None:
    server.answer = lambda asked: answered(asked, {"great": -0.2, "terrible": -1.7, "The": -3.0})
    answer = make(api="chat").evaluate(request())
    assert {asked.path for asked in server.asked} == {"/v1/chat/completions"}
    body = next(asked.body for asked in server.asked if asked.prompt == "bad It was")
    assert body.pop("messages") == [{"role": "user", "content": "bad It was"}]
    assert body == {"model": "m", "max_tokens": 1, "temperature": 0.0, "logprobs": True, "top_logprobs": 20}
    np.testing.assert_allclose(answer.logits, np.broadcast_to([-1.7, -0.2], (2, 2, 2)), rtol=1e-6)


def test_losses_are_those_of_the_label_words_in_the_requests_order(make: Make) -> None:
    answer = make().evaluate(request(batch=MIXED))
    sure = np.array(
        [[1.0 + 0.01 * (len(e.text) + 7 + extra) for e in MIXED.examples] for extra in (len(TEXTS[0].text) + 1, 0)]
    )
    good = np.array(["good" in e.text for e in MIXED.examples])
    logits = np.stack([np.where(good, -0.1 - sure, -0.1), np.where(good, -0.1, -0.1 - sure)], axis=-1)
    np.testing.assert_allclose(answer.logits, logits, rtol=1e-5)
    labels = [example.label for example in MIXED.examples]
    losses = np.log(np.exp(logits).sum(axis=2)) - logits[:, np.arange(len(labels)), labels]
    np.testing.assert_allclose(answer.losses, losses.mean(axis=1), rtol=1e-5)


def test_the_same_request_twice_gives_the_same_bits(make: Make) -> None:
    oracle = make()
    first, second = (oracle.evaluate(request(batch=MIXED)) for _ in range(2))
    assert first.logits.tobytes() == second.logits.tobytes()


def test_absent_label_words_are_counted_and_examples_without_any_tell_nothing(
    make: Make, server: CompletionsServer
) -> None:
    def answer(asked: Asked) -> Reply:
        top = {" great": -0.5, " a": -4.0} if "good" in asked.prompt else {" the": -1.0}
        return answered(asked, top)

    server.answer = answer
    found = make().evaluate(request())
    assert found.logits[:, 0].tolist() == [[-4.0, -0.5]] * 2
    assert np.isneginf(found.logits[:, 1]).all() and np.isfinite(found.losses).all()
    assert found.example_losses[:, 1].tolist() == [pytest.approx(np.log(2))] * 2, "which says nothing for either label"
    assert found.counts == {"absent_labels": 2, "absent_examples": 2, "short_answers": 4}


# --------------------------------------------------------------------------------------------------- in words
@pytest.mark.parametrize("api", ["completions", "chat"])
def test_what_is_written_scores_where_no_probabilities_are_told(
    make: Make, server: CompletionsServer, api: str
) -> None:
    said = {"a good film": "Great!", "bad": "I cannot say"}
    server.answer = lambda asked: answered(asked, None, said[asked.prompt.split("\n")[-1].removesuffix(" It was")])
    batch = batch_of(["a good film", "bad"], loss="zero_one")  # terrible, great
    answer = make(api=api, scores="generated").evaluate(request(batch=batch))
    assert answer.example_losses.tolist() == [[1.0, 1.0]] * 2
    assert answer.counts == {"unmatched_answers": 2}
    said["bad"] = " great"
    assert make(api=api, scores="generated").evaluate(request(batch=batch)).losses.tolist() == [0.5, 0.5]
    assert "logprobs" not in server.asked[0].body
    assert server.asked[0].body["max_tokens"] == 16  # " terrible" has fewer bytes


def test_a_written_answer_has_no_other_loss(make: Make, server: CompletionsServer) -> None:
    with pytest.raises(ModelError, match=r"task\.loss is 'cross_entropy'; set task\.loss: zero_one"):
        make(scores="generated").evaluate(request())
    assert server.asked == []


# --------------------------------------------------------------------------------------------------- with a tokenizer
def test_a_server_that_can_is_asked_for_the_label_words_tokens(
    make: Make, server: CompletionsServer, tokenizer_directory: str
) -> None:
    ids = [make_tokenizer(True)(word, add_special_tokens=False)["input_ids"][0] for word in BATCH.label_words]
    server.answer = lambda asked: answered(asked, {f"token_id:{ids[0]}": -3.0, f"token_id:{ids[1]}": -0.1})
    answer = make(tokenizer=tokenizer_directory).evaluate(request())
    assert server.asked[0].body["logprob_token_ids"] == ids
    assert server.asked[0].body["return_tokens_as_token_ids"] is True
    np.testing.assert_allclose(answer.logits, np.broadcast_to([-3.0, -0.1], (2, 2, 2)), rtol=1e-6)


@pytest.mark.parametrize("param", [None, "logprob_token_ids"])
def test_a_server_that_refuses_that_is_asked_without_from_then_on(
    make: Make, server: CompletionsServer, tokenizer_directory: str, param: str | None
) -> None:
    def answer(asked: Asked) -> Reply:
        if "logprob_token_ids" in asked.body:
            return refusal(400, param=param)
        return answered(asked, {" great": -0.1, " terrible": -2.0})

    server.answer = answer
    oracle = make(tokenizer=tokenizer_directory, concurrency=1)
    for _ in range(2):
        assert oracle.evaluate(request()).logits[0, 0].tolist() == [-2.0, pytest.approx(-0.1)]
    assert ["logprob_token_ids" in asked.body for asked in server.asked] == [True, *[False] * 8]
    assert not any("return_tokens_as_token_ids" in asked.body for asked in server.asked[1:])


def test_a_chat_answers_with_the_bare_word(make: Make, server: CompletionsServer, tokenizer_directory: str) -> None:
    tokenizer = make_tokenizer(True)
    server.answer = lambda asked: answered(asked, {"great": -0.1, " great": -4.0, "terrible": -2.0})
    found = make(api="chat", tokenizer=tokenizer_directory).evaluate(request())
    np.testing.assert_allclose(found.logits[0, 0], [-2.0, -0.1], rtol=1e-6)
    bare = [tokenizer(word.strip(), add_special_tokens=False)["input_ids"][0] for word in BATCH.label_words]
    assert server.asked[0].body["logprob_token_ids"] == bare


def test_tokens_and_words_need_a_tokenizer(make: Make, tokenizer_directory: str) -> None:
    blind, seeing = make(), make(tokenizer=tokenizer_directory)
    assert codec_of(blind).vocabulary(TokenSpace()) == ()
    assert " film" in codec_of(seeing).vocabulary(TokenSpace())
    assert codec_of(seeing).token_count("good film") == 2
    with pytest.raises(ModelError, match=r"set oracle\.tokenizer"):
        codec_of(blind).token_count("good film")


# --------------------------------------------------------------------------------------------------- label words
def test_label_words_must_differ(make: Make, tokenizer_directory: str) -> None:
    same = batch_of(["a good film"])
    with pytest.raises(TaskError, match="may be the beginning of another"):
        make().evaluate(request(batch=Batch(same.examples, (" great", " greatest"), "train")))
    with pytest.raises(TaskError, match="must differ in their token"):
        words = (" greatx", " greaty")
        batch = Batch(same.examples, words, "train", label_rule="first")
        make(tokenizer=tokenizer_directory).evaluate(request(batch=batch))
    with pytest.raises(TaskError, match="must be one token"):
        batch = Batch(same.examples, (" greatx", " terrible"), "train")
        make(tokenizer=tokenizer_directory).evaluate(request(batch=batch))


def test_what_cannot_be_asked(make: Make, tokenizer_directory: str) -> None:
    with pytest.raises(ModelError, match=r"takes no embeddings.*prompt\.kind: text"):
        make().evaluate(request((Point(np.zeros(5, dtype=np.float32)),), spec=SPEC))
    with pytest.raises(ModelError, match="no gradients"):
        make().evaluate(Request(TEXTS, BATCH, NO_ROWS, gradient=True))
    with pytest.raises(ModelError, match="takes no embeddings"):
        codec_of(make()).materialize(TEXTS[0], SPEC)
    with pytest.raises(TaskError, match="text or a cue"):
        make().evaluate(request(batch=batch_of(["a good film", ""], cue="")))


# --------------------------------------------------------------------------------------------------- costs
PRICE = {
    "usd_per_million_input_tokens": 2.0,
    "usd_per_million_cached_input_tokens": 0.5,
    "usd_per_million_output_tokens": 10.0,
}


def test_billed_is_what_the_server_tells(make: Make, server: CompletionsServer) -> None:
    usage = {"prompt_tokens": 30, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 16}}
    server.answer = lambda asked: answered(asked, {" great": -0.1, " terrible": -2.0}, usage=usage)
    cost = make(price=PRICE).evaluate(request()).cost
    assert (cost.queries, cost.forwards, cost.tokens) == (2, 4, 4 * 32)
    assert cost.usd == pytest.approx(4 * (14 * 2e-6 + 16 * 0.5e-6 + 2 * 1e-5))
    assert cost.seconds > 0


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": "many"}])
def test_else_what_was_counted(make: Make, server: CompletionsServer, tokenizer_directory: str, usage: Any) -> None:
    server.answer = lambda asked: answered(asked, {" great": -0.1, " terrible": -2.0}, usage=usage)
    oracle = make(price=PRICE, tokenizer=tokenizer_directory)
    before, after = oracle.cost(request()), oracle.evaluate(request()).cost
    # With the special token: "a good film It was" 6, "bad It was" 4, prompt and newline 5 more; one token is written.
    assert (before.queries, before.forwards, before.tokens) == (2, 4, 2 * (6 + 4) + 2 * 5 + 4)
    assert (after.queries, after.forwards, after.tokens) == (2, 4, before.tokens)
    assert after.usd == pytest.approx(before.usd) == pytest.approx(30 * 2e-6 + 4 * 1e-5)


@pytest.mark.parametrize("api", ["completions", "chat"])
@pytest.mark.parametrize("scores", ["logprobs", "generated"])
def test_no_prompt_has_more_tokens_than_was_reckoned(
    settings: Callable[..., OpenAIOracleConfig], tokenizer_directory: str, api: str, scores: str
) -> None:
    tokenizer = make_tokenizer(True)
    for known in (tokenizer_directory, None):
        counter = build_counter(settings(api=api, scores=scores, tokenizer=known))
        for example in MIXED.examples:
            batch = Batch((example,), MIXED.label_words, "train", "zero_one")
            prompt = f"Classify the movie réview\n{example.text}{example.cue}"
            reckoned = counter.cost(request((Text("Classify the movie réview"),), batch)).tokens
            assert reckoned >= len(tokenizer(prompt)["input_ids"]) + 1


def test_answers_that_were_of_no_use_are_paid_for(make: Make, server: CompletionsServer) -> None:
    seen: set[str] = set()
    empty = Reply('{"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 1}}')

    def answer(asked: Asked) -> Reply:
        first = asked.prompt not in seen
        seen.add(asked.prompt)
        return empty if first else answered(asked, {" great": -0.1, " terrible": -2.0})

    server.answer = answer
    assert make().evaluate(request()).cost.tokens == 4 * (USAGE["total_tokens"] + 8)


# --------------------------------------------------------------------------------------------------- pacing
def test_an_actor_keeps_to_its_share_of_the_requests_in_flight(make: Make, server: CompletionsServer) -> None:
    def answer(asked: Asked) -> Reply:
        with server.changed:  # wait for company, which proves that it is there
            server.changed.wait_for(lambda: server.most_in_flight >= 3, timeout=5)
        return answered(asked, {" great": -0.1, " terrible": -2.0})

    server.answer = answer
    make(actors=2, concurrency=5).evaluate(request(batch=MIXED))
    assert server.most_in_flight == 3


def test_rates_are_shared_and_asked_before_every_request(
    make: Make, monkeypatch: pytest.MonkeyPatch, tokenizer_directory: str
) -> None:
    taken: list[float] = []
    rates: list[float] = []
    real_init, real_take = Rate.__init__, Rate.take

    def init(self: Rate, a_minute: float) -> None:
        rates.append(a_minute)
        real_init(self, a_minute)

    async def take(self: Rate, amount: float) -> None:
        taken.append(amount)
        await real_take(self, amount)

    monkeypatch.setattr(Rate, "__init__", init)
    monkeypatch.setattr(Rate, "take", take)
    limits = {"actors": 2, "requests_per_minute": 2e6, "tokens_per_minute": 4e5}
    make(tokenizer=tokenizer_directory, **limits).evaluate(request())
    assert rates == [1e6, 2e5]
    assert sorted(taken) == [1, 1, 1, 1, 5, 7, 10, 12]


def test_a_rate_passes_more_than_a_seconds_worth_in_pieces() -> None:
    import asyncio

    async def pass_all() -> None:
        rate = Rate(60e6)
        await rate.take(1.0)
        await rate.take(1.2e6)  # more than its bucket holds

    asyncio.run(pass_all())
