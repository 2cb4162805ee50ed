"""Straggler policy: how long a tile may take before it is given to another actor as well. No Ray, no clock."""

import statistics
from collections import deque

FACTOR = 4.0  # a call slower than so many medians of its tiles, behind as many others, is a straggler
SECONDS = 5.0  # ... but not before this time
FIRST_SECONDS = 60.0  # ... and this one as long as too few tiles are known to tell
KNOWN = 5  # tiles from which a median says something
LOST_SECONDS = 120.0  # an actor that answers nothing for so long, and
LOST_FACTOR = 20.0  # ... so many times the longest tile, hangs


class Durations:
    """The seconds that the last tiles took."""

    def __init__(self, most: int = 100) -> None:
        self._last: deque[float] = deque(maxlen=most)
        self._median: float | None = None

    def add(self, seconds: float) -> None:
        """Add the seconds of one tile."""
        self._last.append(seconds)
        self._median = None

    @property
    def median(self) -> float | None:
        """The median; None before the first tile."""
        if self._median is None and self._last:
            self._median = statistics.median(self._last)
        return self._median

    def limit(self, tiles: int, ahead: int) -> float:
        """Return the seconds after which a call of so many tiles is late, behind ``ahead - 1`` others on its actor."""
        if len(self._last) < KNOWN or self.median is None:
            return max(FIRST_SECONDS, FACTOR * ahead * tiles * max(self._last, default=0.0))
        return max(SECONDS, FACTOR * ahead * tiles * self.median)

    def hang(self, tiles: int, ahead: int) -> float:
        """Return the seconds after which the actor of such a call is taken to hang; infinite without experience."""
        if len(self._last) < KNOWN:
            return float("inf")
        return max(LOST_SECONDS, LOST_FACTOR * ahead * tiles * max(self._last))
