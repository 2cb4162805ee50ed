"""Precision check: the rounding noise of a loss difference against the difference itself.

An optimizer learns from differences of losses. Where weights and activations have few bits, a difference as small as
its rounding noise teaches nothing. Both are measured here, on the candidates that an optimizer would compare.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from distributed_tuner.oracles.base import LossOracle
from distributed_tuner.values import Array64, Batch, Candidate, Cost, Latent, Perturbation, Point, PromptSpec, Request

LIMIT = 3.0  # signal-to-noise below which rounding swamps the difference; pure noise measures about 1
COPIES = (1, 2)  # k of the scales 1 + k / STEPS
STEPS = 512


@dataclass(frozen=True, slots=True)
class Calibration:
    """Measurements, in units of the loss.

    signal: RMS over asks of the difference of their two losses, its own rounding noise included. noise: of such a
    difference, sqrt(2) times ``loss_noise``, that of one loss. asks: how many had finite losses; with none of them
    signal and noise are 0. cost: what it took.
    """

    signal: float
    noise: float
    asks: int
    cost: Cost

    @property
    def loss_noise(self) -> float:
        """Rounding noise of one loss."""
        return self.noise / math.sqrt(2)

    @property
    def snr(self) -> float:
        """Signal over noise; 0 where there is no signal, infinite where there is no noise."""
        if self.signal == 0:
            return 0.0
        return self.signal / self.noise if self.noise > 0 else math.inf

    @property
    def swamped(self) -> bool:
        """True where rounding swamps the difference: the optimizer would follow noise."""
        return self.snr < LIMIT


def calibrate(oracle: LossOracle, batch: Batch, prompt: PromptSpec, asks: Sequence[Sequence[Candidate]]) -> Calibration:
    """Measure signal and rounding noise on the first two candidates of each ask: 6 queries an ask.

    The signal is the RMS over asks of the difference of their two losses. For the noise every candidate is asked again
    as copies whose coordinates are 1 + k/512 times as large, k = 1, 2. That moves the true loss by well under a percent
    of what the whole candidate does, but some coordinates fall on other representable numbers, and every layer rounds
    anew from there. The noise of one loss is the RMS deviation of the three from their mean (n - 1), pooled over all
    candidates.

    An ask in which some loss is not finite is left out.
    """
    signals: list[float] = []
    variances: list[float] = []
    cost = Cost()
    for ask in asks:
        first, second = ask[:2]
        scales = [1.0, *(1 + k / STEPS for k in COPIES)]
        candidates = tuple(scaled(candidate, scale) for scale in scales for candidate in (first, second))
        answer = oracle.evaluate(Request(candidates, batch, prompt))
        cost = cost + answer.cost
        losses_K_2: Array64 = np.asarray(answer.losses, dtype=np.float64).reshape(len(scales), 2)
        if np.isfinite(losses_K_2).all():
            signals.append(float(losses_K_2[0, 0] - losses_K_2[0, 1]))
            variances.extend(float(v) for v in losses_K_2.var(axis=0, ddof=1))
    if not signals:
        return Calibration(0.0, 0.0, 0, cost)
    signal = math.sqrt(float(np.mean(np.square(signals))))
    return Calibration(signal, math.sqrt(2 * float(np.mean(variances))), len(signals), cost)


def scaled(candidate: Candidate, scale: float) -> Candidate:
    """Return the candidate with its coordinates times ``scale``, those of a centre or an origin as they are."""
    match candidate:
        case Perturbation():
            return replace(candidate, radius=candidate.radius * scale)
        case Latent():
            return replace(candidate, z=candidate.z * np.float32(scale))
        case Point():
            return Point(candidate.vector * np.float32(scale))
        case _:
            return candidate
