"""What all who ask OpenAI-compatible servers share: the key, refusals in words, what may pass and how long to wait.

The key comes from the environment or a mounted file, goes to the client, and nowhere else: no message, log line or
repr holds it.
Messages name status codes and settings, never what a server wrote, which may repeat what it was sent.
"""

import ipaddress
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from distributed_tuner.config.oracle import SERVER_URL
from distributed_tuner.errors import TunerError

OPENAI_URL = "https://api.openai.com/v1"
LONGEST_PAUSE = 60.0  # seconds; also of a server's Retry-After
RETRIED = (408, 409, 429)  # and what is 500 or more
OPTIONAL = frozenset({"temperature", "max_tokens", "seed"})  # settings of a request that some models refuse
MOST_TOKENS = 2**53  # that usage may tell of; what is more is no number of tokens
ADVICE = {
    401: "the server does not take the key; check {key}",
    403: "the key may not use this model; check {key} and {part}.model",
    404: "the server has no such model or path; check {part}.model and {part}.base_url, which ends in /v1",
    429: "the server is busy or the quota is used up; try later, or set {part}.attempts higher",
}


class ServerSettings(Protocol):
    """What the settings of everybody who asks a server hold."""

    @property
    def base_url(self) -> str | None: ...

    @property
    def api_key_env(self) -> str: ...

    @property
    def timeout(self) -> float: ...

    @property
    def attempts(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server as one part of a run reaches it. ``part``: whose settings, "proposer" or "oracle", for messages.

    ``error``: what is raised where there is no key to use.
    """

    part: str
    settings: ServerSettings
    error: type[TunerError]

    @property
    def base_url(self) -> str | None:
        """The server's URL; None: OpenAI's own."""
        return self.settings.base_url or os.environ.get("OPENAI_BASE_URL") or None

    def connection(self) -> dict[str, Any]:
        """Return what a client of the openai package is made with; retries are for others to make.

        Raises:
            TunerError: of the kind ``error``; there is no key although OpenAI wants one, its file cannot be read, or it
                is no ASCII.
        """
        name = self.settings.api_key_env
        key = os.environ.get(name, "").strip() or self._mounted_key(f"{name}_FILE")
        if not key and self.base_url is None:
            raise self.error(
                f"OpenAI wants a key, but the environment variable {name} is not set where the {self.part} runs; set"
                f" it, or {name}_FILE to a file that holds the key, before the run starts"
            )
        if not (key.isascii() and key.isprintable()):
            raise self.error(f"a key is plain ASCII, but that in the variable {name} is not; set it again")
        return {"api_key": key or "none", "base_url": self.base_url, "max_retries": 0}  # local servers want no key

    def _mounted_key(self, variable: str) -> str:
        """Return what the file holds that ``variable`` names, as mounted secrets do; empty where it names none."""
        path = os.environ.get(variable, "")
        try:
            return Path(path).read_text(encoding="utf-8").strip() if path else ""
        except (OSError, UnicodeDecodeError) as error:
            told = error.strerror if isinstance(error, OSError) else "it is no text"
            raise self.error(
                f"the file that {variable} names must hold a key, but {path} cannot be read where the {self.part} runs"
                f" ({told}); mount it there, or unset {variable}"
            ) from None

    def where(self) -> str:
        """Return what messages call the server."""
        url = self.settings.base_url
        return f"the {self.part}'s server ({url})" if url else f"the {self.part}'s server"

    def explain(self, error: BaseException, bad_request: str) -> str | None:
        """Return what a failed request comes from and what to do; None where it is none that a server or a network has.

        ``bad_request``: the advice for HTTP 400.
        """
        import openai

        match error:
            case openai.APIStatusError():
                return self._refusal(error.status_code, bad_request)
            case openai.APITimeoutError() | TimeoutError():
                return (
                    f"{self.where()} gave no answer within {self.settings.timeout:g} s, {self.settings.attempts} times;"
                    f" set {self.part}.timeout higher"
                )
            case openai.APIConnectionError():
                return f"{self.where()} cannot be reached; check {self.part}.base_url"
            case _:
                return None

    def _refusal(self, status: int, bad_request: str) -> str:
        later = f"try later, or set {self.part}.attempts higher" if status >= 500 else "see its manual"
        advice = bad_request if status == 400 else ADVICE.get(status, later)
        told = advice.format(key=self.settings.api_key_env, part=self.part)
        return f"{self.where()} answered HTTP {status}; {told}"


def is_plain(url: str) -> bool:
    """Tell whether a URL may be shown: no user, password or query stands in it."""
    return re.match(SERVER_URL, url) is not None


def is_private(url: str) -> bool:
    """Tell whether what is sent to a URL cannot be read or changed on the way: HTTPS, or this very machine."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme == "https" or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def without(wanted: Mapping[str, Any], lacks: frozenset[str]) -> dict[str, Any]:
    """Return the settings of a request without those that a model lacks; ``max_tokens`` goes by its newer name then."""
    kept = {name: value for name, value in wanted.items() if name not in lacks}
    if "max_tokens" in lacks and "max_tokens" in wanted:
        kept["max_completion_tokens"] = wanted["max_tokens"]
    return kept


def may_pass(error: BaseException) -> bool:
    """Tell whether a failure may be over when it is tried again."""
    import openai

    if isinstance(error, openai.APIStatusError):
        return error.status_code in RETRIED or error.status_code >= 500
    return isinstance(error, openai.APIConnectionError)  # timeouts among them


def pause(state: Any) -> float:
    """Return the seconds before tenacity's next attempt: as the server says, else growing and a little random."""
    import openai
    import tenacity

    error = state.outcome.exception()
    if isinstance(error, openai.APIStatusError):
        told = _retry_after(error.response.headers.get("retry-after"))
        if told is not None:
            return min(told, LONGEST_PAUSE)
    return float(tenacity.wait_exponential_jitter(initial=0.5, max=LONGEST_PAUSE)(state))


def _retry_after(header: str | None) -> float | None:
    """Return the seconds of a Retry-After header, which are a number or a date; None where it says nothing."""
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


def tokens_told(value: Any) -> int:
    """Return a number of tokens that a server tells; 0 where it is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < MOST_TOKENS else 0
