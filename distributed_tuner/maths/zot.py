"""The formulas of ZOT, "Black-box Prompt Tuning with Zeroth-Order Optimization" (EMNLP Findings 2024), Algorithm 3.

Names are the paper's: x prompt, z noise, rho radius, n points, delta two-point coefficient, g gradient estimate,
c clipping threshold, m momentum, beta its decay, gamma step size. Vectors are float32 of shape (P,), scalars are
float64. Noise, state and the choice of which steps run are left to the optimizer.
"""

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.float32]


def coefficient(loss_plus: float, loss_minus: float, rho: float) -> float:
    """Return ``delta = [f(x + rho z) - f(x - rho z)] / (2 rho)``, the slope along z (Alg. 3, line 2)."""
    return (loss_plus - loss_minus) / (2.0 * rho)


def gradient_estimate(deltas: Sequence[float], noise: Iterable[Array], size: int) -> Array:
    """Return ``g = (1/n) sum_i delta_i z_i``, shape (size,); zeros for n = 0 (Alg. 3, line 3).

    ``noise`` yields the z_i in the order of ``deltas``; it is read once, so that only one vector need exist at a time.
    """
    g = np.zeros(size, dtype=np.float32)
    for delta, z in zip(deltas, noise, strict=True):
        g += np.float32(delta / len(deltas)) * z
    return g


def norm(g: Array) -> float:
    """Return the L2 norm, summed in float64 and pairwise, so that it does not depend on the number of threads."""
    return float(np.sqrt(np.sum(np.square(g, dtype=np.float64))))


def clip_by_norm(g: Array, c: float) -> Array:
    """Return ``min(1, c / ||g||) g``, a new array; c = 0 means no clipping (Alg. 3, line 4)."""
    length = norm(g)
    if c > 0.0 and length > c:
        return g * np.float32(c / length)
    return g.copy()


def momentum(m: Array, g: Array, beta: float) -> Array:
    """Return ``m_t = beta m_{t-1} + (1 - beta) g`` (Alg. 3, line 5)."""
    return np.float32(beta) * m + np.float32(1.0 - beta) * g


def bias_correction(m: Array, beta: float, t: int) -> Array:
    """Return ``m_hat = m_t / (1 - beta^t)``, t counted from 1 (Alg. 3, line 6)."""
    return m * np.float32(1.0 / (1.0 - beta**t))


def update(x: Array, m_hat: Array, gamma: float) -> Array:
    """Return ``x_t = x_{t-1} - gamma_t m_hat`` (Alg. 3, line 7)."""
    return x - np.float32(gamma) * m_hat
