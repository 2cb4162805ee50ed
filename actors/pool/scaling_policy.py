"""Scaling policy: how many oracle actors a pool should have. Arithmetic alone: no Ray, no clock of its own."""

import math
from collections import deque

from distributed_tuner.config.oracle import Elastic


def needed(limits: Elastic, tiles: int, late: int = 0) -> int:
    """Return how many actors are enough for what is asked now.

    tiles: those that wait and those that are computed. late: actors whose tile runs far longer than others do; they may
    have gone without a word, and cannot be counted on.
    """
    return min(limits.max, math.ceil(tiles / limits.queue) + late)


def wanted(limits: Elastic, now_needed: int, lately_needed: int) -> int:
    """Return how many actors there should be: enough for now, and for the most of the last ``idle_seconds``."""
    return max(limits.min, now_needed, lately_needed)


class Lately:
    """Sliding maximum over the last ``seconds``."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._peaks: deque[tuple[float, int]] = deque()  # falling numbers, each the largest since the one before

    def note(self, number: int, now: float) -> int:
        """Add a number of this moment (seconds of any clock that goes forward); return the largest."""
        while self._peaks and self._peaks[-1][1] <= number:
            self._peaks.pop()
        self._peaks.append((now, number))
        while now - self._peaks[0][0] >= self._seconds:
            self._peaks.popleft()
        return self._peaks[0][1]
