"""Cma's probe: a ladder of pairs around the start at rising radii.

The pairs lie along directions of the whole prompt: a candidate of a random subspace is such a direction as well.
"""

import numpy as np

from distributed_tuner.config.optimizer import CmaConfig
from distributed_tuner.maths.ladder import expected_falls, selection, widest_best
from distributed_tuner.optimizers.probe import Measured
from distributed_tuner.seeds import Key
from distributed_tuner.values import Array64, Candidate, Center, Perturbation, Point

RADII = (0.1, 0.2, 0.4, 0.8, 1.6)  # in standard deviations of the model's embeddings
PAIRS = 2  # at each radius, along the same directions
QUERIES = 1 + 2 * PAIRS * len(RADII)


class CmaProbe:
    """Alpha from pairs around ``center``. ``unit``: a standard deviation of the embeddings."""

    def __init__(self, optimizer: CmaConfig, center: Center, key: Key, unit: float) -> None:
        self._optimizer = optimizer
        self._center = center
        self._key = key
        self._unit = unit

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        pairs = [
            Perturbation(self._center, (*self._key, direction), sign, radius * self._unit)
            for radius in RADII
            for direction in range(PAIRS)
            for sign in (1, -1)
        ]
        return (Point(self._center.vector), *pairs)

    def measure(self, losses: Array64) -> Measured | None:
        """Return what a generation drawn at each radius should gain; None where the start or all pairs failed."""
        if not np.isfinite(losses[0]):
            return None
        pairs = losses[1:].reshape(len(RADII), PAIRS, 2)
        falls = expected_falls(float(losses[0]), RADII, pairs, selection(self._optimizer.candidates))
        alpha = widest_best(RADII, falls)
        if alpha is None:
            return None
        finite = {f"{radius:g}": fall for radius, fall in zip(RADII, falls, strict=True) if np.isfinite(fall)}
        return Measured({"alpha": alpha}, {"falls": finite})
