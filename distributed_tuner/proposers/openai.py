"""Any server that speaks OpenAI's chat completions, through the openai package; retries through tenacity.

The key comes from the environment, goes to the client, and nowhere else: no message, log line or repr holds it.
Messages name status codes and settings, never what a server wrote, which may repeat what it was sent.
"""

import math
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from distributed_tuner.config.proposer import OpenAIProposerConfig
from distributed_tuner.errors import ProposerError
from distributed_tuner.proposers.base import Answer, Ask
from distributed_tuner.seeds import seed_of

LONGEST_PAUSE = 60.0  # seconds; also of a server's Retry-After
RETRIED = (408, 409, 429)  # and what is 500 or more
OPTIONAL = frozenset({"temperature", "max_tokens", "seed"})  # settings of a request that some models refuse
MOST_TOKENS = 2**53  # that usage may tell of; what is more is no number of tokens
ADVICE = {
    400: "the server takes no such request; check proposer.model and proposer.max_tokens",
    401: "the server does not take the key; check {key}",
    403: "the key may not use this model; check {key} and proposer.model",
    404: "the server has no such model or path; check proposer.model and proposer.base_url, which ends in /v1",
    429: "the server is busy or the quota is used up; try later, or set proposer.attempts higher",
}


class OpenAIProposer:
    """Asks one server. ``sleep``: waits so many seconds between attempts."""

    def __init__(self, config: OpenAIProposerConfig, sleep: Callable[[float], None] = time.sleep) -> None:
        self._config = config
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
            wait=_pause,
            retry=tenacity.retry_if_exception(_may_pass),
            sleep=self._sleep,
            reraise=True,
        )
        began = time.perf_counter()
        try:
            completion = self._adapting(retrying, ask)
        except openai.APIStatusError as error:
            raise ProposerError(self._refusal(error.status_code)) from None
        except openai.APITimeoutError:
            raise ProposerError(
                f"{self._where()} gave no answer within {self._config.timeout:g} s, {self._config.attempts} times; set"
                " proposer.timeout higher"
            ) from None
        except openai.APIConnectionError:
            raise ProposerError(f"{self._where()} cannot be reached; check proposer.base_url") from None
        except (openai.OpenAIError, ValueError, TypeError, AttributeError, RecursionError):
            raise ProposerError(self._no_completion()) from None
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
        settings = {name: value for name, value in settings.items() if name not in self._lacks}
        if "max_tokens" in self._lacks:  # its name with newer models
            settings["max_completion_tokens"] = config.max_tokens
        messages = [{"role": "user", "content": ask.instruction}]
        return self._connected().chat.completions.create(model=config.model, messages=messages, **settings)

    def _connected(self) -> Any:
        """Return the client; made with the first request, so that a missing key costs a restart stage, not the run."""
        if self._client is None:
            import openai

            base_url = self._config.base_url or os.environ.get("OPENAI_BASE_URL") or None
            name = self._config.api_key_env
            key = os.environ.get(name, "").strip()
            if not key and base_url is None:
                raise ProposerError(
                    f"OpenAI wants a key, but the environment variable {name} is not set where the proposer runs; set"
                    " it before the run starts"
                )
            if not (key.isascii() and key.isprintable()):
                raise ProposerError(f"a key is plain ASCII, but that in the variable {name} is not; set it again")
            self._client = openai.OpenAI(
                api_key=key or "none",  # local servers want none
                base_url=base_url,
                timeout=self._config.timeout,
                max_retries=0,
            )
        return self._client

    def _read(self, completion: Any, seconds: float) -> Answer:
        """Return the first choice's text; what is missing is empty. Servers' answers are not validated before."""
        choices = getattr(completion, "choices", None)
        message = getattr(choices[0], "message", None) if choices and isinstance(choices, list) else None
        content = getattr(message, "content", None)
        usage = getattr(completion, "usage", None)
        read, written = (_count(getattr(usage, name, None)) for name in ("prompt_tokens", "completion_tokens"))
        price = self._config.price
        usd = (read * price.usd_per_million_input_tokens + written * price.usd_per_million_output_tokens) / 1e6
        return Answer(content if isinstance(content, str) else "", read, written, seconds, usd)

    def _refusal(self, status: int) -> str:
        advice = ADVICE.get(status, "try later, or set proposer.attempts higher" if status >= 500 else "see its manual")
        return f"{self._where()} answered HTTP {status}; {advice.format(key=self._config.api_key_env)}"

    def _where(self) -> str:
        url = self._config.base_url
        return f"the proposer's server ({url})" if url else "the proposer's server"

    def _no_completion(self) -> str:
        return f"{self._where()} answered what is no chat completion; check proposer.base_url, which ends in /v1"


def _may_pass(error: BaseException) -> bool:
    """Tell whether a failure may be over when it is tried again."""
    import openai

    if isinstance(error, openai.APIStatusError):
        return error.status_code in RETRIED or error.status_code >= 500
    return isinstance(error, openai.APIConnectionError)  # timeouts among them


def _pause(state: Any) -> float:
    """Return the seconds before the next attempt: as the server says, else growing and a little random."""
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


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < MOST_TOKENS else 0
