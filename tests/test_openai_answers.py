"""Answers of servers: completions and their usage, invalid ones, and refusals in all wrappings."""

import json
from typing import Any

import pytest

from distributed_tuner.clients.openai_answers import Refused, Unusable, Usage, first_choice, parsed, usage_of, written

KEY = "sk-RECOGNISABLE-0123456789"


@pytest.mark.parametrize(
    ("body", "reason", "again"),
    [
        ("", "is empty", True),
        ("{broken", "no JSON object", True),
        ("null", "no JSON object", True),
        ("[1, 2]", "no JSON object", True),
        ("[" * 100_000, "no JSON object", True),
        ("\n<!doctype html><html></html>", "is a web page", True),
        ('data: {"choices": []}\n\ndata: [DONE]\n', "is a stream of events", False),
    ],
)
def test_what_is_no_completion_is_told_as_what_it_is(body: str, reason: str, again: bool) -> None:
    with pytest.raises(Unusable, match=reason) as caught:
        parsed(body.encode())
    assert caught.value.again == again


@pytest.mark.parametrize("answer", [{}, {"choices": None}, {"choices": []}, {"choices": 5}, {"choices": [None]}])
def test_what_holds_no_choice(answer: dict[str, Any]) -> None:
    with pytest.raises(Unusable, match="no choice"):
        first_choice(answer)


def test_text_of_either_api() -> None:
    assert written({"text": " great"}) == written({"message": {"content": " great"}}) == " great"
    assert (
        written({"message": {"content": [{"type": "text", "text": "gr"}, {"type": "text", "text": "eat"}]}}) == "great"
    )
    assert written({"message": {"content": None}, "finish_reason": "stop"}) == ""
    with pytest.raises(Unusable, match="no text"):
        written({"message": {"role": "assistant"}})


@pytest.mark.parametrize("content", [None, "", "\n"])
def test_nothing_at_the_end_of_the_tokens_is_no_answer(content: str | None) -> None:
    with pytest.raises(Unusable, match=r"empty at the end of its tokens$"):
        written({"message": {"content": content}, "finish_reason": "length"})
    for name in ("reasoning_content", "reasoning"):
        with pytest.raises(Unusable, match="all of them thoughts"):
            written({"message": {"content": content, name: "The user asks"}, "finish_reason": "length"})


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 20, "completion_tokens": 3}, Usage(20, 0, 3)),
        ({"prompt_tokens": 20, "prompt_tokens_details": {"cached_tokens": 16}}, Usage(20, 16, 0)),
        ({"prompt_tokens": 20, "prompt_tokens_details": {"cached_tokens": 90}}, Usage(20, 20, 0)),
        ({"prompt_tokens": 20, "prompt_tokens_details": None, "completion_tokens": "many"}, Usage(20, 0, 0)),
        (None, None),
        ({"prompt_tokens": -4}, None),
        ({"prompt_tokens": 10**400}, None),
    ],
)
def test_usage(usage: Any, expected: Usage | None) -> None:
    assert usage_of({"usage": usage}) == expected


def refused(status: int, body: Any) -> Refused:
    return Refused.of_status(status, json.dumps(body).encode(), {}, KEY)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"error": {"message": "no", "code": "content_filter"}}, "HTTP 400 (code content_filter)"),
        ([{"error": {"code": 400, "message": "no", "status": "INVALID_ARGUMENT"}}], "HTTP 400"),
        ({"object": "error", "message": "no", "type": "BadRequestError"}, "HTTP 400"),
        ({"error": "Model unloaded or crashed."}, "HTTP 400"),
        ({"detail": "no"}, "HTTP 400"),
        ({"error": {"code": KEY}}, "HTTP 400"),
        ({"error": {"code": "\x1b[31mred"}}, "HTTP 400"),
        (["odd"], "HTTP 400"),
        ("odd", "HTTP 400"),
    ],
)
def test_a_refusal_is_told_by_status_and_code_alone(body: Any, told: str) -> None:
    assert refused(400, body).told == told


def test_a_key_of_letters_alone_is_no_code() -> None:
    assert Refused.of_status(400, b'{"error": {"code": "mysecretkey"}}', {}, "mysecretkey").told == "HTTP 400"


@pytest.mark.parametrize(
    ("answer", "told", "may_pass"),
    [
        ({"error": {"message": "Rate limit", "code": 429}}, "HTTP 200 with an error object, code 429", True),
        ({"error": {"message": "no", "code": 401}}, "HTTP 200 with an error object, code 401", False),
        ({"error": "overloaded"}, "HTTP 200 with an error object", True),
        ({"error": {"code": "content_filter"}}, "HTTP 200 with an error object, code content_filter", False),
    ],
)
def test_an_error_in_the_place_of_a_completion(answer: dict[str, Any], told: str, may_pass: bool) -> None:
    found = Refused.of_object(answer, KEY)
    assert found is not None
    assert (found.told, found.may_pass) == (told, may_pass)
    assert Refused.of_object({"error": None, "choices": []}, KEY) is None


@pytest.mark.parametrize(
    ("status", "words", "filtered"),
    [
        (400, "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.", True),
        (400, "Your prompt was flagged as potentially violating our usage policy.", True),
        (403, "Your chosen model requires moderation and your input was flagged", True),
        (400, "Content Exists Risk", True),
        (400, "maximum context length is 8 tokens", False),
        (401, "flagged", False),
        (400, "'temperature' does not support 0.0", False),
    ],
)
def test_filters_are_known_by_their_words(status: int, words: str, filtered: bool) -> None:
    found = refused(status, {"error": {"message": words}})
    assert found.filtered == filtered
    assert found.of_prompt == (filtered or status == 400)
