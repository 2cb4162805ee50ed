"""The updates of first-order optimizers: AdamW and momentum SGD, as torch.optim has them.

AdamW is Algorithm 2 of "Decoupled Weight Decay Regularization" (Loshchilov & Hutter, ICLR 2019), with its names: theta
parameters, g gradient, m and v first and second moment, beta1 and beta2 their decays, t the number of updates, counted
from 1. gamma is the step size, schedule included (alpha eta_t of the paper). Weight decay is torch's: scaled by the
step size, so that the paper's lambda is ``alpha * weight_decay``. Vectors are float32 of shape (P,), never written to;
scalars are float64. State is left to the optimizer.
"""

import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.float32]


def first_moment(m: Array, g: Array, beta1: float) -> Array:
    """Return ``m_t = beta1 m_{t-1} + (1 - beta1) g_t`` (Alg. 2, line 7)."""
    return np.float32(beta1) * m + np.float32(1.0 - beta1) * g


def second_moment(v: Array, g: Array, beta2: float) -> Array:
    """Return ``v_t = beta2 v_{t-1} + (1 - beta2) g_t^2`` (Alg. 2, line 8)."""
    return np.asarray(np.float32(beta2) * v + np.float32(1.0 - beta2) * np.square(g), dtype=np.float32)


def adam_direction(m: Array, v: Array, t: int, beta1: float, beta2: float, eps: float) -> Array:
    """Return ``m_hat / (sqrt(v_hat) + eps)`` with the bias-corrected moments (Alg. 2, lines 9, 10 and 12)."""
    m_hat = m / np.float32(1.0 - beta1**t)
    root = np.sqrt(v) / np.float32(math.sqrt(1.0 - beta2**t))
    return np.asarray(m_hat / (root + np.float32(eps)), dtype=np.float32)


def momentum_sum(m: Array, g: Array, momentum: float) -> Array:
    """Return ``m_t = momentum m_{t-1} + g_t``: a sum, not a mean (torch.optim.SGD without dampening)."""
    return np.float32(momentum) * m + g


def decay(theta: Array, gamma: float, weight_decay: float) -> Array:
    """Return ``(1 - gamma weight_decay) theta``, the decoupled decay (Alg. 2, line 12; torch.optim.AdamW)."""
    return theta * np.float32(1.0 - gamma * weight_decay)


def descend(theta: Array, direction: Array, gamma: float) -> Array:
    """Return ``theta - gamma direction`` (Alg. 2, line 12)."""
    return theta - np.float32(gamma) * direction
