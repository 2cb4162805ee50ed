"""How fast one actor asks its server: requests in flight, rates, retries, and a breaker for when the server is down.

Rates and requests in flight are the whole pool's; each actor keeps to its share of them, since actors do not talk.
"""

import asyncio
import math
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from distributed_tuner.config.oracle import OpenAIOracleConfig
from distributed_tuner.openai_client import pause

T = TypeVar("T")

Sleep = Callable[[float], Awaitable[None]]
CIRCUIT = "server"
MINUTE = 60.0  # seconds


class LeftAlone(Exception):
    """The server has failed so often in a row that it is not asked for a while. ``seconds``: how long still."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"left alone for {seconds:.1f} s")
        self.seconds = seconds


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
            wait=_wait,
            retry=tenacity.retry_if_exception(lambda error: isinstance(error, LeftAlone) or self._may_pass(error)),
            sleep=self._sleep,
            reraise=True,
        )
        async with self._in_flight:
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
                return await attempt()
        except OpenedState as opened:
            raise LeftAlone(max(0.0, opened.opened_at + self._config.breaker_seconds - time.time())) from None


def _is_well(breaker: Any) -> bool:
    return bool(breaker.context.state == "closed")


def _wait(state: Any) -> float:
    """Return the seconds before tenacity's next attempt: until the breaker lets one through, or as for any server."""
    error = state.outcome.exception()
    if isinstance(error, LeftAlone):
        return error.seconds + 0.01  # the breaker wants its time to be over, not just reached
    return pause(state)


# ------------------------------------------------------------------------------------------------------- the thread
class LoopThread:
    """An event loop in a thread of its own, which ends with this object or with the process."""

    def __init__(self, name: str) -> None:
        started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        threading.Thread(target=_serve, args=(started,), name=name, daemon=True).start()
        self._loop, stop = started.result()
        self._end = weakref.finalize(self, _end, self._loop, stop)

    def run(self, coroutine: Coroutine[Any, Any, T], timeout: float = math.inf) -> T:
        """Return the coroutine's result; it is cancelled when nobody waits for it any longer.

        Raises:
            TimeoutError: there is none within ``timeout`` seconds.
        """
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result(None if math.isinf(timeout) else timeout)
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """End the thread; what runs on it is cancelled."""
        self._end()


def _serve(started: "Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]]") -> None:
    async def live() -> None:
        stop = asyncio.Event()
        started.set_result((asyncio.get_running_loop(), stop))
        await stop.wait()

    asyncio.run(live())


def _end(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(stop.set)
