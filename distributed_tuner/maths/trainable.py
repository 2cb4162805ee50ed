"""The gradient estimators of the Trainable Optimizer, "A Trainable Optimizer" (Wang & Klabjan, arXiv 2508.01764).

What the paper's abstract and summary say; no more of it was at hand: the gradient is estimated by a pseudo-linear
function ``G_hat = A w + b``; A and b are trained beside w by a squared error against the stochastic gradient; A is
full, diagonal or of rank one, the latter two in O(d) memory; momentum is a special case of full A.

What is reconstructed here and may differ from the paper's algorithms:
- the updates: one gradient step on ``l = 1/2 ||A w + b - g||^2`` for each step of w, g the gradient observed at w;
- the order: A and b learn from g first, then w moves along the new estimate at the old w;
- the normalised rates: at a constant rate a step on A overshoots where w is large. With full and diagonal A divided by
  ``1 + ||w||^2`` and ``1 + w_i^2``, one step multiplies the residual at w by something between 1 - alpha - beta and
  1 - beta, for every w. The rank-one estimator is bilinear and diverges under that divisor where gradients are large,
  so its divisor bounds the curvature in (u, v);
- the rates' decay, ``base / (1 + t / t0)``;
- the start, A = 0 and b = 0. A rank-one u = v = 0 would never move, and a random u v^T would first have to be
  unlearned; so u = 0 and v is random.

With alpha = 0 from this start, G_hat = b is an exponential mean of the gradients: ``zot.momentum`` of decay 1 - beta.

Names: w coordinates, g observed gradient, A, a or (u, v) slope, b intercept, r residual, alpha rate of the slope, beta
rate of the intercept. Vectors are float32 of shape (d,), a full slope A has shape (d, d); none is ever written to.
"""

import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.float32]


def rate(t: float, base: float, decay_steps: float | None) -> float:
    """Return ``base / (1 + t / t0)``, t counted from 0; constant where ``decay_steps`` t0 is None."""
    return base if decay_steps is None else base / (1.0 + t / decay_steps)


def intercept_step(b: Array, slope_w: Array, g: Array, beta: float) -> Array:
    """Return ``b - beta (A w + b - g)``, written as the exponential mean of what A w leaves of g.

    slope_w: A w, before the slope's own step, shape (d,). This is the intercept's step of all three estimators.
    """
    return np.float32(1.0 - beta) * b + np.float32(beta) * (g - slope_w)


# ------------------------------------------------------------------------------------------------------------- full A
def full_scale(w: Array) -> float:
    """Return ``1 / (1 + ||w||^2)``, what the rate of a full slope is multiplied by."""
    return 1.0 / (1.0 + _dot(w, w))


def full_estimate(A: Array, b: Array, w: Array) -> Array:
    """Return ``G_hat = A w + b``, shape (d,)."""
    return A @ w + b


def full_step(A: Array, b: Array, w: Array, g: Array, alpha: float, beta: float) -> tuple[Array, Array]:
    """Return (A, b) after one step on the squared error: ``dl/dA = r w^T``, ``dl/db = r``. O(d^2) time and memory."""
    slope_w = A @ w
    r = slope_w + b - g
    rated = np.float32(alpha * full_scale(w)) * r
    return A - rated[:, None] * w, intercept_step(b, slope_w, g, beta)


# --------------------------------------------------------------------------------------------------------- diagonal A
def diagonal_scale(w: Array) -> Array:
    """Return ``1 / (1 + w_i^2)``, shape (d,): each coordinate is a regression of its own."""
    return np.asarray(1.0 / (1.0 + np.square(w)), dtype=np.float32)


def diagonal_estimate(a: Array, b: Array, w: Array) -> Array:
    """Return ``G_hat = a w + b`` by coordinates, shape (d,)."""
    return a * w + b


def diagonal_step(a: Array, b: Array, w: Array, g: Array, alpha: float, beta: float) -> tuple[Array, Array]:
    """Return (a, b) after one step on the squared error: ``dl/da = r w``, ``dl/db = r``. O(d) time and memory."""
    slope_w = a * w
    r = slope_w + b - g
    return a - r * w * diagonal_scale(w) * np.float32(alpha), intercept_step(b, slope_w, g, beta)


# --------------------------------------------------------------------------------------------------- rank one, u v^T
def rank_one_scale(u: Array, v: Array, w: Array, r: Array) -> float:
    """Return ``1 / (1 + (v.w)^2 + ||u||^2 ||w||^2 + ||r|| ||w||)``.

    The middle terms bound how far a step on u and v moves the residual at first order, the last one, the product of
    both steps, at second order; together they bound the norm of the squared error's Hessian in (u, v).
    """
    w_w = _dot(w, w)
    return 1.0 / (1.0 + _dot(v, w) ** 2 + _dot(u, u) * w_w + math.sqrt(_dot(r, r) * w_w))


def rank_one_estimate(u: Array, v: Array, b: Array, w: Array) -> Array:
    """Return ``G_hat = (v.w) u + b``, shape (d,)."""
    return np.float32(_dot(v, w)) * u + b


def rank_one_step(
    u: Array, v: Array, b: Array, w: Array, g: Array, alpha: float, beta: float
) -> tuple[Array, Array, Array]:
    """Return (u, v, b) after one step on the squared error.

    ``dl/du = (v.w) r``, ``dl/dv = (u.r) w``, ``dl/db = r``, all at the old values. O(d) time and memory.
    """
    s = _dot(v, w)
    slope_w = np.float32(s) * u
    r = slope_w + b - g
    rated = alpha * rank_one_scale(u, v, w, r)
    return (
        u - np.float32(rated * s) * r,
        v - np.float32(rated * _dot(u, r)) * w,
        intercept_step(b, slope_w, g, beta),
    )


def _dot(x: Array, y: Array) -> float:
    """Return x.y, summed in float64 and pairwise, so that it does not depend on the number of threads."""
    return float(np.sum(np.multiply(x, y, dtype=np.float64)))
