"""The proposer that asks a server: what it sends, what it makes of misbehaviour, and that its key goes nowhere else."""

import json
import logging
import pickle
import traceback
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from chat_server import HANGS, ChatServer, Reply, completion, raw, refusal

from distributed_tuner.config.proposer import OpenAIProposerConfig
from distributed_tuner.errors import ProposerError
from distributed_tuner.proposers.base import Ask
from distributed_tuner.proposers.openai import OpenAIProposer
from distributed_tuner.proposers.parsing import parse

KEY = "sk-RECOGNISABLE-0123456789"
ASK = Ask("Write two prompts.", 2, ("zot-0000", 1, 0))
SOUND = completion("1. Classify the review\n2. Judge the mood")

Make = Callable[..., OpenAIProposer]


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture
def make(server: ChatServer, pauses: list[float], monkeypatch: pytest.MonkeyPatch) -> Make:
    """Return proposers at the server; their pauses are written down, not slept."""
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setenv("PROPOSER_KEY", KEY)

    def made(*replies: Reply, **more: Any) -> OpenAIProposer:
        server.replies = list(replies)
        settings = {"model": "m", "base_url": server.url, "api_key_env": "PROPOSER_KEY", "timeout": 5.0} | more
        return OpenAIProposer(OpenAIProposerConfig(kind="openai", **settings), sleep=pauses.append)

    return made


def test_what_is_sent_and_what_comes_back(make: Make, server: ChatServer) -> None:
    price = {"usd_per_million_input_tokens": 2.0, "usd_per_million_output_tokens": 10.0}
    answer = make(SOUND, temperature=0.5, max_tokens=77, price=price).answer(ASK)
    assert parse(answer.text, 2) == ["Classify the review", "Judge the mood"]
    assert (answer.input_tokens, answer.output_tokens) == (2000, 300)
    assert answer.usd == pytest.approx(2000 * 2e-6 + 300 * 1e-5)
    assert answer.seconds > 0
    (body,) = server.bodies
    assert body["messages"] == [{"role": "user", "content": "Write two prompts."}]
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("m", 0.5, 77)
    assert server.keys == [f"Bearer {KEY}"]


def test_the_seed_follows_from_the_key_of_the_ask(make: Make, server: ChatServer) -> None:
    proposer = make(SOUND)
    for key in (("a", 1, 0), ("a", 1, 0), ("a", 1, 1)):
        proposer.answer(Ask("Write.", 2, key))
    first, again, other = (body["seed"] for body in server.bodies)
    assert first == again != other


# --------------------------------------------------------------------------------------------------- trying again
@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503])
def test_what_may_pass_is_tried_again(status: int, make: Make, server: ChatServer, pauses: list[float]) -> None:
    assert make(refusal(status), refusal(status), SOUND).answer(ASK).text
    assert len(server.bodies) == 3
    assert all(0.5 <= pause <= 3.0 for pause in pauses)  # 0.5 s and 1 s, and up to a second more


def test_pauses_grow_and_attempts_end(make: Make, server: ChatServer, pauses: list[float]) -> None:
    with pytest.raises(ProposerError, match=r"HTTP 500, 7 times; try later, or set proposer\.attempts higher"):
        make(refusal(500), attempts=7).answer(ASK)
    assert len(server.bodies) == 7
    assert pauses[-1] > 10 > pauses[0]


def test_the_servers_own_pause_is_kept_to(make: Make, pauses: list[float]) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    replies = [refusal(429, retry_after=told) for told in ("7", date, "100000", "-3", "soon", "inf")]
    assert make(*replies, SOUND, attempts=7).answer(ASK).text
    seconds, until, endless, past, *senseless = pauses
    assert seconds == 7
    assert 20 < until <= 30
    assert endless == 120
    assert past == 0
    assert all(pause > 1 for pause in senseless)  # our own


def test_a_request_that_the_server_does_not_take_is_told_after_all_that_is_optional_was_left_out(
    make: Make, server: ChatServer
) -> None:
    with pytest.raises(ProposerError, match=r"HTTP 400; .*check proposer\.model and proposer\.max_tokens"):
        make(refusal(400)).answer(ASK)
    assert [sorted(body.keys() - {"model", "messages"}) for body in server.bodies] == [
        ["max_tokens", "seed", "temperature"],
        ["max_tokens"],
        ["max_completion_tokens"],
    ]


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (307, "redirects are not followed: set proposer.base_url to its real address"),
        (401, "the server does not take the key; check PROPOSER_KEY"),
        (403, "check PROPOSER_KEY and proposer.model"),
        (404, "check proposer.model and proposer.base_url"),
        (418, "HTTP 418"),
    ],
)
def test_what_will_not_pass_fails_at_once(status: int, advice: str, make: Make, server: ChatServer) -> None:
    with pytest.raises(ProposerError, match=advice.replace(".", r"\.")):
        make(refusal(status)).answer(ASK)
    assert len(server.bodies) == 1


def test_no_answer_in_time(make: Make, pauses: list[float]) -> None:
    with pytest.raises(ProposerError, match=r"no answer within 0\.05 s, 2 times; set proposer\.timeout higher"):
        make(HANGS, timeout=0.05, attempts=2).answer(ASK)
    assert len(pauses) == 1


def test_nobody_is_there(make: Make, pauses: list[float]) -> None:
    with pytest.raises(ProposerError, match=r"\(http://127\.0\.0\.1:9/v1\) cannot be reached, 2 times; check"):
        make(base_url="http://127.0.0.1:9/v1", attempts=2).answer(ASK)
    assert len(pauses) == 1


def test_a_setting_that_the_model_lacks_is_left_out_from_then_on(make: Make, server: ChatServer) -> None:
    proposer = make(refusal(400, param="max_tokens"), refusal(400, param="temperature"), SOUND, max_tokens=77)
    assert proposer.answer(ASK).text
    assert proposer.answer(ASK).text
    lacking = [{"max_tokens", "temperature", "seed"} - set(body) for body in server.bodies]
    assert lacking == [set(), {"max_tokens"}, {"max_tokens", "temperature"}, {"max_tokens", "temperature"}]
    assert [body.get("max_completion_tokens") for body in server.bodies] == [None, 77, 77, 77]


# --------------------------------------------------------------------------------------------------- odd answers
@pytest.mark.parametrize(
    "reply",
    [
        completion(None),
        completion(""),
        completion({"not": "a text"}),
        raw(),
        raw(choices=None),
        raw(choices=[]),
        raw(choices=5),
        raw(choices={"0": "x"}),
        raw(choices=[None]),
        raw(choices=[{"message": "text"}]),
        raw(choices="abc", usage=[1, 2]),
        Reply("{}"),
    ],
)
def test_an_answer_that_lacks_a_text_is_empty(reply: Reply, make: Make, server: ChatServer) -> None:
    assert make(reply).answer(ASK).text == ""
    assert len(server.bodies) == 1


def test_thoughts_that_take_all_tokens_are_told(make: Make) -> None:
    message = {"role": "assistant", "content": None, "reasoning_content": "The user wants"}
    answer = make(raw(choices=[{"message": message, "finish_reason": "length"}])).answer(ASK)
    assert (answer.text, answer.output_tokens) == ("", 300)
    assert "all of them thoughts; set proposer.max_tokens higher" in answer.note


def test_an_error_in_the_place_of_an_answer_is_told_and_tried_again(make: Make, server: ChatServer) -> None:
    busy = Reply('{"error": {"message": "busy", "code": 429}, "user_id": "u"}')
    assert make(busy, SOUND).answer(ASK).text
    with pytest.raises(ProposerError, match="HTTP 200 with an error object, code 429, 2 times"):
        make(busy, attempts=2).answer(ASK)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(""),
        Reply("{broken"),
        Reply("null"),
        Reply("[1, 2]"),
        Reply("[" * 100_000),
        Reply('"text"'),
        Reply("<html><script>alert(1)</script></html>", headers={"Content-Type": "text/html"}),
    ],
)
def test_what_is_no_chat_completion(reply: Reply, make: Make) -> None:
    with pytest.raises(ProposerError, match=r"an answer that is (empty|no JSON object|a web page).*base_url"):
        make(reply, attempts=1).answer(ASK)


def test_a_stream_that_nobody_asked_for_is_told_as_one(make: Make) -> None:
    with pytest.raises(ProposerError, match=r"is a stream of events; .*proposer\.extra_body: \{stream: false\}"):
        make(Reply('data: {"choices": []}\n\ndata: [DONE]\n')).answer(ASK)


def test_an_answer_that_drips_is_given_up_in_time(make: Make) -> None:
    with pytest.raises(ProposerError, match=r"no answer within 0\.1 s, 2 times"):
        make(replace(SOUND, drips=0.02), timeout=0.1, attempts=2).answer(ASK)


def test_an_answer_without_end_is_none(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distributed_tuner.clients.openai.LONGEST_ANSWER", 1000)
    with pytest.raises(ProposerError, match="longer than"):
        make(Reply(" " * 100_000), attempts=1).answer(ASK)


def test_further_fields_and_a_system_message_are_sent(make: Make, server: ChatServer) -> None:
    assert make(SOUND, extra_body={"reasoning_effort": "low"}, system="Be brief.").answer(ASK).text
    (body,) = server.bodies
    assert body["reasoning_effort"] == "low"
    assert [message["content"] for message in body["messages"]] == ["Be brief.", ASK.instruction]


@pytest.mark.parametrize(
    "usage", [None, 7, {}, {"prompt_tokens": "many", "completion_tokens": -4}, {"prompt_tokens": 10**400}]
)
def test_odd_usage_counts_as_none(usage: Any, make: Make) -> None:
    price = {"usd_per_million_input_tokens": 2.0, "usd_per_million_output_tokens": 10.0}
    answer = make(completion("Classify", usage=usage), price=price).answer(ASK)
    assert (answer.text, answer.input_tokens, answer.output_tokens, answer.usd) == ("Classify", 0, 0, 0.0)


def test_markup_comes_back_as_data(make: Make) -> None:
    text = "1. <script>alert('x')</script>\n2. {{ 7 * 7 }}"
    answer = make(completion(text)).answer(ASK)
    assert answer.text == text
    assert parse(answer.text, 2) == ["<script>alert('x')</script>", "{{ 7 * 7 }}"]


# --------------------------------------------------------------------------------------------------- the key
def test_openai_itself_wants_a_key(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in (None, "", "  "):
        monkeypatch.delenv("PROPOSER_KEY") if value is None else monkeypatch.setenv("PROPOSER_KEY", value)
        with pytest.raises(ProposerError, match="environment variable PROPOSER_KEY is not set"):
            make(base_url=None).answer(ASK)


def test_a_server_of_ones_own_wants_none(make: Make, server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROPOSER_KEY")
    assert make(SOUND).answer(ASK).text
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    assert make(SOUND, base_url=None).answer(ASK).text
    assert server.keys == ["Bearer none", "Bearer none"]


def test_a_key_is_taken_without_the_line_break_of_its_file(
    make: Make, server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROPOSER_KEY", f" {KEY}\n")
    assert make(SOUND).answer(ASK).text
    assert server.keys == [f"Bearer {KEY}"]
    monkeypatch.setenv("PROPOSER_KEY", f"{KEY}\n{KEY}ü")
    with pytest.raises(ProposerError, match="plain ASCII, but that in the variable PROPOSER_KEY is not"):
        make(SOUND).answer(ASK)


def test_no_message_log_line_or_repr_holds_the_key(
    make: Make, server: ChatServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Servers repeat keys in their errors, and clients log what they do."""
    for name in (None, "openai", "httpx2", "httpcore2", "tenacity"):
        caplog.set_level(logging.DEBUG, name)
    seen: list[str] = []
    told = f"Incorrect API key provided: {KEY}"
    misbehaviour = [
        SOUND,
        completion(None),
        *(refusal(status, told) for status in (400, 401, 403, 404, 422, 429, 500)),
        refusal(400, told, param=KEY),
        Reply(told, headers={"Content-Type": "text/html"}),
        Reply("{" + told),
        HANGS,
    ]
    for reply in misbehaviour:
        proposer = make(reply, attempts=2, timeout=0.2 if reply.hang else 5.0)
        try:
            seen.append(repr(proposer.answer(ASK)))
        except ProposerError as error:
            seen += [str(error), repr(error), traceback.format_exc(), repr(pickle.loads(pickle.dumps(error)))]
        seen += [repr(proposer), str(proposer.label), repr(proposer._config), repr(proposer._connected)]
    assert set(server.keys) == {f"Bearer {KEY}"}
    assert len(caplog.records) > 10
    seen += [f"{record.getMessage()} {record.exc_text} {vars(record)}" for record in caplog.records]
    seen += ["".join(traceback.format_exception(record.exc_info[1])) for record in caplog.records if record.exc_info]
    assert [text for text in seen if KEY in text] == []


@pytest.mark.parametrize(
    "url", ["localhost:8000/v1", "http://me:secret@host/v1", "https://host/v1?key=secret", "http://a b/v1"]
)
def test_addresses_hold_no_secrets_and_name_their_scheme(url: str) -> None:
    with pytest.raises(ValueError, match="base_url"):
        OpenAIProposerConfig(kind="openai", model="m", base_url=url)


@pytest.mark.parametrize(
    "url", ["http://localhost:8000/v1", "https://api.example.com/v1/", "http://[::1]:8000/v1", None]
)
def test_addresses_that_are_taken(url: str | None) -> None:
    assert json.loads(OpenAIProposerConfig(kind="openai", model="m", base_url=url).model_dump_json())["base_url"] == url
