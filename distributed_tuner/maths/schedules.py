"""Step-size schedules as functions of the step number. Counting steps is left to the optimizer."""

import math


def cosine_annealing(step: int, steps: int, maximum: float, floor: float) -> float:
    """Return ``gamma_t`` of cosine annealing from ``maximum`` down to ``floor * maximum`` (ZOT, Sec. 3.1).

    step: t, counted from 0. steps: T, the planned number of steps; from t = T on the value stays at the floor.
    """
    minimum = floor * maximum  # gamma_min = ratio * gamma_max
    progress = min(max(step, 0), steps) / max(steps, 1)
    return minimum + (maximum - minimum) * (1.0 + math.cos(math.pi * progress)) / 2.0


def linear_decay(step: int, steps: int, maximum: float, floor: float) -> float:
    """Return the step size on a straight line from ``maximum`` at t = 0 down to ``floor * maximum`` at t = T.

    Arguments as in ``cosine_annealing``. Without a floor it is the warm-up-free linear schedule of transformers.
    """
    minimum = floor * maximum
    progress = min(max(step, 0), steps) / max(steps, 1)
    return maximum - (maximum - minimum) * progress
