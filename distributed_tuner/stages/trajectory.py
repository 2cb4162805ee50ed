"""The prompts that a stage went through, thinned out as it goes on, and the few that stand for it."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from distributed_tuner.values import Candidate


@dataclass(frozen=True, eq=False, slots=True)
class Waypoint:
    """The optimizer's recommendation after a step, and the step's loss on train."""

    step: int
    candidate: Candidate
    loss: float


class Trajectory:
    """Records a stage. Beyond ``kept`` waypoints every second one is dropped, and from then on every second step.

    The best and the last are always kept.
    """

    KEPT = 64  # a prompt of a large model is a megabyte

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._stride = 1
        self._spread: list[Waypoint] = []
        self._best: Waypoint | None = None
        self._last: Waypoint | None = None

    def record(self, step: int, candidate: Candidate, loss: float) -> None:
        """Note what is recommended after a step. A loss that is not finite is never the best."""
        point = Waypoint(step, candidate, loss)
        self._last = point
        if math.isfinite(loss) and (self._best is None or loss < self._best.loss):
            self._best = point
        if step % self._stride == 0:
            self._spread.append(point)
        if len(self._spread) > self._kept:
            self._stride *= 2
            self._spread = [point for point in self._spread if point.step % self._stride == 0]

    def chosen(self, count: int) -> list[Waypoint]:
        """Return at most ``count`` waypoints in the order of steps: best and last, and others spread over the stage."""
        fixed = list(dict.fromkeys(point for point in (self._best, self._last) if point is not None))[:count]
        known = {point.step for point in fixed}
        others = [point for point in self._spread if point.step not in known]
        wanted = min(count - len(fixed), len(others))
        places = np.linspace(0, len(others) - 1, wanted).round().astype(int) if wanted else ()
        return sorted([*fixed, *(others[int(i)] for i in places)], key=lambda point: point.step)

    @property
    def recorded(self) -> list[Waypoint]:
        """All waypoints that are left, in the order of steps."""
        return list(self._spread)

    def state_dict(self) -> dict[str, Any]:
        """Return what was recorded."""
        return {"stride": self._stride, "spread": list(self._spread), "best": self._best, "last": self._last}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what was recorded."""
        self._stride, self._spread = state["stride"], list(state["spread"])
        self._best, self._last = state["best"], state["last"]
