"""The oracle that asks a server, when the server misbehaves: what is tried again, what ends a run, what costs an
example, and that the key goes nowhere else."""

import logging
import pickle
import traceback
from collections.abc import Callable

import numpy as np
import pytest
from completions_server import HANGS, Asked, CompletionsServer, Reply, answered, opinion, refusal
from tiny_models import batch_of

from distributed_tuner.config.oracle import OpenAIOracleConfig
from distributed_tuner.errors import ModelError, OracleError, OracleTimeout, TunerError
from distributed_tuner.oracles.openai import OpenAIOracle
from distributed_tuner.prompts.spec import NO_ROWS
from distributed_tuner.values import Request, Text

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
    assert pauses[:2] == [7, 60]
    assert 0.5 < pauses[2] <= 60


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
        (400, r"check oracle\.model, oracle\.api and oracle\.top_logprobs"),
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


def test_a_server_that_stays_busy_fails_the_request(make: Make, server: CompletionsServer) -> None:
    server.answer = lambda asked: refusal(500)
    with pytest.raises(OracleError, match=r"HTTP 500; try later, or set oracle\.attempts higher"):
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
    for _ in range(2):
        with pytest.raises(OracleError, match=r"failed 3 times in a row and was left alone for 1000 s"):
            oracle.evaluate(REQUEST)
    assert len(server.asked) == 3


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
    with pytest.raises(ModelError, match=r"each of 4 from .* holds no logprobs; set oracle\.scores: generated"):
        make().evaluate(REQUEST)
    server.answer = lambda asked: Reply("<html></html>")
    with pytest.raises(ModelError, match=r"is no JSON object; .*check oracle\.base_url"):
        make(attempts=2).evaluate(REQUEST)


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
        asker = oracle._asker
        seen += [repr(oracle), repr(oracle.info), repr(oracle._config), repr(asker), repr(asker._client)]
    assert {asked.key for asked in server.asked} == {f"Bearer {KEY}"}
    assert len(caplog.records) > 10
    seen += [f"{record.getMessage()} {record.exc_text} {vars(record)}" for record in caplog.records]
    seen += ["".join(traceback.format_exception(record.exc_info[1])) for record in caplog.records if record.exc_info]
    assert [text for text in seen if KEY in text] == []
