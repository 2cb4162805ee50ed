"""One question to a server: sent, tried again, adapted to what the server takes.

Every failure that ends a run leaves here as one of our errors, in our words; what is about one prompt alone as it came.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from distributed_tuner.clients.openai import Adapted, Connection, Endpoint, Received, may_pass
from distributed_tuner.clients.openai_answers import Refused, Unusable, Usage, first_choice, usage_of
from distributed_tuner.config.oracle import OpenAIOracleConfig
from distributed_tuner.errors import OracleError
from distributed_tuner.oracles.served.phrases import NO_ECHO
from distributed_tuner.oracles.served.rate_limit import LeftAlone, Pacing, Sleep

TOKEN_IDS = "logprob_token_ids"  # of vLLM: tell the probabilities of these tokens, whatever their rank
NAMED_BY_ID = "return_tokens_as_token_ids"  # of vLLM: name them so that no two are mixed up
CACHE_PROMPT = "cache_prompt"  # of llama.cpp: off, as what its cache holds changes how the rest is rounded
EXTRAS = (frozenset({TOKEN_IDS, NAMED_BY_ID}), frozenset({CACHE_PROMPT}), frozenset({"stop"}))
"""Fields that OpenAI's own API has not, and stop strings, which some of its models do not take."""
BYTES_A_LOGPROB = 512  # at most, of a token's in JSON, its bytes one by one
BAD_REQUEST = (
    "the server takes no such request; check {part}.model, {part}.api and {part}.top_logprobs, of which OpenAI's chat"
    " allows 20 and its completions 5, {part}.max_tokens, and that prompt and text fit into the model's context"
)
NO_LOGPROBS = "this model tells no such probabilities: set {part}.scores: generated and task.loss: zero_one"
FEWER_LOGPROBS = (
    "it tells fewer probabilities: set {part}.top_logprobs lower (OpenAI's completions allow 5), or {part}.scores:"
    " generated and task.loss: zero_one"
)

TOO_MANY = re.compile(
    r"(?=.*(between|max|most|less|exceed|greater|range|<|allowed))(?=.*\d)", re.IGNORECASE | re.DOTALL
)

Prompt = Callable[[], dict[str, Any]]
"""Makes the part of a request that holds the prompt, when it is its turn: embeddings are large."""


@dataclass(slots=True)
class Told:
    """Reported usage of the answers to one question; None for an answer without a report."""

    usages: list[Usage | None] = field(default_factory=list)

    def spent(self, estimate: Usage) -> Usage:
        """Return what all of them took. ``estimate``: what the last one is reckoned to, where it did not say."""
        spent = sum((usage for usage in self.usages if usage is not None), Usage())
        return spent if self.usages and self.usages[-1] is not None else spent + estimate


class _WithoutCache(Exception):
    """It is llama.cpp that answered, with its cache on."""


class HttpClient:
    """Asks one server from one event loop. ``sleep``: waits so many seconds between attempts.

    Raises:
        TunerError: there is no key where one is needed.
    """

    def __init__(self, config: OpenAIOracleConfig, endpoint: Endpoint, sleep: Sleep) -> None:
        self._config = config
        self._endpoint = endpoint
        self._connection = Connection(endpoint, room=BYTES_A_LOGPROB * config.top_logprobs)
        self._pacing = Pacing(config, may_pass, sleep)
        self._adapted = Adapted(EXTRAS)
        self._has_cache = False  # it is llama.cpp, whose cache is to be left aside

    async def ask(self, prompt: Prompt, settings: dict[str, Any], told: Told, tokens: int) -> dict[str, Any]:
        """Return the first choice of the answer, which is reckoned to take ``tokens``.

        ``told`` gets what each answer took, those that were of no use included.

        Raises:
            Unusable: the last answer breaks off or holds no choice.
            Refused: the server does not take this prompt.
            ModelError: it takes no request of this kind.
            OracleError: it did not answer in so many attempts.
        """
        async with self._pacing.slot():
            return await self._adapting(prompt, settings, told, tokens)

    async def _adapting(self, prompt: Prompt, settings: dict[str, Any], told: Told, tokens: int) -> dict[str, Any]:
        """Ask, and again without what the server does not take."""
        failures: list[BaseException] = []
        tried: frozenset[str] = frozenset()
        first: Refused | None = None
        while True:
            lacks = self._adapted.lacks | tried

            async def attempt(lacks: frozenset[str] = lacks) -> dict[str, Any]:
                try:
                    sent = self._sent(settings, lacks | self._adapted.lacks)  # which may be after a long wait
                    return await self._attempt({**prompt(), **sent}, told)
                except Exception as error:
                    failures.append(error)
                    raise

            try:
                choice = await self._pacing.send(attempt, tokens)
            except _WithoutCache:
                failures.clear()
                continue
            except Refused as refused:
                first = first or refused
                lacking = self._adapted.lacking(refused, self._sent(settings, lacks)) - lacks
                if not lacking:
                    raise self._refusal(failures if first is refused else [first], first) from None
                tried |= lacking
                failures.clear()
            except Unusable:
                raise
            except LeftAlone as error:
                raise OracleError(self._left_alone(error)) from None
            except Exception:
                raise OracleError(self._told(failures)) from None
            else:
                self._adapted.keep(lacks)
                return choice

    @property
    def taken(self) -> bool:
        """Whether the server has taken a request."""
        return self._adapted.passed

    def shown(self, text: str) -> str:
        """Return what a model wrote as a message may show it."""
        return self._connection.shown(text)

    def told_of(self, refused: Refused) -> str:
        """Return what a server says to a prompt, and what to do about it."""
        return self._told([refused])

    async def close(self) -> None:
        """Close the connections."""
        await self._connection.close()

    # ------------------------------------------------------------------------------------------------ parts
    def _sent(self, settings: dict[str, Any], lacks: frozenset[str]) -> dict[str, Any]:
        without_cache = {CACHE_PROMPT: False} if self._has_cache else {}
        return self._adapted.of(settings | without_cache, lacks)

    async def _attempt(self, body: dict[str, Any], told: Told) -> dict[str, Any]:
        try:
            received = await self._connection.send(self._config.api, body)
        except Unusable:
            told.usages.append(None)
            raise
        told.usages.append(usage_of(received.answer))
        if not self._has_cache and CACHE_PROMPT not in self._config.extra_body and _is_llama_cpp(received):
            self._has_cache = True
        if self._has_cache and CACHE_PROMPT not in body and CACHE_PROMPT not in self._adapted.lacks:
            raise _WithoutCache
        choice = first_choice(received.answer)
        if (refused := self._connection.refused(choice)) is not None:
            raise refused
        return choice

    def _refusal(self, failures: Sequence[BaseException], refused: Refused) -> Exception:
        """Return what a refusal that is left at the end becomes: of this prompt alone, or of all."""
        if refused.of_prompt:
            return refused
        told = self._told(failures)
        return OracleError(told) if refused.may_pass else self._endpoint.error(told)

    def _told(self, failures: Sequence[BaseException]) -> str:
        return self._endpoint.told(failures, BAD_REQUEST, _about_logprobs(failures[-1]))

    def _left_alone(self, error: LeftAlone) -> str:
        met = self._endpoint.where() if error.last is None else f"{self._told([error.last])}. It"
        return (
            f"{met} failed {error.failures} times in a row, so that it would be left alone for"
            f" {self._config.breaker_seconds:g} s before the next try, and none of the {self._config.attempts} attempts"
            " of a request is left: see whether it is up, or set oracle.attempts or oracle.breaker_seconds higher"
        )


def _about_logprobs(failure: BaseException) -> str:
    """Return what to do about a refusal to tell probabilities, in whatever words; empty where it is about others."""
    words = failure.words if isinstance(failure, Refused) else ""
    if re.search("echo", words, re.IGNORECASE):
        return NO_ECHO
    if not re.search("log[_ ]?prob", words, re.IGNORECASE):
        return ""
    return FEWER_LOGPROBS if TOO_MANY.search(words) else NO_LOGPROBS


def _is_llama_cpp(received: Received) -> bool:
    """Tell whether llama.cpp's server answers, which may stand behind another one."""
    timings = received.answer.get("timings")
    return "llama.cpp" in received.server or (isinstance(timings, dict) and "prompt_n" in timings)
