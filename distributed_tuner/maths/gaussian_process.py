"""A Gaussian process that predicts many numbers of a point at once, and its slope.

Formulas and names are those of Rasmussen & Williams, "Gaussian Processes for Machine Learning" (2006). All Q outputs
share one kernel and are independent given it. Each has a constant mean of its own, and one signal variance serves all.
Of the N points nothing is known but their squared distances.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array64: TypeAlias = npt.NDArray[np.float64]


def squared_distances(a_N_J: Array64, b_M_J: Array64, gram_J_J: Array64) -> Array64:
    """Return ``|sum_j (a_nj - b_mj) z_j|^2``, shape (N, M), of points given as coefficients of vectors z_j.

    gram: ``z_i . z_j``.
    """
    turned_N_J = a_N_J @ gram_J_J
    of_a_N, of_b_M = (turned_N_J * a_N_J).sum(axis=1), (b_M_J @ gram_J_J * b_M_J).sum(axis=1)
    return np.asarray(np.maximum(of_a_N[:, None] + of_b_M - 2.0 * turned_N_J @ b_M_J.T, 0.0))


def squared_exponential(squared: Array64, length: float) -> Array64:
    """Return ``k = exp(-d^2 / 2 l^2)`` of squared distances (Eq. 4.9, signal variance apart)."""
    return np.asarray(np.exp(squared / (-2.0 * length**2)))


@dataclass(frozen=True, eq=False, slots=True)
class GaussianProcess:
    """A fitted process: it expects ``mean + k(x, X) weights`` (Eq. 2.41 with a constant for h).

    mean (Q,), weights (N, Q); length in the unit of the distances. noise: the variance of an output's noise over that
    of the signal. evidence: the log marginal likelihood, up to a constant.
    """

    mean: Array64
    weights: Array64
    length: float
    noise: float
    evidence: float

    def predict(self, squared_N: Array64) -> Array64:
        """Return the expected outputs (Q,) at a point, by its squared distances to the N points."""
        return np.asarray(self.mean + squared_exponential(squared_N, self.length) @ self.weights)

    def pulls(self, squared_N: Array64, slope_Q: Array64) -> Array64:
        """Return how hard each point pulls, (N,), on a loss that has this slope by the outputs.

        The loss's gradient by x is ``sum_n pull_n (x_n - x)``, since ``dk/dx = k (x_n - x) / l^2``.
        """
        k_N = squared_exponential(squared_N, self.length)
        return np.asarray(k_N * (self.weights @ slope_Q) / self.length**2)


def fit(
    squared_N_N: Array64, y_N_Q: npt.NDArray[Any], lengths: Sequence[float], noises: Sequence[float]
) -> GaussianProcess:
    """Return the process of the length and noise under which the outputs are likeliest; first of equals.

    In the log marginal likelihood (Eq. 5.8) the means have their generalised least-squares values (Eq. 2.43), and the
    signal variance its best. One eigendecomposition of the kernel serves all noises.
    """
    y = np.asarray(y_N_Q, dtype=np.float64)
    count, outputs = y.shape
    best: GaussianProcess | None = None
    for length in lengths:
        eigenvalues, basis = np.linalg.eigh(squared_exponential(squared_N_N, length))
        ones, turned = basis.sum(axis=0), basis.T @ y
        for noise in noises:
            precision = 1.0 / (np.maximum(eigenvalues, 0.0) + noise)
            mean = (ones * precision) @ turned / ((ones * precision) @ ones)
            residual = turned - ones[:, None] * mean
            signal = float((residual**2 * precision[:, None]).sum()) / (count * outputs)
            evidence = 0.5 * outputs * (np.log(precision).sum() - count * np.log(max(signal, 1e-300)))
            if best is None or evidence > best.evidence:
                weights = basis @ (precision[:, None] * residual)
                best = GaussianProcess(mean, weights, length, noise, float(evidence))
    if best is None:
        raise ValueError("a Gaussian process is fitted with one length and one noise at least; got none")
    return best
