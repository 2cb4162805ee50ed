"""Heads as formulas: from a frozen model's answers to the labels, with nothing of the model changed.

Letters: E examples, W label words, V answer words, C any number of leading axes. ``m`` are the label words' scores of
one example, its features are the scores of all V words; both are known up to a constant of the example. Strengths are
of L2 penalties. Arithmetic is float64 whatever comes in.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from distributed_tuner.maths.losses import Array64, cross_entropy

NEWTON_STEPS, HALVINGS = 50, 30
SPREAD_FLOOR = 0.05  # nats: a feature that hardly varies is not blown up to unit variance
LEVERAGE_MOST = 0.98  # of a row on itself; beyond it the leave-one-out quotient is rounding error
LEAST_PROBABILITY = 1e-6
SCALES = np.geomspace(0.05, 400.0, 80)  # of scores in front of a softmax


def log_softmax(scores: npt.NDArray[Any]) -> Array64:
    """Return log-probabilities over the last axis; NaN where a score is."""
    z = np.asarray(scores, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        z = z - z.max(axis=-1, keepdims=True)
        return np.asarray(z - np.log(np.exp(z).sum(axis=-1, keepdims=True)))


def one_hot(labels: npt.ArrayLike, classes: int) -> Array64:
    """Return (..., W) with 1 at each label."""
    return np.asarray(np.eye(classes)[np.asarray(labels, dtype=np.int64)])


def centred(features: npt.NDArray[Any]) -> Array64:
    """Return features less their mean over the words: what a constant of the example cannot change."""
    x = np.asarray(features, dtype=np.float64)
    return np.asarray(x - x.mean(axis=-1, keepdims=True))


# ------------------------------------------------------------------------------------------------- bias and affine
def fit_bias(m: npt.NDArray[Any], labels: npt.ArrayLike, strength: float, weights: Array64 | None = None) -> Array64:
    """Return argmin_b mean CE(m + b, y) + strength / 2 |b|^2 by Newton's method, shape (..., W).

    m (..., E, W), labels (E,). ``weights`` (..., E) sum to 1 at most; None: all alike. NaN where m is not finite.
    """
    m, y, share = _weighed(m, labels, weights)
    diagonal = np.arange(m.shape[-1])

    def value(b: Array64) -> Array64:
        return np.asarray(
            -(share * y * log_softmax(m + b[..., None, :])).sum(axis=(-1, -2)) + bias_penalty(b, strength)
        )

    def derivatives(b: Array64) -> tuple[Array64, Array64]:
        p = np.exp(log_softmax(m + b[..., None, :]))
        curvature = -np.einsum("...ei,...ej->...ij", share * p, p)
        curvature[..., diagonal, diagonal] += (share * p).sum(axis=-2) + strength + 1e-9
        return np.asarray((share * (p - y)).sum(axis=-2) + strength * b), curvature

    return _newton(np.zeros((*m.shape[:-2], m.shape[-1])), value, derivatives)


def profile_bias(m: npt.NDArray[Any], labels: npt.ArrayLike, strength: float) -> tuple[Array64, Array64]:
    """Return the bias b (..., W) that fits m (..., E, W) best, and what is left of the loss, (...).

    That is mean CE(m + b, y) + strength / 2 |b|^2. By the envelope theorem its slope by m is that of the cross-entropy
    at m + b, with b held fixed.
    """
    b = fit_bias(m, labels, strength)
    losses = cross_entropy(np.asarray(m, dtype=np.float64) + b[..., None, :], labels)
    return b, np.asarray(losses.mean(axis=-1) + bias_penalty(b, strength))


def bias_penalty(b: Array64, strength: float) -> Array64:
    """Return strength / 2 |b|^2, (...)."""
    return np.asarray(0.5 * strength * (b**2).sum(axis=-1))


def fit_affine(
    m: npt.NDArray[Any], labels: npt.ArrayLike, strength: float, weights: Array64 | None = None
) -> tuple[Array64, Array64]:
    """Return a and b (..., W) of argmin mean CE(a * m + b, y) + strength / 2 (|a - 1|^2 + |b|^2) (2505.23783).

    ``m``: log-probabilities of the label words, (..., E, W). A negative a turns a word that points the wrong way.
    """
    m, y, share = _weighed(m, labels, weights)
    count = m.shape[-1]
    twice = np.arange(2 * count)

    def split(x: Array64) -> tuple[Array64, Array64, Array64]:
        a, b = x[..., :count], x[..., count:]
        return a, b, log_softmax(a[..., None, :] * m + b[..., None, :])

    def value(x: Array64) -> Array64:
        a, b, log_p = split(x)
        return np.asarray(
            -(share * y * log_p).sum(axis=(-1, -2)) + bias_penalty(b, strength) + bias_penalty(a - 1, strength)
        )

    def derivatives(x: Array64) -> tuple[Array64, Array64]:
        a, b, log_p = split(x)
        p = np.exp(log_p)
        slope = share * (p - y)
        gradient = np.concatenate(
            [(slope * m).sum(axis=-2) + strength * (a - 1), slope.sum(axis=-2) + strength * b], -1
        )
        by_b = -np.einsum("...ei,...ej->...eij", share * p, p)
        by_b[..., twice[:count], twice[:count]] += share * p
        by_ab = np.einsum("...ei,...eij->...ij", m, by_b)
        by_a = np.einsum("...ei,...eij,...ej->...ij", m, by_b, m)
        upper = np.concatenate([by_a, by_ab], axis=-1)
        lower = np.concatenate([by_ab.swapaxes(-1, -2), by_b.sum(axis=-3)], axis=-1)
        whole = np.concatenate([upper, lower], axis=-2)
        whole[..., twice, twice] += strength + 1e-9
        return gradient, whole

    start = np.concatenate([np.ones((*m.shape[:-2], count)), np.zeros((*m.shape[:-2], count))], axis=-1)
    found = _newton(start, value, derivatives)
    return found[..., :count], found[..., count:]


def _weighed(m: npt.NDArray[Any], labels: npt.ArrayLike, weights: Array64 | None) -> tuple[Array64, Array64, Array64]:
    """Return m, one-hot labels, and each row's share of the mean, of shapes that go together."""
    m = np.asarray(m, dtype=np.float64)
    share = np.full(m.shape[:-1], 1.0 / m.shape[-2]) if weights is None else weights
    m, share = np.broadcast_arrays(m, share[..., None])
    return m, one_hot(labels, m.shape[-1]), share


def _newton(
    x: Array64,
    value: Callable[[Array64], Array64],
    derivatives: Callable[[Array64], tuple[Array64, Array64]],
) -> Array64:
    """Return the minimum (..., N) of convex functions from x on: Newton's steps, halved until they descend.

    Far from the optimum a softmax is flat, and a whole step would leap over it. Not finite where a function is not. A
    function whose minimum is reached stays there, so that each is found to the same bits alone and among others.
    """
    now = value(x)
    moves = np.ones(now.shape, dtype=np.bool_)
    for _ in range(NEWTON_STEPS):
        gradient, curvature = derivatives(x)
        finite = np.isfinite(curvature).all(axis=(-1, -2)) & np.isfinite(gradient).all(axis=-1)
        safe = np.where(np.asarray(finite)[..., None, None], curvature, np.eye(x.shape[-1]))
        step = np.linalg.solve(safe, gradient[..., None])[..., 0]
        size = np.where(moves, 1.0, 0.0)
        for _ in range(HALVINGS):
            after = value(x - size[..., None] * step)
            worse = after > now
            if not worse.any():
                break
            size = np.where(worse, size / 2, size)
        size = np.where(worse, 0.0, size)  # rounding: as low as it gets
        moves &= (np.abs(size[..., None] * step) > 1e-9).any(axis=-1)
        x = x - size[..., None] * step
        now = np.where(worse, now, after)
        if not moves.any():
            break
    return np.asarray(np.where(np.isfinite(now)[..., None], x, np.nan))


def without_each(examples: int) -> Array64:
    """Return weights (E, E): in row i all examples but i count alike. For leave-one-out by fitting E times at once."""
    return np.asarray((1 - np.eye(examples)) / max(1, examples - 1))


# ------------------------------------------------------------------------------------------------- without labels
def batch_bias(m: npt.NDArray[Any]) -> Array64:
    """Return the bias of batch calibration, b_c = -mean over the examples of log softmax(m)_c (2309.17249)."""
    return np.asarray(-log_softmax(m).mean(axis=-2))


def content_free_bias(m: npt.NDArray[Any]) -> Array64:
    """Return b_c = -log of the mean over texts without content of softmax(m)_c (2102.09690; of words: 2305.19148)."""
    return np.asarray(-np.log(np.maximum(np.exp(log_softmax(m)).mean(axis=-2), LEAST_PROBABILITY)))


# ------------------------------------------------------------------------------------------------- several heads
def mean_log_probabilities(p: npt.NDArray[Any]) -> Array64:
    """Return label probabilities (E, W) of several heads' (K, E, W): the normalised mean of their log-probabilities.

    That is their geometric mean, normalised. A head whose row is NaN has no say in it; NaN where none has. Zero counts
    as the least number above it.
    """
    known = np.isfinite(p).all(axis=-1, keepdims=True)
    logs = np.log(np.maximum(np.where(known, p, 1.0), np.finfo(np.float64).tiny))
    voices = known.sum(axis=0)
    mean = (logs * known).sum(axis=0) / np.maximum(voices, 1)
    return np.asarray(np.where(voices > 0, np.exp(log_softmax(mean)), np.nan))


# ------------------------------------------------------------------------------------------------- many words
@dataclass(frozen=True, eq=False, slots=True)
class Standard:
    """Standardisation of features: mean and spread (V,) over the rows of a fit."""

    mean: Array64
    spread: Array64

    def of(self, features: npt.NDArray[Any]) -> Array64:
        """Return standardised features (E, V)."""
        return np.asarray((centred(features) - self.mean) / self.spread)


def standard(features: npt.NDArray[Any]) -> Standard:
    """Return what the rows (E, V) are standardised by. A constant feature becomes zero."""
    x = centred(features)
    return Standard(x.mean(axis=0), x.std(axis=0) + SPREAD_FLOOR)


def unstandardised(weights: Array64, by: Standard) -> tuple[Array64, Array64]:
    """Return A (V, W) and b (W,) with x @ A + b = by.of(x) @ weights for features x as they come.

    The columns of A sum to zero: a constant of a row changes nothing.
    """
    scaled = weights / by.spread[:, None]
    return np.asarray(scaled - scaled.mean(axis=0)), np.asarray(-(by.mean @ scaled))


@dataclass(frozen=True, eq=False, slots=True)
class Ridge:
    """A ridge regression of one-hot labels on standardised rows, as log-odds: scores(z) = z @ weights + intercept.

    weights (V, W), intercept (W,). out (E, W): each row's scores by a fit without it.
    """

    weights: Array64
    intercept: Array64
    out: Array64
    strength: float


def fit_ridge(z: Array64, labels: npt.ArrayLike, classes: int, strengths: Sequence[float]) -> Ridge:
    """Fit with the strength whose leave-one-out cross-entropy is least; first of equals.

    Scores are regressions of zeros and ones; in front of the softmax they are scaled as fits the left-out rows best.
    With K = Z Z^T / V and H(s) = K (K + s I)^-1 + 1 1^T / E, the residual of row i without it is (y_i - yhat_i) /
    (1 - H_ii) (the PRESS identity), so one eigendecomposition serves all strengths, and V may exceed E.
    """
    rows, words = z.shape
    y = one_hot(labels, classes)
    mean = y.mean(axis=0)
    eigenvalues, basis = np.linalg.eigh(z @ z.T / max(1, words))
    eigenvalues = np.maximum(eigenvalues, 0.0)
    best: tuple[float, float, float, Array64] | None = None
    for strength in strengths:
        hat = (basis * (eigenvalues / (eigenvalues + strength))) @ basis.T
        leverage = np.clip(np.diag(hat) + 1.0 / rows, 0.0, LEVERAGE_MOST)
        residual = (y - mean - hat @ (y - mean)) / (1 - leverage)[:, None]
        out = np.asarray(y - residual)
        scale = best_scale(out, labels)
        loss = float(cross_entropy(scale * out, labels).mean())
        if best is None or loss < best[0]:
            best = (loss, strength, scale, scale * out)
    assert best is not None
    _, strength, scale, out = best
    dual = basis @ ((basis.T @ (y - mean)) / (eigenvalues + strength)[:, None])
    return Ridge(np.asarray(scale * (z.T @ dual) / max(1, words)), scale * mean, out, strength)


def best_scale(scores: Array64, labels: npt.ArrayLike) -> float:
    """Return the factor of scores (E, W) with the least mean cross-entropy, of ``SCALES``: scores become log-odds.

    The scores should be those of rows that did not take part in their own fit.
    """
    rows = np.arange(len(scores))
    label = np.asarray(labels, dtype=np.int64)
    losses = -log_softmax(SCALES[:, None, None] * scores)[:, rows, label].mean(axis=1)
    return float(SCALES[int(np.argmin(losses))])


# ------------------------------------------------------------------------------------------------- neighbours
def divergences(p: npt.NDArray[Any], q: npt.NDArray[Any]) -> Array64:
    """Return KL(p_i || q_j), (I, J), of log-probabilities p (I, V) and q (J, V) (kNN prompting, 2303.13217)."""
    p, q = log_softmax(p), log_softmax(q)
    chance = np.exp(p)
    return np.asarray((chance * p).sum(axis=-1)[:, None] - chance @ q.T)


def nearest_shares(distances: Array64, labels: npt.ArrayLike, classes: int, k: int) -> Array64:
    """Return the share of each class among the k nearest columns of each row, (I, W), smoothed by one row of each
    class: (n_c + 1 / W) / (k + 1). The first of equal distances is nearer."""
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    votes = one_hot(np.asarray(labels, dtype=np.int64)[order], classes).sum(axis=1)
    return np.asarray((votes + 1.0 / classes) / (order.shape[1] + 1))


def centroids(z: Array64, labels: npt.ArrayLike, classes: int) -> Array64:
    """Return the mean row of each class, (W, V); of one without rows the mean of all (2406.16535)."""
    y = one_hot(labels, classes)
    counts = y.sum(axis=0)
    means = y.T @ z / np.maximum(counts, 1)[:, None]
    return np.asarray(np.where(counts[:, None] > 0, means, z.mean(axis=0)))


def centroid_scores(z: Array64, means: Array64) -> Array64:
    """Return minus the mean squared distance of each row to each centroid, (E, W)."""
    return np.asarray(-((z[:, None, :] - means) ** 2).mean(axis=-1))
