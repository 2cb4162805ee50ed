"""Zot's probe: losses around the start at two radii, which tell noise, slope and curvature."""

import numpy as np

from distributed_tuner.config.optimizer import ZotConfig
from distributed_tuner.maths.survey import (
    Survey,
    learning_rate_of,
    noise_level,
    points_of,
    radius_of,
    signal_to_noise,
    survey,
)
from distributed_tuner.optimizers.probe import Measured
from distributed_tuner.seeds import Key
from distributed_tuner.values import Array64, Candidate, Center, Perturbation, Point

DIRECTIONS = 8
FAR = 1.0  # of the larger radius, in standard deviations of the model's embeddings; the smaller is half of it
HAIR = 1.0 / 512.0  # between the points whose losses differ by noise alone
HAIRS = 4  # such points on either side
QUERIES = 1 + 2 * HAIRS + 4 * DIRECTIONS
LEAST = 1.0 / 64.0  # of rho, in the same unit
MOST_POINTS = 64


class ZotProbe:
    """Points, rho and learning rate from pairs around ``center``. ``unit``: a standard deviation of the embeddings."""

    def __init__(self, optimizer: ZotConfig, center: Center, key: Key, unit: float) -> None:
        self._optimizer = optimizer
        self._center = center
        self._key = key
        self._unit = unit
        self._radius = unit * FAR / 2.0

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        def pair(direction: int, radius: float) -> list[Candidate]:
            return [Perturbation(self._center, (*self._key, direction), sign, radius) for sign in (1, -1)]

        hairs = [c for k in range(1, HAIRS + 1) for c in pair(0, k * HAIR * self._unit)]
        pairs = [c for far in (1, 2) for i in range(DIRECTIONS) for c in pair(i, far * self._radius)]
        return (Point(self._center.vector), *hairs, *pairs)

    def measure(self, losses: Array64) -> Measured | None:
        """Return noise, slope and curvature; None where the middle's losses are not all finite, or fewer than two
        directions'."""
        hairs, around = losses[: 1 + 2 * HAIRS], losses[1 + 2 * HAIRS :].reshape(2, DIRECTIONS, 2)
        whole = np.isfinite(around).all(axis=(0, 2))
        if not np.isfinite(hairs).all() or whole.sum() < 2:
            return None
        near, far = around[:, whole]
        line = np.concatenate([hairs[2::2][::-1], hairs[:1], hairs[1::2]])
        found = survey(float(line.mean()), noise_level(line), near, far, self._radius)
        settings = self._settings(found)
        snr = signal_to_noise(found, self._optimizer.chosen(settings)["rho"])
        told = {
            "noise": found.noise,
            "slope": found.slope,
            "trace": found.trace.value,
            "trace_error": found.trace.error,
            "norm": found.norm,
            "effective_dimension": found.effective_dimension,
            "snr": snr if np.isfinite(snr) else None,
        }
        return Measured(settings, told)

    def _settings(self, found: Survey) -> dict[str, float]:
        given = self._optimizer.points
        points = points_of(found.effective_dimension, MOST_POINTS) if given == "auto" else given
        settings = {"points": points, "rho": radius_of(found, LEAST * self._unit, FAR * self._unit)}
        rate = learning_rate_of(found, points, longest=self._unit * FAR)
        return settings | ({"learning_rate": rate} if rate > 0.0 else {})
