"""Any server that speaks OpenAI's chat completions; retries through tenacity."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from distributed_tuner.clients.loop_thread import LoopThread
from distributed_tuner.clients.openai import Adapted, Connection, Endpoint, may_pass, pause
from distributed_tuner.clients.openai_answers import (
    OUT_OF_TOKENS,
    Refused,
    Unusable,
    Usage,
    first_choice,
    usage_of,
    written,
)
from distributed_tuner.config.proposer import OpenAIProposerConfig
from distributed_tuner.errors import ProposerError
from distributed_tuner.proposers.base import Ask
from distributed_tuner.seeds import seed_of
from distributed_tuner.values import Answer

BAD_REQUEST = "the server takes no such request; check {part}.model and {part}.max_tokens"
THOUGHTS = (
    "set proposer.max_tokens higher, or have a model that reasons first do less of it by proposer.extra_body, such as"
    " {reasoning_effort: minimal}"
)


class OpenAIProposer:
    """Asks one server. ``sleep``: waits so many seconds between attempts."""

    def __init__(self, config: OpenAIProposerConfig, sleep: Callable[[float], None] = time.sleep) -> None:
        self._config = config
        self._endpoint = Endpoint("proposer", config, ProposerError)
        self._sleep = sleep
        self._connected: tuple[Connection, LoopThread] | None = None
        self._adapted = Adapted()
        self.label = f"openai {config.model}"

    def answer(self, ask: Ask) -> Answer:
        """Send the instruction as one user message; once more without each setting that the model does not take.

        Raises:
            ProposerError: no key, a refusal, or no answer in so many attempts.
        """
        began = time.perf_counter()
        config = self._config
        wanted = {"temperature": config.temperature, "max_tokens": config.max_tokens, "seed": seed_of(ask.key)}
        system = [{"role": "system", "content": config.system}] if config.system else []
        messages = [*system, {"role": "user", "content": ask.instruction}]
        first: list[BaseException] = []
        lacks = self._adapted.lacks
        while True:
            sent = self._adapted.of(wanted, lacks)
            failures: list[BaseException] = []
            try:
                answer = self._retried({"messages": messages, **sent}, failures)
                self._adapted.keep(lacks)
                return self._read(answer, time.perf_counter() - began)
            except Refused as refused:
                first = first or failures
                lacking = self._adapted.lacking(refused, sent)
                if not lacking:
                    raise ProposerError(self._endpoint.told(first, BAD_REQUEST)) from None
                lacks |= lacking
            except Unusable as error:
                raise ProposerError(self._endpoint.told(failures or [error], BAD_REQUEST)) from None

    def _retried(self, body: Mapping[str, Any], failures: list[BaseException]) -> dict[str, Any]:
        """Return what answers a request, tried again while its failures may pass. ``failures`` gets each of them."""
        import tenacity

        connection, thread = self._connection()

        def attempt() -> dict[str, Any]:
            try:
                return thread.run(connection.send("chat", body)).answer
            except Exception as error:
                failures.append(error)
                raise

        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(self._config.attempts),
            wait=lambda state: pause(state, self._config.longest_pause),
            retry=tenacity.retry_if_exception(may_pass),
            sleep=self._sleep,
            reraise=True,
        )
        try:
            return retrying(attempt)
        except (Refused, Unusable):
            raise
        except Exception:
            raise ProposerError(self._endpoint.told(failures, BAD_REQUEST)) from None

    def _connection(self) -> tuple[Connection, LoopThread]:
        """Return the connection; made with the first request, so that a missing key costs a restart stage, not the
        run."""
        if self._connected is None:
            self._connected = Connection(self._endpoint), LoopThread("openai-proposer")
        return self._connected

    def _read(self, answer: dict[str, Any], seconds: float) -> Answer:
        """Return the first choice's text; empty, with the reason, where there is none."""
        usage, note = usage_of(answer) or Usage(), ""
        try:
            text = written(first_choice(answer))
        except Unusable as error:
            text, note = "", error.reason + (f"; {THOUGHTS}" if OUT_OF_TOKENS in error.reason else "")
        price = self._config.price
        usd = usage.read * price.usd_per_million_input_tokens + usage.written * price.usd_per_million_output_tokens
        return Answer(text, usage.read, usage.written, seconds, usd / 1e6, note)
