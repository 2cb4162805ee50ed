"""Connection to OpenAI-compatible servers: key, client, waiting times, and errors in words.

The key comes from the environment or a mounted file, goes to the client, and nowhere else: no message, log line or
repr holds it. Messages name status codes and settings, never what a server wrote, which may repeat what it was sent.
An answer is limited in time, from the first byte to the last, and in size, after unpacking; redirects are not followed.
"""

import asyncio
import ipaddress
import os
import re
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from distributed_tuner.clients.openai_answers import Refused, Unreached, Unusable, parsed
from distributed_tuner.config.server import SERVER_URL, ServerConfig
from distributed_tuner.errors import TunerError

OPENAI_URL = "https://api.openai.com/v1"
LONGEST_ANSWER = 4 * 2**20  # bytes; answers have some kB
FIRST_PAUSE = 0.5  # seconds
PACKED = {"gzip": zlib.MAX_WBITS | 32, "x-gzip": zlib.MAX_WBITS | 32, "deflate": zlib.MAX_WBITS}
ADVICE = {
    401: "the server does not take the key; check {key}",
    402: "the account has no credit left; see the provider",
    403: "the key may not use this model; check {key} and {part}.model",
    404: "the server has no such model or path; check {part}.model and {part}.base_url, which ends in /v1",
    429: "the server is busy or the quota is used up; try later, or set {part}.attempts higher",
}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server as one part of a run reaches it. ``part``: whose settings, "proposer" or "oracle", for messages.

    ``error``: what is raised where there is no key to use.
    """

    part: str
    settings: ServerConfig
    error: type[TunerError]

    @property
    def base_url(self) -> str | None:
        """The server's URL; None: OpenAI's own."""
        return self.settings.base_url or os.environ.get("OPENAI_BASE_URL") or None

    def key(self) -> str:
        """Return the key; empty where there is none and the server wants none.

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
        return key

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

    # ------------------------------------------------------------------------------------------------ in words
    def told(self, failures: Sequence[BaseException], bad_request: str, instead: str = "") -> str:
        """Return what a request's attempts met, the last one first, and what to do about that one.

        ``bad_request``: the advice for a request that the server does not take. ``instead``: that for this very one.
        """
        last = self.said(failures[-1])
        times = Counter(map(self.said, failures))
        met = [last, *(said for said in times if said != last)]
        spelled = "; before that it ".join(said + (f", {times[said]} times" if times[said] > 1 else "") for said in met)
        advice = instead or self._advice(failures[-1], bad_request)
        return f"{self.where()} {spelled}; {advice.replace('{part}', self.part)}"

    def said(self, failure: BaseException) -> str:
        """Return what became of an attempt, as a sentence about the server."""
        match failure:
            case Refused():
                return f"answered {failure.told}"
            case Unusable():
                return f"gave an answer that {failure.reason}"
            case TimeoutError():
                return f"gave no answer within {self.settings.timeout:g} s"
            case Unreached():
                return "cannot be reached"
            case _:
                return f"could not be asked ({type(failure).__name__})"

    def _advice(self, failure: BaseException, bad_request: str) -> str:
        match failure:
            case Refused():
                return self._advice_refused(failure, bad_request)
            case Unusable():
                return failure.advice or "check {part}.base_url, which ends in /v1, and see the server's log"
            case TimeoutError():
                return "set {part}.timeout higher"
            case Unreached():
                return "check {part}.base_url, and whether it is up"
            case _:
                return "see its log"

    def _advice_refused(self, refused: Refused, bad_request: str) -> str:
        if 300 <= refused.status < 400:
            place = f" (it points to {refused.place})" if refused.place else ""
            return f"redirects are not followed{place}: set {{part}}.base_url to its real address"
        if refused.pause is not None and refused.pause > self.settings.longest_pause:
            return (
                f"it asks to be left alone for {refused.pause:.0f} s, longer than {{part}}.longest_pause of"
                f" {self.settings.longest_pause:g} s: try later, or set that higher"
            )
        if refused.status in (400, 413, 422):
            return bad_request
        later = "try later, or set {part}.attempts higher" if refused.may_pass else "see its manual"
        return ADVICE.get(refused.status, later).replace("{key}", self.settings.api_key_env)


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


# ------------------------------------------------------------------------------------------------------- one request
@dataclass(frozen=True, slots=True)
class Received:
    """A JSON object that answers a request, and what the server calls itself."""

    answer: dict[str, Any]
    server: str


class Connection:
    """Sends requests to one server from one event loop, each once. ``room``: bytes of an answer beyond the usual ones.

    Raises:
        TunerError: there is no key where one is needed.
    """

    def __init__(self, endpoint: Endpoint, room: int = 0) -> None:
        import openai

        self._settings = endpoint.settings
        self._key = endpoint.key()
        # Time is limited in one place, around all of an attempt: a client's own limit starts anew with every byte.
        self._client = openai.AsyncOpenAI(
            api_key=self._key or "none",  # local servers want no key
            base_url=endpoint.base_url,
            max_retries=0,
            timeout=None,
            http_client=_bounded_client(LONGEST_ANSWER + room),
            default_headers={"Accept-Encoding": "identity"},
        )

    def __repr__(self) -> str:
        return f"Connection({self._settings.base_url or OPENAI_URL})"

    async def send(self, api: str, body: Mapping[str, Any]) -> Received:
        """Send once. ``body``: the request without the model, with its prompt or messages.

        Raises:
            Unusable: what came is no JSON object, breaks off, or is too long.
            Refused: the server says no.
            Unreached, TimeoutError: no server answered.
        """
        import openai

        settings = {**body, **self._settings.extra_body}
        name = "messages" if api == "chat" else "prompt"
        create: Any = self._client.chat.completions if api == "chat" else self._client.completions
        prompt = {name: settings.pop(name, None)}
        try:
            async with asyncio.timeout(self._settings.timeout):
                raw = await create.with_raw_response.create(model=self._settings.model, **prompt, extra_body=settings)
                response = raw.http_response
        except openai.APIStatusError as error:
            response = error.response
            raise Refused.of_status(response.status_code, response.content, response.headers, self._key) from None
        except openai.APIConnectionError as error:
            if isinstance(error.__cause__, Unusable):
                raise error.__cause__ from None
            raise Unreached from None
        answer = parsed(response.content)
        if "choices" not in answer and (refused := self.refused(answer)) is not None:
            raise refused
        return Received(answer, str(response.headers.get("server", "")))

    def refused(self, part: Mapping[str, Any]) -> Refused | None:
        """Return what an error object in an answer, or in a choice of it, means; None where there is none."""
        return Refused.of_object(part, self._key)

    def shown(self, text: str, most: int = 60) -> str:
        """Return what a model wrote as a message may show it: on one line, short, without the key."""
        if self._key:
            text = text.replace(self._key, "...")
        line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
        return (line or text[:1]) if len(line) <= most else f"{line[: most - 3].rstrip()}..."

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


def _bounded_client(longest: int) -> Any:
    """Return an HTTP client that follows no redirects and reads at most so many bytes of an answer."""
    import openai

    class BoundedClient(openai.DefaultAsyncHttpxClient):
        async def send(self, request: Any, **options: Any) -> Any:
            response = await super().send(request, **{**options, "stream": True})
            try:
                content = await _content(response, longest)
            finally:
                await response.aclose()
            gone = ("content-encoding", "content-length", "transfer-encoding")
            headers = [(name, value) for name, value in response.headers.items() if name not in gone]
            return type(response)(response.status_code, headers=headers, content=content, request=request)

    return BoundedClient(follow_redirects=False, timeout=None)


async def _content(response: Any, longest: int) -> bytes:
    """Return the body of an answer, unpacked.

    Raises:
        Unusable: it breaks off, is too long, or has an encoding that was not asked for.
    """
    packing = response.headers.get("content-encoding", "identity").strip().lower()
    if packing not in ("", "identity", *PACKED):
        raise Unusable(f"is packed in a way that was not asked for ({packing[:20]!r})")
    unpacker = zlib.decompressobj(PACKED[packing]) if packing in PACKED else None
    parts, left = [], longest
    try:
        async for chunk in response.aiter_raw():
            part = unpacker.decompress(chunk, left + 1) if unpacker is not None else chunk
            left -= len(part)
            if left < 0:
                raise Unusable(
                    f"is longer than {longest / 2**20:.0f} MiB", advice="no completion is: check {part}.base_url"
                )
            parts.append(part)
    except Unusable:
        raise
    except Exception:  # of the transport, or of what is packed
        raise Unusable("breaks off", again=True) from None
    return b"".join(parts)


# ------------------------------------------------------------------------------------------------------- settings
class Adapted:
    """Settings that a server or a model does not accept, by its refusals.

    What may be left out is: fields that not every server knows (``extras``, each with those that go with it),
    temperature, seed; ``max_tokens`` goes by its newer name. What no refusal has named is left out for good only when
    the request passes then.
    """

    def __init__(self, extras: Sequence[frozenset[str]] = ()) -> None:
        self._extras = extras
        self._exhausted = False  # everything was left out, and nothing passed
        self.lacks: frozenset[str] = frozenset()
        self.passed = False
        """Whether a request was taken, so that what is refused from then on is not the settings."""

    def of(self, wanted: Mapping[str, Any], lacks: frozenset[str]) -> dict[str, Any]:
        """Return the settings of a request without those that are lacking."""
        kept = {name: value for name, value in wanted.items() if name not in lacks}
        if "max_tokens" in lacks and "max_tokens" in wanted:
            kept["max_completion_tokens"] = wanted["max_tokens"]
        return kept

    def lacking(self, refused: Refused, sent: Mapping[str, Any]) -> frozenset[str]:
        """Return which of the settings sent a refusal may be about, and should be left out next; none: none is."""
        if refused.status not in (400, 422) or refused.filtered:
            return frozenset()
        if named := self._named(refused) & sent.keys():
            self.lacks |= named
            return frozenset(named)
        others = refused.param or re.search("logprob|context|too (long|large)", refused.words, re.IGNORECASE)
        if self.passed or self._exhausted or others:
            return frozenset()
        optional = (*self._extras, frozenset({"temperature", "seed"}), frozenset({"max_tokens"}))
        left = next((some & sent.keys() for some in optional if some & sent.keys()), frozenset())
        self._exhausted = not left
        return frozenset(left)

    def _named(self, refused: Refused) -> frozenset[str]:
        """Return the settings that a refusal names."""
        names = {name for name in ("temperature", "seed") if refused.names(name)}
        names |= {name for some in self._extras if any(map(refused.names, some)) for name in some}
        if refused.param == "max_tokens" or refused.names("max_completion_tokens"):
            names.add("max_tokens")
        return frozenset(names)

    def keep(self, lacks: frozenset[str]) -> None:
        """Take note that a request passed without these."""
        self.lacks |= lacks
        self.passed = True


def may_pass(error: BaseException) -> bool:
    """Tell whether a failure may be over when it is tried again."""
    match error:
        case Refused():
            return error.may_pass
        case Unusable():
            return error.again
        case _:
            return isinstance(error, Unreached | TimeoutError)


def pause(state: Any, longest: float) -> float:
    """Return the seconds before tenacity's next attempt: as the server says, else growing and a little random."""
    import tenacity

    error = state.outcome.exception()
    if isinstance(error, Refused) and error.pause is not None:
        return min(error.pause, longest)
    return float(tenacity.wait_exponential_jitter(initial=FIRST_PAUSE, max=min(60.0, longest))(state))
