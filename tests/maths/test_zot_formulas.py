"""The formulas of ZOT against hand-computed values and what they estimate."""

import math

import numpy as np
import pytest

from distributed_tuner.maths import zot
from distributed_tuner.maths.schedules import cosine_annealing


def vector(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def test_coefficient_and_gradient_by_hand():
    assert zot.coefficient(3.0, 1.0, 0.5) == 2.0
    g = zot.gradient_estimate([2.0, -4.0], iter([vector(1, 0, 1), vector(0, 1, 1)]), 3)
    assert g.dtype == np.float32
    assert g.tolist() == [1.0, -2.0, -1.0]
    assert zot.gradient_estimate([], [], 2).tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match="zip"):
        zot.gradient_estimate([1.0], [], 2)


def test_the_estimate_is_unbiased_on_a_linear_function():
    rng = np.random.default_rng(0)
    slope = rng.normal(size=4)
    noise = [rng.standard_normal(4, dtype=np.float32) for _ in range(20000)]
    deltas = [zot.coefficient(float(slope @ z) * 0.1, -float(slope @ z) * 0.1, 0.1) for z in noise]
    np.testing.assert_allclose(zot.gradient_estimate(deltas, noise, 4), slope, atol=0.06)


def test_clipping_by_the_global_norm():
    g = vector(3, 4)
    assert zot.norm(g) == 5.0
    np.testing.assert_allclose(zot.clip_by_norm(g, 1.0), [0.6, 0.8], rtol=1e-6)
    for c in (0.0, 5.0, 100.0):
        clipped = zot.clip_by_norm(g, c)
        assert clipped.tolist() == [3, 4] and clipped is not g
    assert zot.clip_by_norm(vector(0, 0), 1.0).tolist() == [0, 0]


def test_norm_does_not_overflow_where_float32_squares_do():
    assert zot.norm(vector(3e30, 4e30)) == pytest.approx(5e30)


def test_momentum_with_bias_correction_of_a_constant_is_the_constant():
    m = vector(0, 0)
    for t in range(1, 6):
        m = zot.momentum(m, vector(2, -1), 0.9)
        np.testing.assert_allclose(m, (1 - 0.9**t) * vector(2, -1), rtol=1e-5)
        np.testing.assert_allclose(zot.bias_correction(m, 0.9, t), [2, -1], rtol=1e-5)
    assert zot.momentum(vector(5), vector(2), 0.0).tolist() == [2.0]
    assert zot.bias_correction(vector(2), 0.0, 1).tolist() == [2.0]


def test_update_returns_a_new_vector():
    x = vector(1, 1)
    assert zot.update(x, vector(2, -2), 0.25).tolist() == [0.5, 1.5]
    assert x.tolist() == [1, 1]


def test_cosine_annealing_by_hand():
    values = [cosine_annealing(t, 4, 1.0, 0.2) for t in (0, 1, 2, 4, 9)]
    assert values == pytest.approx([1.0, 0.2 + 0.4 * (1 + math.sqrt(0.5)), 0.6, 0.2, 0.2])
    assert cosine_annealing(3, 4, 0.5, 1.0) == 0.5
