"""Figure 1 of ZOT's paper: gradient descent and its zeroth-order form on quadratics of one effective dimension.

Spectra and step sizes are not given there. Here ten eigenvalues from 1 down with the sum D_e, zeros beside them
whatever d is, and the step sizes of Theorem 4.3.
"""

import math
from dataclasses import dataclass

import numpy as np

from distributed_tuner.maths.curvature import Array64, slowdown, step_size
from distributed_tuner.seeds import generator

EIGENVALUES = 10
L = 1.0


@dataclass(frozen=True, slots=True)
class Descent:
    """Losses (seeds, T + 1) of one method on the quadratic of d coordinates; n: its probes, 0 for gradient descent."""

    d: int
    n: int
    gamma: float
    losses: Array64

    @property
    def mean(self) -> Array64:
        """Geometric mean over seeds, shape (T + 1,): losses of seeds lie orders of magnitude apart."""
        return np.asarray(np.exp(np.log(np.maximum(self.losses, 1e-300)).mean(axis=0)))


def spectrum(d_e: float, count: int = EIGENVALUES) -> Array64:
    """Return ``count`` eigenvalues ``(1 - 0.9 i / (count - 1))^c`` from 1 down, c such that they sum to ``d_e``."""
    base = 1.0 - 0.9 * np.arange(count) / (count - 1)
    low, high = 0.0, 100.0
    for _ in range(200):
        c = (low + high) / 2
        low, high = (c, high) if float((base**c).sum()) > d_e else (low, c)
    return np.asarray(base ** ((low + high) / 2))


def gradient_descent(d_e: float, d: int, steps: int, seeds: range) -> Descent:
    """Run GD at 1/L from each seed's start, which lies where the curvature is."""
    return _run(d_e, d, 0, 1.0 / L, steps, seeds)


def zo_descent(d_e: float, d: int, n: int, steps: int, seeds: range) -> Descent:
    """Run ZO-GD with n Gaussian probes and exact directional derivatives (rho to 0), at the theorem's step size."""
    return _run(d_e, d, n, step_size(d_e, n, L), steps, seeds)


def _run(d_e: float, d: int, n: int, gamma: float, steps: int, seeds: range) -> Descent:
    eigenvalues = np.zeros(d)
    eigenvalues[:EIGENVALUES] = spectrum(d_e)
    losses = np.empty((len(seeds), steps + 1))
    for row, seed in enumerate(seeds):
        x = np.zeros(d)
        x[:EIGENVALUES] = generator(("quadratic", seed)).standard_normal(EIGENVALUES)
        draw = generator(("quadratic", seed, d, n))
        for t in range(steps + 1):
            losses[row, t] = float(eigenvalues @ x**2) / 2
            g = eigenvalues * x
            if n:
                z = draw.standard_normal((n, d))
                g = z.T @ (z @ g) / n
            x = x - gamma * g
    return Descent(d, n, gamma, losses)


def probes_of(d_e: float, d: int) -> list[int]:
    """Return the figure's numbers of probes: 1, D_e / 2, D_e and d."""
    return sorted({1, max(1, math.ceil(d_e / 2)), math.ceil(d_e), d})


def predicted(found: Descent, gd: Descent, d_e: float) -> float:
    """Return gradient descent's loss after as many steps as the theorem says that the method's own are worth."""
    steps = found.losses.shape[1] - 1
    worth = steps / slowdown(d_e, found.n)
    return float(np.exp(np.interp(worth, np.arange(steps + 1), np.log(gd.mean))))
