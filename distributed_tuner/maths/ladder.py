"""Initial step size of CMA-ES, estimated from the losses of a few pairs at each of several radii.

At radius r a loss differs from the middle's by a slope, odd in the direction, and by the rest, even in it. The mean of
a generation moves along the slope by what selection finds of it; of the rest, which is mostly curvature, it meets one
part in mu_eff, since the mean of mu parents lies that much closer to the middle ("genetic repair", Beyer 1995; weights
and mu_eff: Hansen, The CMA Evolution Strategy: A Tutorial, 2016, eqs. 7-8 and 49).
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Array64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Selection:
    """Effect of a generation's ranks on its mean.

    mu_eff: how many parents of equal weight the weighted ones are worth. pull: how far the mean moves along a direction
    that alone decides the ranks, in standard deviations of a candidate along it.
    """

    mu_eff: float
    pull: float


def selection(popsize: int) -> Selection:
    """Return what weights ``ln((lambda + 1) / 2) - ln i`` of the better half do; expected ranks by Blom (1958)."""
    mu = popsize // 2
    ranks = np.arange(1, mu + 1)
    w = math.log((popsize + 1) / 2) - np.log(ranks)
    w /= w.sum()
    expected = np.array([-NormalDist().inv_cdf((i - 0.375) / (popsize + 0.25)) for i in ranks])
    return Selection(1.0 / float(w @ w), float(w @ expected))


def expected_falls(middle: float, radii: tuple[float, ...], pairs: Array64, drawn: Selection) -> tuple[float, ...]:
    """Return by how much a generation drawn at each radius should lower the loss of the mean; below 0: raise it.

    Far out a loss levels off and tells nothing of the middle any more. So a rung is taken to be no better than the
    slopes of all rungs before it, and the curvature of the last of them, would have it.

    Args:
        middle: the loss between the pairs.
        radii: r of each rung, rising.
        pairs: losses at ``middle +- r z``, shape (R, N, 2), of random directions z, the same on all rungs. Pairs with a
            failed loss are left out.

    Returns:
        A number for each rung, minus infinity where no pair is whole.
    """
    falls: list[float] = []
    before: _Rung | None = None
    for radius, losses in zip(radii, pairs, strict=True):
        rung = _rung(middle, radius, losses)
        if rung is None:
            falls.append(-math.inf)
            continue
        slope = min(rung.slope, before.slope) if before else rung.slope
        bend = max(rung.bend, before.bend) if before else rung.bend
        falls.append(_fall(rung, slope, bend, drawn))
        before = _Rung(radius, slope, rung.bend, rung.spread)
    return tuple(falls)


def widest_best(radii: tuple[float, ...], falls: tuple[float, ...]) -> float | None:
    """Return the radius of the largest expected fall, the widest of equals; None where no rung has any."""
    best = max(falls)
    return max(r for r, fall in zip(radii, falls, strict=True) if fall == best) if math.isfinite(best) else None


@dataclass(frozen=True, slots=True)
class _Rung:
    """Pairs at one radius.

    slope: RMS of the odd parts over r. bend: mean of the even parts over r^2. spread: standard deviation of all.
    """

    radius: float
    slope: float
    bend: float
    spread: float


def _rung(middle: float, radius: float, pairs: Array64) -> _Rung | None:
    whole = pairs[np.isfinite(pairs).all(axis=1)]
    if not len(whole):
        return None
    odd, even = (whole[:, 0] - whole[:, 1]) / 2.0, whole.mean(axis=1) - middle
    signal = float(np.mean(odd**2))
    spread = math.sqrt(signal + float(np.var(even)))
    return _Rung(radius, math.sqrt(signal) / radius, float(even.mean()) / radius**2, spread)


def _fall(rung: _Rung, slope: float, bend: float, drawn: Selection) -> float:
    found = drawn.pull * (slope * rung.radius) ** 2 / rung.spread if rung.spread > 0.0 else 0.0
    return found - bend * rung.radius**2 / drawn.mu_eff
