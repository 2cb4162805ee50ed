"""Ending a run early: `ray job stop` and other senders of SIGTERM, a disk that is full, a URI that was taken over.

All end it as Ctrl-C does. A job has three seconds from SIGTERM to SIGKILL, so nothing is waited for that can be had
again: trials go on from their last checkpoints.
"""

import _thread
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from actors.ray_internals.tune_import import tune


class Stop:
    """Whether the run shall end early."""

    def __init__(self) -> None:
        self.asked = False
        self._polled = False
        self._over = False

    def ask(self) -> None:
        """End the run, from any thread: at the next step of Tune's, outside of Tune at once."""
        self.asked = True
        if not self._polled and not self._over:
            _thread.interrupt_main()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Let SIGTERM end the run from here on. Ray's own handler, which this replaces, would end the process."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGTERM, self._on_signal)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    @contextmanager
    def polled(self) -> Iterator[None]:
        """Within Tune a request is heard between two of its steps, where nothing is half done."""
        interrupt = signal.getsignal(signal.SIGINT)
        self._polled = True
        try:
            yield
        finally:
            self._polled = False
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, interrupt)  # Tune leaves its own behind

    def over(self) -> None:
        """From here on the run is being brought to its end anyway."""
        self._over = True

    def _on_signal(self, number: int, frame: Any) -> None:
        self.asked = True
        if not self._polled and not self._over:
            raise KeyboardInterrupt


class Poll(tune.Callback):  # type: ignore[misc]
    """Hears of ``stop`` between two steps of Tune's."""

    def __init__(self, stop: Stop) -> None:
        self._stop = stop

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks into the experiment; a request to stop has no place there."""
        return {}

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if self._stop.asked:
            raise KeyboardInterrupt
