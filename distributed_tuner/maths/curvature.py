"""Curvature of a loss around a prompt: traces, largest eigenvalues, the effective dimension and what follows from it.

Of "Zeroth-Order Tuning" (Zhan et al., Findings of EMNLP 2024): the effective dimension ``D_e = sup tr(H) / L``
(Def. 4.1), L the Lipschitz constant of the gradient; the second moment of the estimate (Lemma A.1); the step size
``gamma = n / ((D_e + n + 1) L)`` at which a step does ``n / (D_e + n + 1)`` of gradient descent's (Thm 4.3). How D_e is
estimated is not said there; here H is seen through products with vectors, or through losses alone.

Vectors are float64 of shape (d,), never written to. All eigenvalues count in a trace, so negative ones reduce it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Array64: TypeAlias = npt.NDArray[np.float64]
Product: TypeAlias = Callable[[Array64], Array64]
"""Returns H v of a symmetric H, shape (d,)."""


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over independent probes with its standard error, which is infinite for one probe."""

    value: float
    error: float
    probes: int

    @classmethod
    def of(cls, samples: Sequence[float] | Array64) -> "Mean":
        """Return the mean of samples, at least one."""
        values = np.asarray(samples, dtype=np.float64)
        spread = float(values.std(ddof=1)) if len(values) > 1 else math.inf
        return cls(float(values.mean()), spread / math.sqrt(len(values)), len(values))


# ----------------------------------------------------------------------------------------------------- probes
def rademacher(stream: np.random.Generator, size: int) -> Array64:
    """Return a vector of independent signs, the probe of least variance for traces."""
    return stream.integers(0, 2, size=size).astype(np.float64) * 2.0 - 1.0


def quadratic(product: Product, v: Array64) -> float:
    """Return ``v' H v``; its mean over Rademacher or Gaussian v is tr(H) (Hutchinson 1990)."""
    return float(v @ product(v))


def second_difference(plus: float, minus: float, middle: float, h: float) -> float:
    """Return ``[f(x + h v) + f(x - h v) - 2 f(x)] / h^2``, which is v' H v up to O(h^2), from losses only."""
    return (plus + minus - 2.0 * middle) / h**2


def gradient_difference(plus: Array64, minus: Array64, h: float) -> Array64:
    """Return ``[grad f(x + h v) - grad f(x - h v)] / (2 h)``, which is H v up to O(h^2)."""
    return (plus - minus) / (2.0 * h)


def frobenius_norm(quadratics: Sequence[float] | Array64) -> float:
    """Return ``||H||_F`` from v' H v of independent Gaussian probes, whose variance is ``2 ||H||_F^2``; two or more.

    Noise of the losses adds to the variance, so that the norm comes out too large, never too small on average.
    """
    return math.sqrt(float(np.var(np.asarray(quadratics, dtype=np.float64), ddof=1)) / 2.0)


# ----------------------------------------------------------------------------------------------- largest eigenvalue
def lanczos(product: Product, start: Array64, steps: int) -> Array64:
    """Return the Ritz values of so many Lanczos steps, ascending; those at the ends are near H's own, from inside.

    Every new vector is made orthogonal to all before. Fewer steps are made where the space is exhausted.
    """
    basis = [start / np.linalg.norm(start)]
    diagonal: list[float] = []
    beside: list[float] = []
    for _ in range(min(steps, len(start))):
        w = product(basis[-1])
        diagonal.append(float(basis[-1] @ w))
        for _ in range(2):  # once is not enough for the last digits
            for q in basis:
                w = w - (q @ w) * q
        length = float(np.linalg.norm(w))
        if length <= 1e-10 * max(1.0, abs(diagonal[0])):
            break
        beside.append(length)
        basis.append(w / length)
    beside = beside[: len(diagonal) - 1]
    tridiagonal = np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1)
    return np.asarray(np.linalg.eigvalsh(tridiagonal), dtype=np.float64)


def operator_norm(ritz: Array64) -> float:
    """Return the largest ``|value|``: what bounds the change of a gradient by that of x."""
    return float(np.abs(ritz).max())


# ------------------------------------------------------------------------------------------------ the theory's numbers
def effective_dimension(traces: Sequence[float], norms: Sequence[float]) -> float:
    """Return ``D_e = max tr(H) / max ||H||`` over points (Def. 4.1, with maxima over those for the supremum)."""
    return max(traces) / max(norms)


def step_size(d_e: float, n: int, L: float) -> float:
    """Return ``gamma = n / ((D_e + n + 1) L)``, the step size of ZO-GD with n probes (Thm 4.3)."""
    return n / ((d_e + n + 1.0) * L)


def slowdown(d_e: float, n: int) -> float:
    """Return ``(D_e + n + 1) / n``, by which ZO-GD needs more steps than gradient descent at 1/L (Thm 4.3)."""
    return (d_e + n + 1.0) / n


def second_moment(g: Array64, n: int) -> Array64:
    """Return ``E[g_hat g_hat'] = (1 + 1/n) g g' + ||g||^2 I / n``, g_hat the mean of n of ``(z.g) z`` (Lemma A.1)."""
    return (1.0 + 1.0 / n) * np.outer(g, g) + float(g @ g) / n * np.eye(len(g))


def descent(gamma: float, n: int, L: float, trace: float) -> float:
    """Return the bound's factor of ``||grad||^2`` in ``E f(x+) - f(x)`` (Lemma A.2); negative where a step descends."""
    return -gamma + gamma**2 / 2.0 * ((1.0 + 1.0 / n) * L + trace / n)
