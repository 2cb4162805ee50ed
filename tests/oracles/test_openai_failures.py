"""The oracle that asks a server, when the server misbehaves: what is tried again, what ends a run, what costs an
example, and that the key goes nowhere else."""

import gzip
import json
import logging
import math
import pickle
import traceback
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from completions_server import HANGS, USAGE, Asked, CompletionsServer, Reply, answered, opinion, refusal
from tiny_models import batch_of

from distributed_tuner.config.oracle import OpenAIOracleConfig, Tile
from distributed_tuner.errors import ModelError, OracleError, OracleTimeout, TunerError
from distributed_tuner.oracles.served.openai import OpenAIOracle
from distributed_tuner.oracles.wrappers.tiled import TiledOracle
from distributed_tuner.prompts.spec import NO_ROWS
from distributed_tuner.values import Objective, Request, Text

KEY = "sk-RECOGNISABLE-0123456789"
BATCH = batch_of(["a good film", "bad"])
REQUEST = Request((Text("Classify"), Text("Judge")), BATCH, NO_ROWS)
ONE = Request((Text("Classify"),), batch_of(["a good film"]), NO_ROWS)

Make = Callable[..., OpenAIOracle]


@pytest.fixture
def settings(settings: Callable[..., OpenAIOracleConfig]) -> Callable[..., OpenAIOracleConfig]:
    """Return settings of an oracle that asks one thing at a time."""
    return lambda **more: settings(**({"concurrency": 1} | more))


def scripted(server: CompletionsServer, *replies: Reply) -> None:
    """Answer with these, then soundly."""
    left = list(replies)
    server.answer = lambda asked: left.pop(0) if left else opinion(asked)


def only(server: CompletionsServer, prompt: str, reply: Reply) -> None:
    """Misbehave to prompts that hold a text, always."""
    server.answer = lambda asked: reply if prompt in asked.prompt else opinion(asked)


# --------------------------------------------------------------------------------------------------- tried again
@pytest.mark.parametrize("status", [408, 409, 429, 500, 503])
def test_a_busy_or_failing_server_is_asked_again(
    status: int, make: Make, server: CompletionsServer, pauses: list[float]
) -> None:
    scripted(server, refusal(status), refusal(status))
    assert np.isfinite(make().evaluate(ONE).losses).all()
    assert len(server.asked) == 3
    assert all(0.5 <= pause <= 3.0 for pause in pauses)


def test_the_servers_own_pause_is_kept_to(make: Make, server: CompletionsServer, pauses: list[float]) -> None:
    scripted(server, refusal(429, retry_after="7"), refusal(503, retry_after="100000"), refusal(429))
    make().evaluate(ONE)
    assert pauses[:2] == [7, 120]
    assert 0.5 < pauses[2] <= 60


def test_a_pause_beyond_the_limit_is_told(make: Make, server: CompletionsServer, pauses: list[float]) -> None:
    server.answer = lambda asked: refusal(429, retry_after="3600")
    with pytest.raises(OracleError, match=r"left alone for 3600 s, longer than oracle\.longest_pause of 9 s"):
        make(attempts=3, longest_pause=9).evaluate(ONE)
    assert pauses == [9, 9]


@pytest.mark.parametrize(
    "reply",
    [
        Reply('{"choices": [{"text": " great"', cut=True),
        Reply("busy", 500, cut=True),
        Reply("{broken"),
        Reply("<html>try again</html>", headers={"Content-Type": "text/html"}),
        Reply('{"choices": []}'),
    ],
)
def test_a_broken_answer_is_asked_for_again(reply: Reply, make: Make, server: CompletionsServer) -> None:
    scripted(server, reply)
    answer = make().evaluate(ONE)
    assert np.isfinite(answer.losses).all() and answer.counts == {}
    assert len(server.asked) == 2


def test_a_server_may_go_and_come_back_in_mid_run(make: Make, server: CompletionsServer) -> None:
    def answer(asked: Asked) -> Reply:
        if len(server.asked) == 2:
            server.stop()
        return opinion(asked)

    async def sleep(_seconds: float) -> None:
        if not server.up:
            server.start()

    server.answer = answer
    assert np.isfinite(make(sleep).evaluate(REQUEST).losses).all()


# --------------------------------------------------------------------------------------------------- given up
@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (307, r"HTTP 307; redirects are not followed: set oracle\.base_url to its real address"),
        (401, "does not take the key; check ORACLE_KEY"),
        (403, r"check ORACLE_KEY and oracle\.model"),
        (404, r"check oracle\.model and oracle\.base_url, which ends in /v1"),
        (418, "HTTP 418"),
    ],
)
def test_what_will_not_pass_ends_the_run_at_once(
    status: int, advice: str, make: Make, server: CompletionsServer, pauses: list[float]
) -> None:
    server.answer = lambda asked: refusal(status)
    with pytest.raises(ModelError, match=advice):
        make().evaluate(REQUEST)
    assert len(server.asked) == 1
    assert pauses == []


def test_a_redirect_is_told_with_its_host_and_nothing_is_sent_there(make: Make, server: CompletionsServer) -> None:
    server.answer = lambda asked: refusal(307, location=f"{server.url}/elsewhere?key={KEY}")
    with pytest.raises(ModelError, match=r"redirects are not followed \(it points to http://127\.0\.0\.1:\d+\)"):
        make().evaluate(ONE)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("status", "words", "advice"),
    [
        (400, "'logprobs' is not supported with this model.", r"oracle\.scores: generated and task\.loss: zero_one"),
        (400, "Logprobs is not enabled for models/x", r"oracle\.scores: generated"),
        (422, "log probabilities are not available", r"oracle\.scores: generated"),
        (404, "This endpoint does not return logprobs", r"oracle\.scores: generated"),
        (400, "top_logprobs must be between 0 and 5", r"oracle\.top_logprobs lower"),
        (400, "maximum context length is 8 tokens", r"oracle\.max_tokens, and that prompt and text fit"),
    ],
)
def test_a_refusal_is_looked_at_for_what_helps(
    status: int, words: str, advice: str, make: Make, server: CompletionsServer
) -> None:
    server.answer = lambda asked: refusal(status, words)
    with pytest.raises(ModelError, match=advice):
        make().evaluate(REQUEST)


def test_a_server_that_takes_nothing_is_not_asked_for_everything(make: Make, server: CompletionsServer) -> None:
    server.answer = lambda asked: refusal(400)
    many = Request((Text("Classify"),), batch_of(["a good film"] * 50), NO_ROWS)
    with pytest.raises(ModelError, match=r"check oracle\.model, oracle\.api and oracle\.top_logprobs"):
        make().evaluate(many)
    assert len(server.asked) < 40


def test_a_server_that_stays_busy_fails_the_request(make: Make, server: CompletionsServer) -> None:
    server.answer = lambda asked: refusal(500)
    with pytest.raises(OracleError, match=r"HTTP 500, 4 times; try later, or set oracle\.attempts higher"):
        make(attempts=4).evaluate(ONE)
    assert len(server.asked) == 4


def test_no_answer_in_time(make: Make, server: CompletionsServer, pauses: list[float]) -> None:
    server.answer = lambda asked: HANGS
    with pytest.raises(OracleError, match=r"no answer within 0\.1 s, 2 times; set oracle\.timeout higher"):
        make(timeout=0.1, attempts=2).evaluate(ONE)
    assert len(pauses) == 1


def test_nobody_is_there(make: Make, server: CompletionsServer) -> None:
    server.stop()
    with pytest.raises(OracleError, match=r"the oracle's server \(http://127\.0\.0\.1:\d+/v1\) cannot be reached"):
        make(attempts=2).evaluate(ONE)


def test_a_request_is_given_up_when_its_time_is_over_and_the_oracle_goes_on(
    make: Make, server: CompletionsServer
) -> None:
    server.answer = lambda asked: HANGS
    oracle = make()
    with pytest.raises(OracleTimeout, match="given up"):
        oracle.evaluate(REQUEST, timeout=0.2)
    server.answer = opinion
    assert np.isfinite(oracle.evaluate(REQUEST, timeout=30).losses).all()


# --------------------------------------------------------------------------------------------------- the breaker
def test_a_server_that_fails_and_fails_is_left_alone(make: Make, server: CompletionsServer) -> None:
    server.answer = lambda asked: refusal(500)
    oracle = make(breaker_failures=3, breaker_seconds=1000, attempts=50)
    told = r"HTTP 500; try later, .* It failed 3 times in a row, so that it would be left alone for 1000 s before"
    for _ in range(2):
        with pytest.raises(OracleError, match=told):
            oracle.evaluate(REQUEST)
    assert len(server.asked) == 3


def test_a_clock_that_is_set_back_keeps_nobody_waiting(
    make: Make, server: CompletionsServer, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    real = time.time
    server.answer = lambda asked: refusal(500)
    oracle = make(breaker_failures=2, breaker_seconds=30, attempts=4)
    monkeypatch.setattr(time, "time", lambda: real() - (3600 if len(server.asked) == 2 else 0))
    with pytest.raises(OracleError, match="left alone"):
        oracle.evaluate(ONE)
    assert max(pauses) <= 30.01


def test_after_an_outage_one_request_tries_the_server_first(make: Make, server: CompletionsServer) -> None:
    import asyncio

    probes: list[int] = []

    def answer(asked: Asked) -> Reply:
        with server.changed:
            number = len(server.asked)
            if number <= 4:  # all four at once, so that all of them fail
                server.changed.wait_for(lambda: len(server.asked) >= 4, timeout=5)
                return refusal(500)
            if len(probes) < 2:
                server.changed.wait(0.05)  # time for others to come along
                probes.append(server.in_flight)
                return refusal(500)
        return opinion(asked)

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(min(seconds, 0.05))

    server.answer = answer
    oracle = make(sleep, concurrency=4, breaker_failures=4, breaker_seconds=0.02, attempts=50)
    assert np.isfinite(oracle.evaluate(REQUEST).losses).all()
    assert probes == [1, 1]


# --------------------------------------------------------------------------------------------------- failed examples
@pytest.mark.parametrize(
    ("reply", "attempts"),
    [
        (Reply('{"choices": [{"text": " great"', cut=True), 3),
        (Reply("{broken"), 3),
        (Reply('{"choices": [{"text": " great"}]}'), 1),  # no logprobs: no attempt would bring them
        (Reply('{"choices": [{"text": " great", "logprobs": {"top_logprobs": [null]}}]}'), 1),
    ],
)
def test_an_answer_that_cannot_be_read_costs_its_example(
    reply: Reply, attempts: int, make: Make, server: CompletionsServer
) -> None:
    only(server, "Judge\nbad", reply)
    answer = make(attempts=3).evaluate(REQUEST)
    assert np.isnan(answer.example_losses).tolist() == [[False, False], [False, True]]
    assert np.isnan(answer.losses).tolist() == [False, True]
    assert answer.counts == {"unusable_answers": 1}
    assert len(server.asked) == 3 + attempts
    assert answer.cost.tokens > 3 * 21  # the unreadable one is reckoned


def test_a_server_of_whose_answers_none_can_be_read_ends_the_run(make: Make, server: CompletionsServer) -> None:
    server.answer = lambda asked: answered(asked, None)
    with pytest.raises(ModelError, match=r"each of 4 from .* holds no logprobs; .*set oracle\.scores: generated"):
        make().evaluate(REQUEST)
    server.answer = lambda asked: Reply("<html></html>")
    with pytest.raises(ModelError, match=r"is a web page; oracle\.base_url ends in /v1"):
        make(attempts=2).evaluate(REQUEST)


@pytest.mark.parametrize("limit", ["too long", "packed and too long", "packed and broken", "packed as nobody can"])
def test_no_answer_takes_more_memory_than_one_has(
    limit: str, make: Make, server: CompletionsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distributed_tuner.clients.openai.LONGEST_ANSWER", 10_000)
    blanks = b" " * 200_000
    reply = {
        "too long": Reply(blanks),
        "packed and too long": Reply(gzip.compress(blanks), headers={"Content-Encoding": "gzip"}),
        "packed and broken": Reply(b"no gzip", headers={"Content-Encoding": "gzip"}),
        "packed as nobody can": Reply(b"?", headers={"Content-Encoding": "br"}),
    }[limit]
    server.answer = lambda asked: reply
    told = {"packed and broken": "breaks off", "packed as nobody can": "packed in a way"}.get(limit, "longer than")
    with pytest.raises(ModelError, match=told):
        make(attempts=1).evaluate(ONE)
    server.answer = lambda asked: replace(reply, status=400)
    with pytest.raises(ModelError, match=told):
        make(attempts=1).evaluate(ONE)


def test_a_packed_answer_is_an_answer(make: Make, server: CompletionsServer) -> None:
    def packed(asked: Asked) -> Reply:
        body = opinion(asked).body
        assert isinstance(body, str)
        return Reply(gzip.compress(body.encode()), headers={"Content-Encoding": "gzip"})

    server.answer = packed
    assert np.isfinite(make().evaluate(ONE).losses).all()


def test_an_answer_that_drips_is_given_up_in_time(make: Make, server: CompletionsServer) -> None:
    server.answer = lambda asked: Reply('{"choices": []}', drips=0.02)
    with pytest.raises(OracleError, match=r"no answer within 0\.1 s, 2 times"):
        make(timeout=0.1, attempts=2).evaluate(ONE)


# --------------------------------------------------------------------------------------------------- refused examples
FILTERED = refusal(400, "The response was filtered by the content management policy.", code="content_filter")
MANY = batch_of(["a good film", "bad", "fine", "with a knife"])


@pytest.mark.parametrize("reply", [FILTERED, refusal(403, "your input was flagged by moderation"), refusal(413)])
def test_a_refused_example_is_one_failed_example_for_all_candidates_alike(
    reply: Reply, make: Make, server: CompletionsServer
) -> None:
    only(server, "knife", reply)
    found = make().evaluate(Request((Text("Classify"), Text("Judge it")), MANY, NO_ROWS))
    assert np.isfinite(found.losses).all()
    assert found.example_losses[:, 3].tolist() == [pytest.approx(math.log(2))] * 2
    assert np.isneginf(found.logits[:, 3]).all()
    assert found.counts == {"refused_examples": 2}
    ((kind, told),) = found.remarks
    assert kind == "refused_example"
    assert MANY.examples[3].uid in told and f"HTTP {reply.status}" in told and "counts as one example" in told


def test_a_refused_example_is_named_with_its_row_and_once(make: Make, server: CompletionsServer) -> None:
    only(server, "knife", FILTERED)
    examples = tuple(replace(example, where=f"reviews.csv, line {i + 2}") for i, example in enumerate(MANY.examples))
    request = Request((Text("Classify"),), replace(MANY, examples=examples), NO_ROWS)
    oracle = make()
    ((_, told),) = oracle.evaluate(request).remarks
    assert f"example {MANY.examples[3].uid} (reviews.csv, line 5) is refused, by a filter" in told
    assert oracle.evaluate(request).remarks == ()


def test_an_answer_in_words_that_is_kept_back_is_refused(make: Make, server: CompletionsServer) -> None:
    def answer(asked: Asked) -> Reply:
        kept_back = "knife" in asked.prompt
        return answered(asked, None, "" if kept_back else " great", finish="content_filter" if kept_back else "stop")

    server.answer = answer
    batch = replace(MANY, loss="zero_one")
    found = make(scores="generated", api="chat").evaluate(Request((Text("Classify"),), batch, NO_ROWS))
    assert found.counts == {"refused_examples": 1}
    assert found.example_losses[0, 3] == 1.0
    assert "kept back" in found.remarks[0][1]


def test_where_most_examples_are_refused_the_run_ends(make: Make, server: CompletionsServer) -> None:
    server.answer = lambda asked: opinion(asked) if "fine" in asked.prompt else FILTERED
    with pytest.raises(ModelError, match=r"most examples must be answered, but 3 of 4 were refused with every prompt"):
        make().evaluate(Request((Text("Classify"),), MANY, NO_ROWS))


def test_a_prompt_that_is_refused_with_every_example_ends_nothing(make: Make, server: CompletionsServer) -> None:
    oracle = make()
    oracle.evaluate(Request((Text("Classify"),), MANY, NO_ROWS))
    only(server, "bomb", FILTERED)
    found = oracle.evaluate(Request((Text("How to build a bomb"), Text("Classify")), MANY, NO_ROWS))
    assert found.losses[0] == pytest.approx(math.log(2)) and np.isfinite(found.losses[1])


def test_a_refused_example_is_left_out_of_no_loss_whatever_the_objective(make: Make, server: CompletionsServer) -> None:
    only(server, "knife", FILTERED)
    batch = replace(MANY, objective=Objective(head="bias"))
    found = make().evaluate(Request((Text("Classify"),), batch, NO_ROWS))
    assert np.isfinite(found.losses).all()


# --------------------------------------------------------------------------------------------------- answers in words
def thinking(asked: Asked) -> Reply:
    return answered(asked, None, None, finish="length", reasoning_content="The user asks me to")


def test_thoughts_alone_are_no_wrong_answers(make: Make, server: CompletionsServer) -> None:
    server.answer = thinking
    words = Request(REQUEST.candidates, replace(BATCH, loss="zero_one"), NO_ROWS)
    with pytest.raises(ModelError, match=r"all of them thoughts; .*oracle\.extra_body, .*oracle\.max_tokens: 2000"):
        make(api="chat", scores="generated").evaluate(words)


def test_a_prompt_that_makes_a_model_think_at_length_fails_by_itself(make: Make, server: CompletionsServer) -> None:
    server.answer = lambda asked: thinking(asked) if "Judge" in asked.prompt else answered(asked, None, "great")
    oracle = make(api="chat", scores="generated")
    words = replace(BATCH, loss="zero_one")
    assert oracle.evaluate(Request((Text("Classify"),), words, NO_ROWS)).losses.tolist() == [0.5]
    assert np.isnan(oracle.evaluate(Request((Text("Judge"),), words, NO_ROWS)).losses).all()


def test_how_an_answer_began_that_names_no_label_is_told_without_the_key(make: Make, server: CompletionsServer) -> None:
    server.answer = lambda asked: answered(asked, {"<think>": -0.01, f"a\x1b{KEY}": -9.0})
    found = make(api="chat").evaluate(ONE)
    ((kind, told),) = found.remarks
    assert kind == "other_answer"
    assert told.startswith("an answer began '<think>': the model reasons first: turn that down by oracle.extra_body")
    server.answer = lambda asked: answered(asked, {f"a\x1b{KEY}": -0.1})
    assert make(api="chat").evaluate(ONE).remarks == (("other_answer", "an answer began 'a ...'"),)


# --------------------------------------------------------------------------------------------------- adapting
def test_a_setting_that_the_model_lacks_is_left_out(make: Make, server: CompletionsServer) -> None:
    scripted(server, refusal(400, param="max_tokens"), refusal(400, param="temperature"))
    make(api="chat", scores="generated").evaluate(
        Request(REQUEST.candidates, batch_of(["a"], loss="zero_one"), NO_ROWS)
    )
    assert [sorted({"max_tokens", "max_completion_tokens", "temperature"} & set(a.body)) for a in server.asked] == [
        ["max_tokens", "temperature"],
        ["max_completion_tokens", "temperature"],
        ["max_completion_tokens"],
        ["max_completion_tokens"],
    ]


def names(server: CompletionsServer) -> list[list[str]]:
    asked = {"max_tokens", "max_completion_tokens", "temperature"}
    return [sorted(asked & set(one.body)) for one in server.asked]


def test_a_refusal_that_names_no_param_is_looked_at_for_what_was_sent(make: Make, server: CompletionsServer) -> None:
    def answer(asked: Asked) -> Reply:
        if "max_tokens" in asked.body:
            return refusal(400, "'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.")
        if "temperature" in asked.body:
            return refusal(400, "Unsupported value: 'temperature' does not support 0.0 with this model.")
        return opinion(asked)

    server.answer = answer
    oracle = make()
    assert np.isfinite(oracle.evaluate(ONE).losses).all()
    oracle.evaluate(ONE)
    both = ["max_completion_tokens", "temperature"]
    assert names(server) == [["max_tokens", "temperature"], both, both[:1], both[:1]]


def test_a_refusal_that_names_nothing_is_met_by_leaving_out_what_is_optional(
    make: Make, server: CompletionsServer
) -> None:
    server.answer = lambda asked: refusal(400, "Bad request") if "temperature" in asked.body else opinion(asked)
    oracle = make()
    assert np.isfinite(oracle.evaluate(ONE).losses).all()
    assert names(server) == [["max_tokens", "temperature"], ["max_tokens"]]


def test_no_setting_is_given_up_for_a_prompt_that_is_refused(make: Make, server: CompletionsServer) -> None:
    only(server, "knife", refusal(400, "Bad request"))
    make().evaluate(Request((Text("Classify"),), MANY, NO_ROWS))
    assert {tuple(one) for one in names(server)} == {("max_tokens", "temperature")}


def test_further_fields_and_a_system_message_are_sent(make: Make, server: CompletionsServer) -> None:
    server.answer = lambda asked: answered(asked, {"great": -0.2, "terrible": -1.7})
    more = {"chat_template_kwargs": {"enable_thinking": False}, "temperature": 1.0}
    make(api="chat", extra_body=more, system="Say one word.").evaluate(ONE)
    (asked,) = server.asked
    assert asked.body["chat_template_kwargs"] == {"enable_thinking": False}
    assert asked.body["temperature"] == 1.0
    assert [message["role"] for message in asked.body["messages"]] == ["system", "user"]
    assert asked.body["messages"][0]["content"] == "Say one word."


@pytest.mark.parametrize("told", ["server", "timings"])
def test_of_llama_cpp_no_cache_is_used(told: str, make: Make, server: CompletionsServer) -> None:
    def answer(asked: Asked) -> Reply:
        reply = opinion(asked)
        if told == "server":
            return replace(reply, headers={"Server": "llama.cpp"})
        return Reply(json.dumps(json.loads(reply.body) | {"timings": {"prompt_n": 4}}))

    server.answer = answer
    oracle = make()
    first, again = oracle.evaluate(REQUEST), oracle.evaluate(REQUEST)
    assert [asked.body.get("cache_prompt") for asked in server.asked] == [None, *[False] * 8]
    assert first.cost.tokens == again.cost.tokens + USAGE["total_tokens"]
    own = make(extra_body={"cache_prompt": True})
    own.evaluate(ONE)
    assert [asked.body["cache_prompt"] for asked in server.asked[9:]] == [True]


# --------------------------------------------------------------------------------------------------- the key
def test_openai_itself_wants_a_key(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ORACLE_KEY")
    with pytest.raises(ModelError, match="variable ORACLE_KEY is not set where the oracle runs"):
        make(base_url=None)


def test_a_server_of_ones_own_wants_none(
    make: Make, server: CompletionsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ORACLE_KEY")
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    oracle = make(base_url=None)
    oracle.evaluate(ONE)
    assert server.asked[0].key == "Bearer none"
    assert oracle.info.extra["base_url"] == server.url


def test_a_password_in_the_environments_url_is_refused_and_not_shown(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "https://me:hunter2@example.com/v1")
    with pytest.raises(ModelError, match="OPENAI_BASE_URL is not") as caught:
        make(base_url=None)
    assert "hunter2" not in str(caught.value)


def test_no_message_log_line_or_repr_holds_the_key(
    make: Make, server: CompletionsServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Servers repeat keys in their errors, and clients log what they do."""
    for name in (None, "openai", "httpx2", "httpcore2", "tenacity", "asyncio", "purgatory"):
        caplog.set_level(logging.DEBUG, name)
    seen: list[str] = []
    told = f"Incorrect API key provided: {KEY}"
    misbehaviour = [
        *(refusal(status, told) for status in (400, 401, 403, 404, 422, 429, 500)),
        refusal(400, told, param=KEY),
        Reply(told, headers={"Content-Type": "text/html"}),
        Reply("{" + told, cut=True),
        HANGS,
    ]
    for reply in misbehaviour:
        server.answer = lambda asked, reply=reply: reply  # type: ignore[misc]
        oracle = make(attempts=2, timeout=0.2 if reply.hang else 5.0)
        try:
            seen.append(repr(oracle.evaluate(ONE)))
        except TunerError as error:
            seen += [str(error), repr(error), traceback.format_exc(), repr(pickle.loads(pickle.dumps(error)))]
        asker = oracle._client
        seen += [repr(oracle), repr(oracle.info), repr(oracle._config), repr(asker), repr(asker._connection)]
    assert {asked.key for asked in server.asked} == {f"Bearer {KEY}"}
    assert len(caplog.records) > 10
    seen += [f"{record.getMessage()} {record.exc_text} {vars(record)}" for record in caplog.records]
    seen += ["".join(traceback.format_exception(record.exc_info[1])) for record in caplog.records if record.exc_info]
    assert [text for text in seen if KEY in text] == []


def test_without_a_pool_refused_examples_are_logged(
    make: Make, server: CompletionsServer, caplog: pytest.LogCaptureFixture
) -> None:
    only(server, "knife", FILTERED)
    TiledOracle(make(), Tile(candidates=2, examples=2)).evaluate(Request((Text("Classify"),), MANY, NO_ROWS))
    told = [record.getMessage() for record in caplog.records if record.name.endswith("tiled")]
    assert len(told) == 1 and MANY.examples[3].uid in told[0]
