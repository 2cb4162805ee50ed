"""Any server that speaks OpenAI's chat completions, through the openai package; retries through tenacity."""

import time
from collections.abc import Callable
from typing import Any

from distributed_tuner.config.proposer import OpenAIProposerConfig
from distributed_tuner.errors import ProposerError
from distributed_tuner.openai_client import OPTIONAL, Endpoint, may_pass, pause, tokens_told, without
from distributed_tuner.proposers.base import Ask
from distributed_tuner.seeds import seed_of
from distributed_tuner.values import Answer

BAD_REQUEST = "the server takes no such request; check proposer.model and proposer.max_tokens"


class OpenAIProposer:
    """Asks one server. ``sleep``: waits so many seconds between attempts."""

    def __init__(self, config: OpenAIProposerConfig, sleep: Callable[[float], None] = time.sleep) -> None:
        self._config = config
        self._endpoint = Endpoint("proposer", config, ProposerError)
        self._sleep = sleep
        self._client: Any = None
        self._lacks: frozenset[str] = frozenset()  # settings that the model does not take
        self.label = f"openai {config.model}"

    def answer(self, ask: Ask) -> Answer:
        """Send the instruction as one user message.

        Raises:
            ProposerError: no key, a refusal, or no answer in so many attempts.
        """
        import openai
        import tenacity

        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(self._config.attempts),
            wait=pause,
            retry=tenacity.retry_if_exception(may_pass),
            sleep=self._sleep,
            reraise=True,
        )
        began = time.perf_counter()
        try:
            completion = self._adapting(retrying, ask)
        except (openai.OpenAIError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise ProposerError(self._endpoint.explain(error, BAD_REQUEST) or self._no_completion()) from None
        if not isinstance(completion, openai.types.chat.ChatCompletion):  # a web page, say
            raise ProposerError(self._no_completion())
        return self._read(completion, time.perf_counter() - began)

    def _adapting(self, retrying: Any, ask: Ask) -> Any:
        """Send a request; once more without each setting that the server names as one that the model does not take."""
        import openai

        while True:
            try:
                return retrying(self._complete, ask)
            except openai.BadRequestError as error:
                lacks = self._lacks | ({str(error.param)} & OPTIONAL)
                if lacks == self._lacks:
                    raise
                self._lacks = lacks

    def _complete(self, ask: Ask) -> Any:
        config = self._config
        settings: dict[str, Any] = {
            "temperature": config.temperature,
            "max_tokens": config.max_tokens,
            "seed": seed_of(ask.key),
        }
        settings = without(settings, self._lacks)
        messages = [{"role": "user", "content": ask.instruction}]
        return self._connected().chat.completions.create(model=config.model, messages=messages, **settings)

    def _connected(self) -> Any:
        """Return the client; made with the first request, so that a missing key costs a restart stage, not the run."""
        if self._client is None:
            import openai

            self._client = openai.OpenAI(**self._endpoint.connection(), timeout=self._config.timeout)
        return self._client

    def _read(self, completion: Any, seconds: float) -> Answer:
        """Return the first choice's text; what is missing is empty. Servers' answers are not validated before."""
        choices = getattr(completion, "choices", None)
        message = getattr(choices[0], "message", None) if choices and isinstance(choices, list) else None
        content = getattr(message, "content", None)
        usage = getattr(completion, "usage", None)
        read, written = (tokens_told(getattr(usage, name, None)) for name in ("prompt_tokens", "completion_tokens"))
        price = self._config.price
        usd = (read * price.usd_per_million_input_tokens + written * price.usd_per_million_output_tokens) / 1e6
        return Answer(content if isinstance(content, str) else "", read, written, seconds, usd)

    def _no_completion(self) -> str:
        return (
            f"{self._endpoint.where()} answered what is no chat completion; check proposer.base_url, which ends in /v1"
        )
