"""Measurements around a point, on functions whose noise, slope and curvature are known."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from distributed_tuner.maths.curvature import Array64, Mean, step_size
from distributed_tuner.maths.survey import (
    Survey,
    learning_rate_of,
    noise_level,
    points_of,
    radius_of,
    signal_to_noise,
    survey,
)
from distributed_tuner.seeds import generator

D, K = 40, 400
SPECTRUM = np.concatenate([np.linspace(1.0, 0.2, 8), np.zeros(D - 8)])
SLOPE = generator(("slope",)).standard_normal(D) * 0.1
BEND = 0.03


def loss(x: Array64) -> float:
    """Return a loss with gradient SLOPE and Hessian diag(SPECTRUM) at 0, and a cubic part: b = BEND (w.z)^3."""
    return float(SLOPE @ x + 0.5 * x @ (SPECTRUM * x) + BEND * (x @ W) ** 3)


W = np.eye(D)[3]


def surveyed(f: Callable[[Array64], float], noise: float = 0.0, radius: float = 0.5, count: int = K) -> Survey:
    """Survey f around 0, with Gaussian noise on every loss."""
    stream = generator(("noise", str(noise)))
    z = generator(("directions",)).standard_normal((count, D))

    def pairs(r: float) -> Array64:
        return np.array([[f(sign * r * v) + noise * stream.standard_normal() for sign in (1, -1)] for v in z])

    middle = f(np.zeros(D))
    return survey(middle, noise, pairs(radius), pairs(2 * radius), radius)


def test_noise_is_what_a_parabola_leaves() -> None:
    places = np.arange(-4.0, 5.0)
    smooth = 2.0 - 3e-4 * places + 1e-5 * places**2
    assert noise_level(smooth) < 1e-12
    levels = [noise_level(smooth + 1e-3 * generator(("n", i)).standard_normal(9)) for i in range(400)]
    assert float(np.sqrt(np.mean(np.square(levels)))) == pytest.approx(1e-3, rel=0.05)


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_slope_bend_and_curvature_are_found(noise: float) -> None:
    found = surveyed(loss, noise)
    assert found.slope == pytest.approx(float(np.linalg.norm(SLOPE)), rel=0.15)
    assert found.bend == pytest.approx(BEND * math.sqrt(15.0), rel=0.3)  # E[(w.z)^6] = 15
    assert abs(found.trace.value - SPECTRUM.sum()) < 4 * found.trace.error
    assert found.norm >= 0.8 * float(np.linalg.norm(SPECTRUM))
    if not noise:
        assert found.norm == pytest.approx(float(np.linalg.norm(SPECTRUM)), rel=0.2)
    assert found.effective_dimension == pytest.approx(found.trace.value / found.norm)


def test_terms_of_fourth_order_do_not_disturb_the_trace() -> None:
    plain = surveyed(loss)
    bent = surveyed(lambda x: loss(x) + 0.05 * float(x @ W) ** 4)
    assert bent.trace.value == pytest.approx(plain.trace.value, abs=1e-9)


@pytest.mark.parametrize("noise", [1e-5, 1e-3, 0.03])
def test_no_other_radius_disturbs_slopes_less(noise: float) -> None:
    found = Survey(noise, slope=0.3, bend=BEND * math.sqrt(15.0), trace=Mean(1.0, 0.1, 8), norm=0.5)
    best = radius_of(found, 1e-6, 1e6)
    z = generator(("z",)).standard_normal((3000, D))
    stream = generator(("errors",))

    def error(rho: float) -> float:
        plus = np.array([loss(rho * v) for v in z]) + noise * stream.standard_normal(len(z))
        minus = np.array([loss(-rho * v) for v in z]) + noise * stream.standard_normal(len(z))
        return float(np.mean(((plus - minus) / (2 * rho) - z @ SLOPE) ** 2))

    assert error(best) < error(2.0 * best)
    assert error(best) < error(best / 2.0)


def test_a_radius_stays_within_its_bounds() -> None:
    def made(noise: float, bend: float) -> Survey:
        return Survey(noise, 1.0, bend, Mean(1.0, 0.1, 8), 1.0)

    assert radius_of(made(1.0, 1e-9), 0.01, 1.0) == 1.0
    assert radius_of(made(1e-12, 1.0), 0.01, 1.0) == 0.01
    assert radius_of(made(0.1, 0.0), 0.01, 1.0) == 1.0  # noise alone: as far as may be
    assert radius_of(made(0.0, 0.0), 0.01, 1.0) == 0.01  # neither: the theorem's limit


def test_signal_to_noise_is_that_of_a_pair() -> None:
    found = Survey(0.02, 0.3, 0.0, Mean(1.0, 0.1, 8), 1.0)
    draw = generator(("pairs",))
    pairs = [2 * 0.5 * 0.3 * draw.standard_normal() for _ in range(20_000)]
    assert signal_to_noise(found, 0.5) == pytest.approx(np.std(pairs) / (0.02 * math.sqrt(2)), rel=0.02)
    assert signal_to_noise(Survey(0.0, 0.3, 0.0, Mean(1.0, 0.1, 8), 1.0), 0.5) == math.inf


@pytest.mark.parametrize(("d_e", "n"), [(0.0, 1), (3.6, 1), (8.0, 2), (131.0, 14), (1e6, 64)])
def test_probes_are_taken_while_they_cost_a_tenth_more_at_most(d_e: float, n: int) -> None:
    assert points_of(d_e, 64) == n
    assert d_e + n + 1 <= 1.1 * (d_e + 2) + 1e-9


def test_the_step_size_is_the_theorem_s_where_there_is_curvature() -> None:
    found = Survey(0.0, 0.1, 0.0, Mean(5.0, 0.1, 8), 2.0)
    assert learning_rate_of(found, 3, longest=1e9) == pytest.approx(step_size(2.5, 3, 2.0))


def test_a_step_is_never_longer_than_it_may_be() -> None:
    flat = Survey(0.0, 0.1, 0.0, Mean(0.0, 0.0, 8), 0.0)
    assert learning_rate_of(flat, 4, longest=1.0) == pytest.approx(20.0)
    d, n, gamma = 2000, 4, learning_rate_of(flat, 4, longest=1.0)
    g = generator(("g",)).standard_normal(d)
    g *= 0.1 / np.linalg.norm(g)
    z = generator(("steps",)).standard_normal((50, n, d))
    steps = gamma * np.mean((z @ g)[..., None] * z, axis=1)
    assert float(np.sqrt(np.mean(steps**2))) == pytest.approx(1.0, rel=0.15)
    assert learning_rate_of(Survey(0.0, 0.0, 0.0, Mean(0.0, 0.0, 8), 0.0), 1, longest=1.0) == 0.0


def test_negative_curvature_counts_as_none() -> None:
    found = Survey(0.0, 0.1, 0.0, Mean(-3.0, 0.1, 8), 2.0)
    assert found.effective_dimension == 0.0
    assert learning_rate_of(found, 1, longest=1e9) == pytest.approx(1.0 / (2.0 * 2.0))
