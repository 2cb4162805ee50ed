"""Curvature formulas on quadratics with a known spectrum, and the theory's lemmas by simulation."""

import math

import numpy as np
import pytest

from distributed_tuner.maths.curvature import (
    Array64,
    Mean,
    Product,
    descent,
    effective_dimension,
    frobenius_norm,
    gradient_difference,
    lanczos,
    operator_norm,
    quadratic,
    rademacher,
    second_difference,
    second_moment,
    slowdown,
    step_size,
)
from distributed_tuner.seeds import generator

SPECTRUM = np.array([1.0, 0.9, 0.8, 0.7, 0.6, 0.4, 0.3, 0.2, 0.06, 0.04])  # trace 5, largest 1


def rotated(spectrum: Array64, d: int, seed: int = 0) -> Array64:
    """Return a symmetric matrix (d, d) with these eigenvalues, and zeros."""
    q, _ = np.linalg.qr(generator(("rotation", seed)).standard_normal((d, d)))
    basis = q[:, : len(spectrum)]
    return np.asarray(basis * spectrum @ basis.T)


def product_of(H: Array64) -> Product:
    return lambda v: H @ v


@pytest.mark.parametrize("d", [10, 100, 400])
def test_the_trace_is_found_within_its_error(d: int) -> None:
    product = product_of(rotated(SPECTRUM, d))
    found = Mean.of([quadratic(product, rademacher(generator(("probe", i)), d)) for i in range(300)])
    assert found.probes == 300
    assert 0 < found.error < 0.2
    assert abs(found.value - 5.0) < 4 * found.error


def test_a_diagonal_matrix_needs_one_rademacher_probe() -> None:
    assert quadratic(product_of(np.diag(SPECTRUM)), rademacher(generator(("one",)), 10)) == pytest.approx(5.0)


def test_negative_curvature_reduces_the_trace() -> None:
    product = product_of(rotated(np.array([2.0, -1.5]), 30))
    found = Mean.of([quadratic(product, rademacher(generator(("n", i)), 30)) for i in range(500)])
    assert abs(found.value - 0.5) < 4 * found.error


def test_losses_alone_give_the_quadratic_form() -> None:
    H, draw = rotated(SPECTRUM, 40), generator(("forward",))
    x, v = draw.standard_normal(40), draw.standard_normal(40)

    def f(x: Array64) -> float:
        return float(x @ H @ x / 2 + x.sum())

    for h in (1e-2, 1.0):  # exact for a quadratic, whatever the distance
        found = second_difference(f(x + h * v), f(x - h * v), f(x), h)
        assert found == pytest.approx(v @ H @ v, rel=1e-6)
    difference = gradient_difference(H @ (x + 0.1 * v) + 1, H @ (x - 0.1 * v) + 1, 0.1)
    np.testing.assert_allclose(difference, H @ v, rtol=1e-10)


def test_the_frobenius_norm_comes_from_the_spread_of_quadratic_forms() -> None:
    product, draw = product_of(rotated(SPECTRUM, 60)), generator(("gauss",))
    found = frobenius_norm([quadratic(product, draw.standard_normal(60)) for _ in range(4000)])
    assert found == pytest.approx(math.sqrt(float(SPECTRUM @ SPECTRUM)), rel=0.05)


@pytest.mark.parametrize("largest", [3.0, -3.0])
def test_lanczos_finds_the_largest_whatever_its_sign(largest: float) -> None:
    product = product_of(rotated(np.append(SPECTRUM, largest), 200))
    start = generator(("start",)).standard_normal(200)
    assert operator_norm(lanczos(product, start, 15)) == pytest.approx(3.0, rel=1e-6)


def test_lanczos_stops_where_the_space_is_exhausted() -> None:
    H = np.diag([4.0, 4.0, 1.0])
    np.testing.assert_allclose(lanczos(product_of(H), np.array([1.0, 1.0, 1.0]), 20), [1.0, 4.0], atol=1e-9)
    np.testing.assert_allclose(lanczos(product_of(np.zeros((3, 3))), np.ones(3), 5), [0.0])


def test_one_probe_has_no_error() -> None:
    assert Mean.of([2.0]) == Mean(2.0, math.inf, 1)


def test_the_effective_dimension_takes_both_maxima() -> None:
    assert effective_dimension([5.0, 2.0], [0.5, 1.0]) == 5.0


@pytest.mark.parametrize("n", [1, 3])
def test_lemma_a1_the_second_moment_of_the_estimate(n: int) -> None:
    draw = generator(("lemma", n))
    g = np.array([1.0, -2.0, 0.5, 0.0])
    z = draw.standard_normal((400_000, n, 4))
    estimates = np.einsum("snd,sn->sd", z, z @ g) / n
    np.testing.assert_allclose(estimates.mean(axis=0), g, atol=0.02)
    found = estimates.T @ estimates / len(estimates)
    np.testing.assert_allclose(found, second_moment(g, n), atol=0.15)


@pytest.mark.parametrize("n", [1, 5, 20])
def test_theorem_43_a_step_descends_by_its_factor(n: int) -> None:
    """Of the mean of many single steps: at most the lemma's bound, and that is gradient descent's over the slowdown."""
    d, L, trace = 50, 1.0, 5.0
    H, draw = rotated(SPECTRUM, d), generator(("descent", n))
    x = H @ draw.standard_normal(d)
    g = H @ x
    gamma = step_size(trace / L, n, L)
    z = draw.standard_normal((20_000, n, d))
    estimates = np.einsum("snd,sn->sd", z, z @ g) / n
    moved = x - gamma * estimates
    change = np.einsum("sd,de,se->s", moved, H, moved) / 2 - x @ H @ x / 2
    bound = descent(gamma, n, L, trace) * float(g @ g)
    assert bound == pytest.approx(-float(g @ g) / (2 * L) / slowdown(trace / L, n))
    assert change.mean() - 4 * change.std() / math.sqrt(len(change)) < bound < 0
