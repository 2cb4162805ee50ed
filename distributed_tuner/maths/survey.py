"""Settings of zeroth-order steps, estimated from a few losses around a point.

A pair of losses at distance r along z has an odd part, the slope ``d(r) = [f(x + r z) - f(x - r z)] / (2 r)``, about
``z.g + b r^2``, and an even part, the curvature ``q(r) = [f(x + r z) + f(x - r z) - 2 f(x)] / r^2``, about ``z'Hz + c
r^2``. Two radii a direction tell b and c from the rest. Noise of the losses, sigma each, puts ``sigma^2 / (2 r^2)`` on
the square of a slope, so that ``sigma^2 / (2 r^2) + b^2 r^4`` is least at one radius: rho. Step size and number of
probes follow from the curvature by Theorem 4.3 of "Zeroth-Order Tuning" (Zhan et al., Findings of EMNLP 2024).
Directions are Gaussian, so that means over them of ``(z.g)^2`` and ``z'Hz`` are ``||g||^2`` and tr(H).
"""

import math
from dataclasses import dataclass

import numpy as np

from distributed_tuner.maths.curvature import Array64, Mean, frobenius_norm, second_difference, step_size

WORTH = 1.1  # queries for the same progress, over those of one probe a step, that further probes may cost


@dataclass(frozen=True, slots=True)
class Survey:
    """Measurements around a point.

    noise: of one loss. slope: ||g||. bend: RMS of b over directions. trace: tr(H). norm: ||H||_F, which is at least the
    largest |eigenvalue|; noise makes it larger, not smaller.
    """

    noise: float
    slope: float
    bend: float
    trace: Mean
    norm: float

    @property
    def effective_dimension(self) -> float:
        """tr(H) / ||H||_F: at most D_e at this point, at least its root; 0 where H's trace is not positive."""
        return max(0.0, self.trace.value) / self.norm if self.norm > 0.0 else 0.0


def noise_level(losses: Array64) -> float:
    """Return sigma of losses at evenly spaced points a hair apart: what a parabola through them leaves.

    Differences of neighbours are rounding, not shape (More & Wild, Estimating Computational Noise, 2011). Four or more.
    """
    places = np.arange(len(losses)) - (len(losses) - 1) / 2.0
    _, residual, *_ = np.linalg.lstsq(np.vander(places, 3), losses - losses.mean(), rcond=None)
    return math.sqrt(float(residual[0]) / (len(losses) - 3))


def survey(middle: float, noise: float, near: Array64, far: Array64, radius: float) -> Survey:
    """Return what losses around a point tell.

    Args:
        middle: the loss at the point.
        noise: sigma of one loss.
        near: losses at ``x +- radius z``, shape (K, 2), plus first; K is 2 or more.
        far: losses at twice that distance along the same directions.
        radius: r.
    """
    inner, outer = (near[:, 0] - near[:, 1]) / (2.0 * radius), (far[:, 0] - far[:, 1]) / (4.0 * radius)
    b = (outer - inner) / (3.0 * radius**2)
    slopes = inner - b * radius**2
    bend_noise = noise**2 / 2.0 * (1.0 + 0.25) / radius**2 / (3.0 * radius**2) ** 2
    slope_noise = noise**2 / 2.0 * (16.0 + 0.25) / 9.0 / radius**2
    forms = np.array([_richardson(n, f, middle, radius) for n, f in zip(near, far, strict=True)])
    return Survey(
        noise=noise,
        slope=_less(slopes, slope_noise),
        bend=_less(b, bend_noise),
        trace=Mean.of(forms),
        norm=frobenius_norm(forms),
    )


def radius_of(found: Survey, least: float, most: float) -> float:
    """Return rho: where noise and bend together disturb a slope least, ``(sigma / 2b)^(1/3)``, within bounds.

    It does not depend on the slope, so that it stays right as the gradient shrinks.
    """
    if found.bend == 0.0:
        return most if found.noise > 0.0 else least
    return min(max(math.cbrt(found.noise / (2.0 * found.bend)), least), most)


def signal_to_noise(found: Survey, rho: float) -> float:
    """Return the RMS difference of a pair's losses over the noise of such a difference; infinite without noise."""
    if found.noise == 0.0:
        return math.inf
    return 2.0 * rho * found.slope / (math.sqrt(2.0) * found.noise)


def points_of(d_e: float, most: int) -> int:
    """Return n: the most probes a step whose progress a query is nearly that of one probe.

    A gradient step's worth costs ``2 (D_e + n + 1)`` queries (Thm 4.3), least with n = 1; but the 2n queries of a step
    are answered side by side, so that a tenth more of them is taken for n times fewer steps.
    """
    return max(1, min(most, math.floor((WORTH - 1.0) * (d_e + 2.0) + 1.0)))


def learning_rate_of(found: Survey, n: int, longest: float) -> float:
    """Return ``gamma = n / ((D_e + n + 1) L)`` with ||H||_F for L (Thm 4.3).

    Where nothing is curved it is bounded by ``longest``, how far a step may move a coordinate (RMS): a step's length
    is ``gamma ||g||`` or so a root of n. 0 where there is neither curvature nor slope.
    """
    slope_bound = longest * math.sqrt(n) / found.slope if found.slope > 0.0 else math.inf
    curved = step_size(found.effective_dimension, n, found.norm) if found.norm > 0.0 else math.inf
    gamma = min(curved, slope_bound)
    return gamma if math.isfinite(gamma) else 0.0


def _richardson(near: Array64, far: Array64, middle: float, radius: float) -> float:
    """Return z'Hz from second differences at r and 2r, without their error of second order in r."""
    inner = second_difference(float(near[0]), float(near[1]), middle, radius)
    outer = second_difference(float(far[0]), float(far[1]), middle, 2.0 * radius)
    return (4.0 * inner - outer) / 3.0


def _less(values: Array64, noise: float) -> float:
    """Return the RMS of values without what noise of that variance adds to it."""
    return math.sqrt(max(0.0, float(np.mean(np.square(values))) - noise))
