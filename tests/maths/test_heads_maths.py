"""The formulas of heads against what they stand for: refits, derivatives, sklearn."""

import numpy as np
import pytest

from distributed_tuner.maths.heads import (
    batch_bias,
    best_scale,
    centred,
    content_free_bias,
    divergences,
    fit_affine,
    fit_bias,
    fit_ridge,
    log_softmax,
    mean_log_probabilities,
    nearest_shares,
    profile_bias,
    standard,
    without_each,
)
from distributed_tuner.maths.intervals import paired_t, wilson
from distributed_tuner.maths.losses import cross_entropy, cross_entropy_slope

STREAM = np.random.default_rng(3)
M, Y = STREAM.standard_normal((24, 3)) * 2 + [3.0, 0.0, -1.0], np.arange(24) % 3
STRENGTHS = (0.01, 0.1, 1.0)


def penalised(b: np.ndarray, strength: float) -> float:
    return float(cross_entropy(M + b, Y).mean() + 0.5 * strength * (b**2).sum())


def test_the_bias_is_a_minimum() -> None:
    b = fit_bias(M, Y, 0.01)
    for direction in np.eye(3):
        for step in (1e-3, -1e-3):
            assert penalised(b + step * direction, 0.01) > penalised(b, 0.01)


def test_many_fits_at_once_are_the_fits_alone() -> None:
    together = fit_bias(np.stack([M, 2 * M]), Y, 0.05)
    assert np.allclose(together, [fit_bias(M, Y, 0.05), fit_bias(2 * M, Y, 0.05)])
    out = fit_bias(np.broadcast_to(M, (24, 24, 3)), Y, 0.05, without_each(24))
    alone = [fit_bias(np.delete(M, i, axis=0), np.delete(Y, i), 0.05) for i in range(24)]
    assert np.allclose(out, alone, atol=1e-8)


def test_the_profile_has_the_slope_at_its_bias() -> None:
    b, value = profile_bias(M, Y, 0.02)
    slope = cross_entropy_slope(M + b, Y) / len(M)
    for i, j in ((0, 0), (5, 1), (11, 2)):
        moved = M.copy()
        moved[i, j] += 1e-5
        assert (profile_bias(moved, Y, 0.02)[1] - value) / 1e-5 == pytest.approx(slope[i, j], abs=1e-5)


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0, 100.0])
def test_no_bias_is_never_better_however_far_apart_scores_are(scale: float) -> None:
    m = scale * np.random.default_rng(1).standard_normal((200, 9, 2))
    labels = np.arange(9) % 2
    plain = cross_entropy(m, labels).mean(axis=-1)
    b, left = profile_bias(m, labels, 0.01)
    assert (left <= plain + 1e-12).all()
    for step in (np.array([1e-4, -1e-4]), np.array([-1e-4, 1e-4])):
        moved = cross_entropy(m + (b + step)[:, None], labels).mean(axis=-1)
        moved += 0.005 * ((b + step) ** 2).sum(axis=-1)
        assert (moved >= left - 1e-9).all()


def test_extreme_scores_are_fitted() -> None:
    b = fit_bias(M * 50 + [500.0, 0.0, 0.0], Y, 0.01)
    assert np.isfinite(b).all()
    assert np.isnan(profile_bias(np.where(Y[:, None] == 0, np.nan, M), Y, 0.01)[1])


def test_the_affine_fit_turns_a_word_that_points_the_wrong_way() -> None:
    scores = np.where(np.eye(2)[np.arange(40) % 2] > 0, -1.0, 1.0) + 0.1 * STREAM.standard_normal((40, 2))
    a, _ = fit_affine(log_softmax(scores), np.arange(40) % 2, 0.01)
    assert (a < 0).all()


def test_ridge_without_each_row_is_the_refit_without_it() -> None:
    z, y = STREAM.standard_normal((18, 40)), np.arange(18) % 3
    ridge = fit_ridge(z, y, 3, (0.3,))
    scale = ridge.intercept[0] * 3  # the mean of the targets is a third
    for i in (0, 7, 17):
        keep = np.arange(18) != i
        targets = np.eye(3)[y]
        # The intercept is the mean of all targets in both, as the closed form has it up to the rank-one term.
        gram, mean = z[keep] @ z[keep].T / 40, targets[keep].mean(axis=0)
        weights = z[keep].T @ np.linalg.solve(gram + 0.3 * np.eye(17), targets[keep] - mean) / 40
        assert np.allclose(ridge.out[i] / scale, z[i] @ weights + mean, atol=0.12)


def test_ridge_takes_the_strength_of_least_error_and_finds_a_line() -> None:
    y = np.arange(30) % 2
    z = STREAM.standard_normal((30, 200)) + np.outer(2.0 * y - 1, np.ones(200))
    ridge = fit_ridge(z, y, 2, STRENGTHS)
    assert ridge.strength in STRENGTHS
    assert ((z @ ridge.weights + ridge.intercept).argmax(axis=1) == y).all()
    assert (ridge.out.argmax(axis=1) == y).all()


def test_the_scale_makes_scores_log_odds() -> None:
    y = np.arange(400) % 2
    margin = (2.0 * y - 1) * 0.5 + STREAM.standard_normal(400)
    scores = np.stack([-margin / 2, margin / 2], axis=1)
    assert best_scale(scores, y) == pytest.approx(1.0, abs=0.5)


def test_standardised_features_have_no_constant_of_a_row() -> None:
    x = STREAM.standard_normal((10, 6))
    by = standard(x)
    assert np.allclose(by.of(x + np.arange(10)[:, None]), by.of(x))
    assert np.allclose(centred(x).sum(axis=1), 0)
    assert np.allclose(standard(np.ones((4, 3))).of(np.ones((4, 3))), 0)


def test_unlabelled_biases_even_out_what_is_said_too_often() -> None:
    assert np.allclose(log_softmax(log_softmax(M) + batch_bias(M)).mean(axis=0).std(), 0, atol=0.3)
    one = M[:1]
    assert np.allclose(np.exp(log_softmax(log_softmax(one) + content_free_bias(one))), 1 / 3)


def test_neighbours_by_divergence() -> None:
    distances = divergences(M, M)
    assert np.allclose(np.diag(distances), 0, atol=1e-12)
    assert (distances >= -1e-12).all()
    shares = nearest_shares(np.array([[0.1, 0.2, 0.3, 0.0]]), np.array([0, 1, 1, 0]), 2, 3)
    assert np.allclose(shares, [[(2 + 0.5) / 4, (1 + 0.5) / 4]])


def test_several_heads_are_read_by_their_mean_log_probability() -> None:
    p = np.exp(log_softmax(STREAM.standard_normal((3, 4, 2))))
    joined = mean_log_probabilities(p)
    geometric = p.prod(axis=0) ** (1 / 3)
    assert np.allclose(joined, geometric / geometric.sum(axis=1, keepdims=True))
    assert np.allclose(mean_log_probabilities(p[:1]), p[0])
    p[0, 0], p[:, 1] = np.nan, np.nan
    p[1, 2] = [0.0, 1.0]
    joined = mean_log_probabilities(p)
    assert np.allclose(joined[0], mean_log_probabilities(p[1:])[0])  # who does not tell has no say
    assert np.isnan(joined[1]).all() and np.isfinite(joined[2]).all()


def test_intervals() -> None:
    low, high = wilson(0.8, 400)
    assert (low, high) == pytest.approx((0.758, 0.836), abs=0.001)
    assert wilson(1.0, 10)[1] == 1.0 and wilson(0.0, 0) == (0.0, 1.0)
    t, degrees = paired_t(np.array([1.0, 2.0, 3.0]))
    assert (t, degrees) == (pytest.approx(2.0 / (1.0 / 3**0.5)), 2)
    assert paired_t(np.ones(4))[0] == np.inf and paired_t(np.zeros(4))[0] == 0.0
