"""The Gaussian process: against its formulas written out, on functions that it must learn, and its slope."""

import numpy as np
import pytest

from distributed_tuner.maths.gaussian_process import fit, squared_distances, squared_exponential

STREAM = np.random.default_rng(0)


def far(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.asarray(((x[:, None] - y) ** 2).sum(axis=-1))


def test_distances_of_coefficients_are_those_of_the_points() -> None:
    z, a, b = STREAM.standard_normal((3, 7)), STREAM.standard_normal((4, 3)), STREAM.standard_normal((5, 3))
    np.testing.assert_allclose(squared_distances(a, b, z @ z.T), far(a @ z, b @ z), atol=1e-10)


def test_it_follows_its_formulas() -> None:
    x, y, new = STREAM.standard_normal((9, 2)), STREAM.standard_normal((9, 3)), STREAM.standard_normal((1, 2))
    process = fit(far(x, x), y, [1.3], [0.1])
    inverse = np.linalg.inv(squared_exponential(far(x, x), 1.3) + 0.1 * np.eye(9))
    mean = np.ones(9) @ inverse @ y / (np.ones(9) @ inverse @ np.ones(9))
    expected = mean + squared_exponential(far(new, x), 1.3)[0] @ inverse @ (y - mean)
    np.testing.assert_allclose(process.predict(far(new, x)[0]), expected)
    signal = np.einsum("nq,nm,mq->", y - mean, inverse, y - mean) / y.size
    covariance = signal * np.linalg.inv(inverse)
    likelihood = -0.5 * 3 * np.linalg.slogdet(covariance)[1]  # but for a constant: the quadratic form is y.size
    assert process.evidence == pytest.approx(likelihood)


def test_length_and_noise_are_those_of_the_function() -> None:
    x = STREAM.uniform(-3.0, 3.0, (60, 1))
    y = np.hstack([np.sin(x + shift) for shift in range(4)])
    smooth = fit(far(x, x), y, [0.1, 2.0, 50.0], [1e-4, 0.3])
    assert (smooth.length, smooth.noise) == (2.0, 1e-4)
    assert fit(far(x, x), y + 0.5 * STREAM.standard_normal(y.shape), [0.1, 2.0, 50.0], [1e-4, 0.3]).noise == 0.3
    np.testing.assert_allclose(smooth.predict(far(np.zeros((1, 1)), x)[0]), np.sin(range(4)), atol=0.01)


def test_pulls_are_the_slope() -> None:
    x, weights = STREAM.standard_normal((8, 3)), STREAM.standard_normal(2)
    process, at = fit(far(x, x), STREAM.standard_normal((8, 2)), [1.0], [0.01]), STREAM.standard_normal(3)
    slope = process.pulls(far(at[None], x)[0], weights) @ (x - at)
    for axis in np.eye(3) * 1e-5:
        ahead, behind = (process.predict(far((at + step)[None], x)[0]) @ weights for step in (axis, -axis))
        assert slope @ axis / 1e-5 == pytest.approx((ahead - behind) / 2e-5, rel=1e-4)


def test_outputs_that_are_all_alike_are_expected_everywhere() -> None:
    x = STREAM.standard_normal((5, 2))
    process = fit(far(x, x), np.full((5, 1), 2.0), [1.0, 2.0], [0.1])
    np.testing.assert_allclose(process.predict(np.full(5, 0.3)), 2.0)
