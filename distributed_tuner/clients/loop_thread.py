"""An event loop in a thread of its own, for those who wait in ordinary functions."""

import asyncio
import math
import threading
import weakref
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class LoopThread:
    """The loop and its thread, which ends with this object or with the process."""

    def __init__(self, name: str) -> None:
        started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        threading.Thread(target=_serve, args=(started,), name=name, daemon=True).start()
        self._loop, stop = started.result()
        self._end = weakref.finalize(self, _end, self._loop, stop)

    def run(self, coroutine: Coroutine[Any, Any, T], timeout: float = math.inf) -> T:
        """Return the coroutine's result; it is cancelled when its caller stops waiting.

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
