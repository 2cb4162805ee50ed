"""Meter of a peer's spending, with caps. A request beyond a cap is refused and costs nothing."""

import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Spent:
    """requests: all that were answered. forwards: rows that were classified, an example forward each. written: answers
    in free words. prompt_tokens, output_tokens: of both, as an API would bill them."""

    requests: int = 0
    forwards: int = 0
    written: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0

    def __add__(self, other: "Spent") -> "Spent":
        mine, its = asdict(self), asdict(other)
        return Spent(**{name: mine[name] + its[name] for name in mine})


@dataclass(frozen=True, slots=True)
class Caps:
    """Hard caps: example forwards, answers in free words, and seconds since the first request."""

    forwards: int
    written: int
    seconds: float


class CapReached(Exception):
    """A request lies beyond a cap."""


class Meter:
    """Counts what is spent, from many threads. ``refused``: how many requests were, ``reached``: by which cap first."""

    def __init__(self, caps: Caps, clock: Callable[[], float] = time.monotonic) -> None:
        self.caps = caps
        self.refused = 0
        self.reached = ""
        self._clock = clock
        self._began: float | None = None
        self._spent = Spent()
        self._lock = threading.Lock()

    @property
    def spent(self) -> Spent:
        """What was spent so far."""
        with self._lock:
            return self._spent

    def charge(self, more: Spent) -> None:
        """Charge for a request, before it is answered.

        Raises:
            CapReached: it is beyond a cap.
        """
        with self._lock:
            now = self._clock()
            self._began = now if self._began is None else self._began
            after = self._spent + more
            reached = [
                (name, limit)
                for name, value, limit in (
                    ("forwards", after.forwards, self.caps.forwards),
                    ("proposals", after.written, self.caps.written),
                    ("seconds", now - self._began, self.caps.seconds),
                )
                if value > limit
            ]
            if reached:
                self.refused += 1
                self.reached = self.reached or reached[0][0]
                raise CapReached(f"the cap is reached: {reached[0][0]} {reached[0][1]:,g}")
            self._spent = after

    def add(self, more: Spent) -> None:
        """Count what is known only afterwards."""
        with self._lock:
            self._spent = self._spent + more
