"""Rate limits of one client: requests in flight, rates, retries, and a circuit breaker.

Rates and requests in flight are the whole pool's; each actor keeps to its share of them, since actors do not talk.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from distributed_tuner.clients.openai import pause
from distributed_tuner.config.oracle import OpenAIOracleConfig

T = TypeVar("T")

Sleep = Callable[[float], Awaitable[None]]
CIRCUIT = "server"
MINUTE = 60.0  # seconds


class LeftAlone(Exception):
    """The server has failed so often in a row that it is not asked for a while.

    ``seconds``: how long still. ``failures``: how often, and ``last`` how at last.
    """

    def __init__(self, seconds: float, failures: int, last: BaseException | None) -> None:
        super().__init__(f"left alone for {seconds:.1f} s")
        self.seconds = seconds
        self.failures = failures
        self.last = last


class Rate:
    """At most ``a_minute`` things a minute, spread evenly: no more than a second's worth of them at once."""

    def __init__(self, a_minute: float) -> None:
        import aiolimiter

        self._burst = max(1.0, a_minute / MINUTE)
        self._limiter = aiolimiter.AsyncLimiter(self._burst, self._burst * MINUTE / a_minute)

    async def take(self, amount: float) -> None:
        """Wait until so many things may pass."""
        while amount > 0:
            part = min(amount, self._burst)
            await self._limiter.acquire(part)
            amount -= part


class Pacing:
    """Sends requests from one event loop. ``may_pass``: whether a failure is worth another attempt, and tells that the
    server is not well; others say nothing about it. ``sleep``: waits so many seconds between attempts."""

    def __init__(self, config: OpenAIOracleConfig, may_pass: Callable[[BaseException], bool], sleep: Sleep) -> None:
        import purgatory

        share = config.most_actors
        self._config = config
        self._sleep = sleep
        self._may_pass = may_pass
        self._in_flight = asyncio.Semaphore(math.ceil(config.concurrency / share))
        self._requests = None if config.requests_per_minute is None else Rate(config.requests_per_minute / share)
        self._tokens = None if config.tokens_per_minute is None else Rate(config.tokens_per_minute / share)
        self._breakers = purgatory.AsyncCircuitBreakerFactory(
            default_threshold=config.breaker_failures,
            default_ttl=config.breaker_seconds,
            exclude=[(BaseException, lambda error: not may_pass(error))],
        )
        self._probing = asyncio.Lock()
        self._failures = 0  # in a row
        self._last: BaseException | None = None

    def slot(self) -> asyncio.Semaphore:
        """Return what must be held while a question is asked, however often."""
        return self._in_flight

    async def send(self, attempt: Callable[[], Awaitable[T]], tokens: int) -> T:
        """Return what ``attempt`` returns, tried again while its failures may pass; it is reckoned to take ``tokens``.

        An attempt that the breaker refuses is one of the attempts, so that their number bounds the time of an outage.

        Raises:
            LeftAlone: the breaker refused the last attempt.
            BaseException: what the last attempt raised.
        """
        import tenacity

        retrying = tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(self._config.attempts),
            wait=self._wait,
            retry=tenacity.retry_if_exception(lambda error: isinstance(error, LeftAlone) or self._may_pass(error)),
            sleep=self._sleep,
            reraise=True,
        )
        return await retrying(self._guarded, attempt, tokens)

    async def _guarded(self, attempt: Callable[[], Awaitable[T]], tokens: int) -> T:
        """Make one attempt if the breaker lets it. After an outage one request at a time tries the server."""
        breaker = await self._breakers.get_breaker(CIRCUIT)
        if _is_well(breaker):
            return await self._through(breaker, attempt, tokens)
        async with self._probing:
            if not _is_well(breaker):
                return await self._through(breaker, attempt, tokens)
        return await self._through(breaker, attempt, tokens)

    async def _through(self, breaker: Any, attempt: Callable[[], Awaitable[T]], tokens: int) -> T:
        from purgatory.domain.model import OpenedState

        try:
            async with breaker:
                if self._requests is not None:
                    await self._requests.take(1)
                if self._tokens is not None:
                    await self._tokens.take(tokens)
                return await self._counted(attempt)
        except OpenedState as opened:
            limit = self._config.breaker_seconds
            left = opened.opened_at + limit - time.time()  # the breaker's clock, which somebody may set
            raise LeftAlone(min(max(0.0, left), limit), self._failures, self._last) from None

    async def _counted(self, attempt: Callable[[], Awaitable[T]]) -> T:
        try:
            answer = await attempt()
        except Exception as error:
            if self._may_pass(error):
                self._failures, self._last = self._failures + 1, error
            raise
        self._failures = 0
        return answer

    def _wait(self, state: Any) -> float:
        """Return the seconds before tenacity's next attempt: until the breaker lets one through, or as for any
        server."""
        error = state.outcome.exception()
        if isinstance(error, LeftAlone):
            return error.seconds + 0.01  # the breaker wants its time to be over, not just reached
        return pause(state, self._config.longest_pause)


def _is_well(breaker: Any) -> bool:
    return bool(breaker.context.state == "closed")
