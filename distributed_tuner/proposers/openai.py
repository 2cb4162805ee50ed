"""Any server that speaks OpenAI's chat completions, through the openai package; retries through tenacity.

The key comes from the environment, goes to the client, and nowhere else: no message, log line or repr holds it.
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
            completion = retrying(self._complete, ask)
        except openai.APIStatusError as error:
            raise ProposerError(self._refusal(error.status_code)) from None
        except openai.APITimeoutError:
            raise ProposerError(
                f"{self._where()} gave no answer within {self._config.timeout:g} s, {self._config.attempts} times; set"
                " proposer.timeout higher"
            ) from None
        except openai.APIConnectionError:
            raise ProposerError(f"{self._where()} cannot be reached; check proposer.base_url") from None
        except (openai.OpenAIError, ValueError, TypeError, AttributeError) as error:
            raise ProposerError(
                f"{self._where()} answered what is no chat completion ({type(error).__name__})"
            ) from None
        return self._read(completion, time.perf_counter() - began)

    def _complete(self, ask: Ask) -> Any:
        return self._connected().chat.completions.create(
            model=self._config.model,
            messages=[{"role": "user", "content": ask.instruction}],
            temperature=self._config.temperature,
            max_tokens=self._config.max_tokens,
            seed=seed_of(ask.key),
        )

    def _connected(self) -> Any:
        """Return the client; made with the first request, so that a missing key costs a restart stage, not the run."""
        if self._client is None:
            import openai

            base_url = self._config.base_url or os.environ.get("OPENAI_BASE_URL")
            key = os.environ.get(self._config.api_key_env)
            if key is None and base_url is None:
                raise ProposerError(f"OpenAI wants a key; set the environment variable {self._config.api_key_env}")
            self._client = openai.OpenAI(
                api_key=key or "none",  # local servers want none
                base_url=base_url,
                timeout=self._config.timeout,
                max_retries=0,
            )
        return self._client

    def _read(self, completion: Any, seconds: float) -> Answer:
        """Return the first choice's text; what is missing is empty."""
        choices = getattr(completion, "choices", None) or []
        message = getattr(choices[0], "message", None) if choices else None
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
        return f"the proposer's server ({self._config.base_url or 'the default one'})"


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
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
