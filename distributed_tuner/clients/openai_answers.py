"""Replies of OpenAI-compatible servers, sorted: a completion, an error, or something else. Plain JSON in.

Servers' answers are validated here alone. Only the code of an error is shown of them, since they may repeat what they
were sent: anything that is no completion becomes an exception with a message of this project.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

MOST_TOKENS = 2**53  # in a usage; a larger number is not a number of tokens
READ = 4000  # characters of a refusal that are looked at
RETRIED = (408, 409, 425, 429)  # and what is 500 or more
PER_PROMPT = (400, 413, 422)  # refusals that may be about a prompt
CODE = re.compile(r"[A-Za-z][A-Za-z_]{2,48}|\d{3,5}")
OUT_OF_TOKENS = "is empty at the end of its tokens"
FILTERED = re.compile(  # of hosts that look at prompts or answers before they pass them on
    r"content[ _-]?(filter|policy|management|exists risk)|responsibleai|moderation|flagged|data_?inspection_?failed"
    r"|prohibited[ _]content|safety (system|settings|filter)|sensitive (content|words)|inappropriate content"
    r"|\u654f\u611f",
    re.IGNORECASE,
)


class Unusable(Exception):
    """An answer came, but nothing can be read from it. ``again``: another attempt may do better. ``advice``: what to
    set where it is always so."""

    def __init__(self, reason: str, again: bool = False, advice: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.again = again
        self.advice = advice


class Unreached(Exception):
    """There was no answer."""


class Refused(Exception):
    """A server says no: by an HTTP status, or by an error object in the place of a completion.

    ``status``: the HTTP status, of an error object the one that its code names, 0 where it names none. ``told``: status
    and code in words that may be shown. ``param``, ``words``: what the refusal is about and all that it says, for
    looking at, never for showing. ``pause``: seconds of its Retry-After. ``place``: host that it redirects to.
    """

    def __init__(self, status: int, told: str, param: str, words: str, pause: float | None, place: str) -> None:
        super().__init__(told)
        self.status = status
        self.told = told
        self.param = param
        self.words = words
        self.pause = pause
        self.place = place

    @classmethod
    def of_status(cls, status: int, body: bytes, headers: Mapping[str, str], key: str) -> "Refused":
        """Return what an HTTP status other than 200 means. ``key``: what no message may hold."""
        text = body[:READ].decode("utf-8", "replace")
        try:
            error = _error_of(json.loads(body))
        except (ValueError, RecursionError):
            error = {}
        code = _code(error, key)
        return cls(
            status,
            f"HTTP {status}" + (f" (code {code})" if code not in ("", str(status)) else ""),
            str(error.get("param") or ""),
            text,
            _retry_after(headers),
            _host(headers.get("location", ""), key),
        )

    @classmethod
    def of_object(cls, answer: Mapping[str, Any], key: str) -> "Refused | None":
        """Return what an error object in the place of a completion means; None where there is none."""
        error = _error_of(answer)
        if not error:
            return None
        code = _code(error, key)
        status = int(code) if code.isdecimal() and 400 <= int(code) < 600 else 0
        told = "HTTP 200 with an error object" + (f", code {code}" if code else "")
        return cls(status, told, str(error.get("param") or ""), json.dumps(error)[:READ], None, "")

    @property
    def may_pass(self) -> bool:
        """Whether it may be over when it is tried again."""
        return not self.filtered and (self.status in RETRIED or self.status >= 500 or self.status == 0)

    @property
    def filtered(self) -> bool:
        """Whether a filter did not let the prompt or its answer pass."""
        return self.status not in (401, 404, *RETRIED) and bool(FILTERED.search(self.words))

    @property
    def of_prompt(self) -> bool:
        """Whether it may be about this prompt, and others may pass."""
        return self.status in PER_PROMPT or self.filtered

    def names(self, setting: str) -> bool:
        """Tell whether it is about a field of the request."""
        return self.param == setting or bool(re.search(rf"(?<!\w){re.escape(setting)}(?!\w)", self.words))


def _error_of(body: Any) -> dict[str, Any]:
    """Return the error object of an answer, in whatever wrapping; empty where there is none."""
    if isinstance(body, list):
        body = body[0] if body else None
    if not isinstance(body, dict):
        return {}
    error = body.get("error") or (body if body.get("object") == "error" else None)
    if isinstance(error, str):
        return {"message": error}
    return error if isinstance(error, dict) else {}


def _code(error: Mapping[str, Any], key: str) -> str:
    """Return the code of an error if it looks like one, and like no key."""
    for name in ("code", "status"):
        value = error.get(name)
        code = "" if isinstance(value, bool) or not isinstance(value, str | int) else str(value)
        if CODE.fullmatch(code) and not (key and (code in key or key in code)):
            return code
    return ""


def _host(url: str, key: str) -> str:
    """Return scheme and host of a URL; empty where there are none."""
    found = re.match(r"https?://[\w.-]{1,80}(:\d{1,5})?(?=/|$)", url)
    return found[0] if found and not (key and key in found[0]) else ""


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of a Retry-After header, which are a number or a date; None where it says nothing."""
    header = headers.get("retry-after")
    if not header:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


# ------------------------------------------------------------------------------------------------------- completions
@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that a server billed: read, found in its own cache among those, and written."""

    read: int = 0
    cached: int = 0
    written: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(self.read + other.read, self.cached + other.cached, self.written + other.written)


def parsed(body: bytes) -> dict[str, Any]:
    """Return the JSON object of an answer.

    Raises:
        Unusable: it is none.
    """
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        raise _no_json(body) from None
    if not isinstance(answer, dict):
        raise Unusable("is no JSON object", again=True)
    return answer


def _no_json(body: bytes) -> Unusable:
    start = body[:READ].lstrip().lower()
    if not start:
        return Unusable("is empty", again=True)
    if start.startswith((b"data:", b"event:", b": ")):
        advice = "the server streams unasked: set {part}.extra_body: {stream: false}, or turn it off there"
        return Unusable("is a stream of events", advice=advice)
    if start.startswith(b"<"):
        return Unusable("is a web page", again=True, advice="{part}.base_url ends in /v1 and is no page's")
    return Unusable("is no JSON object", again=True)


def first_choice(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the first choice.

    Raises:
        Unusable: there is none.
    """
    choices = answer.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict):
        raise Unusable("holds no choice", again=True)
    return choice


def written(choice: Mapping[str, Any]) -> str:
    """Return the text of a choice; empty where the model ended without any.

    Raises:
        Unusable: the choice has no place for a text; the model had no tokens left for one.
    """
    message = choice.get("message")
    holder, name = (message, "content") if isinstance(message, dict) else (choice, "text")
    if name not in holder:
        raise Unusable("holds no text")
    text = _joined(holder[name])
    if not text.strip() and cut_short(choice):
        thought = any(holder.get(other) for other in ("reasoning_content", "reasoning"))
        raise Unusable(f"{OUT_OF_TOKENS}, all of them thoughts" if thought else OUT_OF_TOKENS)
    return text


def cut_short(choice: Mapping[str, Any]) -> bool:
    """Tell whether a model had more to say than it was allowed tokens."""
    return choice.get("finish_reason") == "length"


def was_filtered(choice: Mapping[str, Any]) -> bool:
    """Tell whether a host kept the answer back, or the model was made to refuse."""
    return choice.get("finish_reason") == "content_filter"


def _joined(content: Any) -> str:
    """Return a message's content, which may be in parts."""
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
        return "".join(text for text in texts if isinstance(text, str))
    return content if isinstance(content, str) else ""


def usage_of(answer: Mapping[str, Any]) -> Usage | None:
    """Return what the server billed; None where it does not tell how much it read."""
    told = answer.get("usage")
    if not isinstance(told, dict):
        return None
    read = _tokens(told.get("prompt_tokens"))
    details = told.get("prompt_tokens_details")
    cached = _tokens(details.get("cached_tokens")) if isinstance(details, dict) else 0
    return Usage(read, min(cached, read), _tokens(told.get("completion_tokens"))) if read else None


def _tokens(value: Any) -> int:
    """Return a number of tokens that a server tells; 0 where it is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < MOST_TOKENS else 0
