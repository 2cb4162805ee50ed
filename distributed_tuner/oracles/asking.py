"""One question to a server: sent through the openai package, tried again, adapted to what the server takes.

Every failure leaves here as one of our errors, in our words: what a server wrote, what it was sent and the key do not.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from distributed_tuner.config.oracle import OpenAIOracleConfig
from distributed_tuner.errors import OracleError, TunerError
from distributed_tuner.openai_client import OPTIONAL, Endpoint, may_pass, without
from distributed_tuner.oracles.pacing import LeftAlone, Pacing, Sleep
from distributed_tuner.oracles.served_scores import Unusable, Usage, first_choice, parsed, usage_of

TOKEN_IDS = "logprob_token_ids"  # of vLLM: tell the probabilities of these tokens, whatever their rank
NAMED_BY_ID = "return_tokens_as_token_ids"  # of vLLM: name them so that no two are mixed up
EXTRA = frozenset({TOKEN_IDS, NAMED_BY_ID, "prompt_embeds"})  # fields that OpenAI's own API has not
BAD_REQUEST = (
    "the server takes no such request; check {part}.model, {part}.api and {part}.top_logprobs, of which OpenAI's chat"
    " allows 20 and its completions 5, and that prompt and text fit into the model's context"
)
REFUSED = (400, 422)  # a request that the server does not understand
TRANSPORT = frozenset({"httpx", "httpx2", "httpcore", "httpcore2"})  # whose errors the openai package lets through

Prompt = Callable[[], dict[str, Any]]
"""Makes the part of a request that holds the prompt, when it is its turn: embeddings are large."""


class Asker:
    """Asks one server from one event loop. ``sleep``: waits so many seconds between attempts.

    Raises:
        TunerError: there is no key where one is needed.
    """

    def __init__(self, config: OpenAIOracleConfig, endpoint: Endpoint, sleep: Sleep) -> None:
        import openai

        self._config = config
        self._endpoint = endpoint
        # Time is limited in one place, around all of an attempt: a client's own limit starts anew with every byte.
        self._client = openai.AsyncOpenAI(**endpoint.connection(), timeout=None)
        self._pacing = Pacing(config, _worth_another, sleep)
        self._lacks: frozenset[str] = frozenset()  # settings of a request that the server or the model does not take

    async def ask(
        self, prompt: Prompt, settings: dict[str, Any], told: list[Usage | None], tokens: int
    ) -> dict[str, Any]:
        """Return the first choice of the answer, which is reckoned to take ``tokens``.

        ``told`` gets what each answer took, those that were of no use included; None where the server does not tell.

        Raises:
            Unusable: the last answer breaks off or holds no choice.
            ModelError: the server does not take the request.
            OracleError: it did not answer in so many attempts.
        """
        import openai

        sent: dict[str, Any] = {}

        async def attempt() -> dict[str, Any]:
            sent.clear()
            sent.update(without(settings, self._lacks))  # as known by now, which may be after a long wait
            return await self._attempt(prompt, sent, told)

        while True:
            try:
                return await self._pacing.send(attempt, tokens)
            except openai.APIStatusError as error:
                lacking = _lacking(error, sent)
                if not lacking:
                    raise self._failure(error) from None
                self._lacks |= lacking
            except (openai.OpenAIError, TimeoutError, LeftAlone) as error:
                raise self._failure(error) from None

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _attempt(self, prompt: Prompt, settings: dict[str, Any], told: list[Usage | None]) -> dict[str, Any]:
        """Send once.

        Raises:
            Unusable: the answer breaks off or holds no choice.
            openai.OpenAIError, TimeoutError: there is none.
        """
        body = prompt() | settings
        extra = {name: body.pop(name) for name in EXTRA & body.keys()}
        try:
            async with asyncio.timeout(self._config.timeout):
                async with self._create()(model=self._config.model, **body, extra_body=extra or None) as response:
                    data = await response.read()
        except Exception as error:
            if type(error).__module__.partition(".")[0] not in TRANSPORT:
                raise
            told.append(None)
            raise Unusable("breaks off", again=True) from None
        told.append(None)
        answer = parsed(data)
        told[-1] = usage_of(answer)
        return first_choice(answer)

    def _create(self) -> Any:
        chat = self._config.api == "chat"
        return (self._client.chat.completions if chat else self._client.completions).with_streaming_response.create

    def _failure(self, error: Exception) -> TunerError:
        """Return the error that the request ends with, in our words."""
        if isinstance(error, LeftAlone):
            return OracleError(
                f"{self._endpoint.where()} failed {self._config.breaker_failures} times in a row and was left alone for"
                f" {self._config.breaker_seconds:g} s, again and again; see whether it is up, or set oracle.attempts or"
                " oracle.breaker_seconds higher"
            )
        told = self._endpoint.explain(error, BAD_REQUEST)
        if told is None:
            return OracleError(f"{self._endpoint.where()} could not be asked ({type(error).__name__}); see its log")
        return OracleError(told) if _worth_another(error) else self._endpoint.error(told)


def _worth_another(error: BaseException) -> bool:
    if isinstance(error, Unusable):
        return error.again
    return isinstance(error, TimeoutError) or may_pass(error)


def _lacking(error: Any, sent: dict[str, Any]) -> frozenset[str]:
    """Return which of the settings sent a refusal is about; none where it is about something else.

    Servers name a setting that a model does not take, but not always a field that they do not know at all.
    """
    if error.status_code not in REFUSED:
        return frozenset()
    named = frozenset({str(error.param)}) & OPTIONAL & sent.keys()
    return named or frozenset({TOKEN_IDS, NAMED_BY_ID}) & sent.keys()
