"""Losses against hand-computed values and brute force."""

import math

import numpy as np
import pytest

from distributed_tuner.maths.losses import cross_entropy, cross_entropy_slope, hinge, hinge_slope, predictions


def test_cross_entropy_by_hand():
    logits = np.array([[0.0, math.log(3.0)], [0.0, 0.0]], dtype=np.float32)
    np.testing.assert_allclose(cross_entropy(logits, [1, 0]), [math.log(4 / 3), math.log(2)], rtol=1e-6)


def test_hinge_by_hand():
    # y = 0: max(0, 1 - 2 + 2) + max(0, -3 - 2 + 2) = 1;  y = 2: max(0, 2 + 3 + 2) + max(0, 1 + 3 + 2) = 13
    assert hinge(np.array([[2.0, 1.0, -3.0]] * 2), [0, 2]).tolist() == [1.0, 13.0]
    assert hinge(np.array([[5.0, 1.0]]), [0]).tolist() == [0.0]
    assert hinge(np.array([[2.0, 1.0]]), [0], margin=3.0).tolist() == [2.0]


def test_losses_by_brute_force_over_candidates_and_examples():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 4, 5)).astype(np.float32)
    labels = rng.integers(0, 5, size=4)
    entropy, margin = cross_entropy(logits, labels), hinge(logits, labels)
    assert entropy.shape == margin.shape == (3, 4)
    assert entropy.dtype == margin.dtype == np.float64
    for c in range(3):
        for e in range(4):
            row, y = [float(v) for v in logits[c, e]], labels[e]
            assert entropy[c, e] == pytest.approx(-math.log(math.exp(row[y]) / sum(math.exp(v) for v in row)))
            assert margin[c, e] == pytest.approx(sum(max(0, row[j] - row[y] + 2) for j in range(5) if j != y))


def test_large_and_infinite_logits():
    np.testing.assert_allclose(cross_entropy(np.array([[1e4, 0.0], [1e4, 0.0]]), [0, 1]), [0.0, 1e4])
    assert cross_entropy(np.array([[0.0, -np.inf]]), [0]).tolist() == [0.0]
    broken = cross_entropy(np.array([[np.nan, 0.0], [np.inf, 0.0]]), [1, 0])
    assert np.isnan(broken).all()
    assert np.isnan(hinge(np.array([[np.nan, 0.0]]), [1])).all()


@pytest.mark.parametrize("loss", [cross_entropy, hinge])
def test_labels_out_of_range_and_inputs_untouched(loss):
    logits = np.ones((2, 3))
    kept = logits.copy()
    for labels in ([0, 3], [-1, 0]):
        with pytest.raises(IndexError, match=r"\[0, 3\)"):
            loss(logits, labels)
    loss(logits, [0, 2])
    np.testing.assert_array_equal(logits, kept)


def test_predictions_take_the_first_of_ties():
    assert predictions(np.array([[[0.0, 2.0, 2.0], [3.0, 1.0, 0.0]]])).tolist() == [[1, 0]]


@pytest.mark.parametrize(("loss", "slope"), [(cross_entropy, cross_entropy_slope), (hinge, hinge_slope)])
def test_slopes_are_the_losses_derivatives(loss, slope):
    rng = np.random.default_rng(1)
    logits, labels = 2 * rng.normal(size=(3, 4, 5)), rng.integers(0, 5, size=4)
    found = slope(logits, labels)
    for at in np.ndindex(logits.shape):
        step = np.zeros_like(logits)
        step[at] = 1e-6
        change = (loss(logits + step, labels) - loss(logits - step, labels)) / 2e-6
        assert found[at] == pytest.approx(change[at[:-1]], abs=1e-6)


@pytest.mark.parametrize(("loss", "slope"), [(cross_entropy, cross_entropy_slope), (hinge, hinge_slope)])
def test_slopes_are_those_of_torch(loss, slope):
    import torch

    rng = np.random.default_rng(2)
    logits, labels = rng.normal(size=(6, 3)), rng.integers(0, 3, size=6)
    theirs = torch.from_numpy(logits).requires_grad_()
    of_label = theirs[range(6), labels][:, None]
    if loss is cross_entropy:
        total = torch.nn.functional.cross_entropy(theirs, torch.from_numpy(labels), reduction="sum")
    else:
        total = (theirs - of_label + 2.0).clamp(min=0).sum() - 2.0 * len(labels)
    assert total.item() == pytest.approx(loss(logits, labels).sum())
    total.backward()
    np.testing.assert_allclose(slope(logits, labels), theirs.grad.numpy(), atol=1e-12)


@pytest.mark.parametrize("slope", [cross_entropy_slope, hinge_slope])
def test_a_slope_of_broken_logits_is_not_a_number(slope):
    broken = slope(np.array([[np.nan, 0.0], [0.0, 1.0]]), [0, 1])
    assert np.isnan(broken[0]).any()
    assert np.isfinite(broken[1]).all()
