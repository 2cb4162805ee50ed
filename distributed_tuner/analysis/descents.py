"""Descents of a landscape: a first-order way, and gradient descent beside its zeroth-order form at given step sizes."""

import numpy as np

from distributed_tuner.analysis.landscape import Landscape
from distributed_tuner.maths import zot
from distributed_tuner.maths.curvature import Array64
from distributed_tuner.optimizers import Optimizer
from distributed_tuner.seeds import Key, standard_normal
from distributed_tuner.values import Center, Perturbation, Point


def first_order_way(landscape: Landscape, optimizer: Optimizer, steps: int) -> list[Array64]:
    """Return where a first-order optimizer stood before each of ``steps`` steps and after the last, from its start."""
    way: list[Array64] = []
    for _ in range(steps):
        (asked,) = optimizer.ask()
        assert isinstance(asked, Point)
        way.append(asked.vector.astype(np.float64))
        losses, gradients = landscape.gradients([way[-1]])
        optimizer.tell(losses, gradients.astype(np.float32))
    last = optimizer.recommend()
    assert isinstance(last, Point)
    return [*way, last.vector.astype(np.float64)]


def gradient_descent(landscape: Landscape, x: Array64, gamma: float, steps: int) -> Array64:
    """Return the losses (steps + 1,) of gradient descent from x."""
    losses = np.empty(steps + 1)
    for t in range(steps + 1):
        (losses[t],), (gradient,) = landscape.gradients([x])
        x = x - gamma * gradient
    return losses


def zo_descent(landscape: Landscape, x: Array64, gamma: float, n: int, rho: float, steps: int, key: Key) -> Array64:
    """Return the losses (steps + 1,) of ZO-GD from x: n pairs a step at the radius rho, noise named by ``key``.

    ``2 n + 1`` queries a step; the last point's loss takes one.
    """
    losses = np.empty(steps + 1)
    for t in range(steps):
        center = Center(f"{key}-{t}", np.asarray(x, dtype=np.float32))
        pairs = [Perturbation(center, (*key, t, i), sign, rho) for i in range(n) for sign in (1, -1)]
        answer = np.asarray(landscape.ask([Point(center.vector), *pairs]).losses, dtype=np.float64)
        losses[t] = answer[0]
        deltas = [zot.coefficient(p, m, rho) for p, m in answer[1:].reshape(-1, 2).tolist()]
        noise = (standard_normal((*key, t, i), landscape.dim) for i in range(n))
        x = x - gamma * zot.gradient_estimate(deltas, noise, landscape.dim)
    losses[steps] = landscape.losses([x])[0]
    return losses
