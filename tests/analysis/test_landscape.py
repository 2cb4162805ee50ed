"""Curvature through an oracle: on a quadratic with a known spectrum, and on tiny models against their own losses."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tiny_models import MIXED, SPEC

from distributed_tuner.analysis.descents import first_order_way, gradient_descent, zo_descent
from distributed_tuner.analysis.landscape import Landscape, curvature_at, forward_curvature_at
from distributed_tuner.config.first_order import SgdConfig
from distributed_tuner.errors import ModelError
from distributed_tuner.maths.curvature import Array64
from distributed_tuner.optimizers import build
from distributed_tuner.oracles.base import counted
from distributed_tuner.seeds import generator, standard_normal
from distributed_tuner.values import Batch, Evaluation, Example, OracleInfo, Perturbation, Point, PromptSpec, Request

D, LENGTH = 24, 3
BATCH = Batch((Example("a", "text", " It", 0),), (" yes", " no"), "train")
PROMPT = PromptSpec(LENGTH, "zeros", "", "prefix", "paper")


class Quadratic:
    """An oracle with the loss 1 + x'Hx / 2 - b.x. ``white``: it gives gradients; ``broken``: its losses are NaN."""

    def __init__(self, eigenvalues: list[float], white: bool = True, broken: bool = False) -> None:
        q, _ = np.linalg.qr(generator(("rotation",)).standard_normal((D, D)))
        self.H: Array64 = q * np.array(eigenvalues + [0.0] * (D - len(eigenvalues))) @ q.T
        self.b = self.H @ np.ones(D)
        self.white, self.broken = white, broken
        self.info = OracleInfo("quadratic", D // LENGTH, 10, 100, 1.0, "float64", "cpu", {})

    def evaluate(self, request: Request, timeout: float = math.inf) -> Evaluation:
        if request.gradient and not self.white:
            raise ModelError("no gradients here")
        points = np.stack([self._x(candidate) for candidate in request.candidates])
        losses = 1 + np.einsum("nd,de,ne->n", points, self.H, points) / 2 - points @ self.b
        if self.broken:
            losses[0] = np.nan
        gradients = points @ self.H - self.b if request.gradient else None
        return Evaluation(losses, losses[:, None], None, counted(request, 1), gradients)  # type: ignore[arg-type]

    def _x(self, candidate: Any) -> Array64:
        if isinstance(candidate, Perturbation):
            noise = candidate.sign * candidate.radius * standard_normal(candidate.key, D)
            return candidate.center.vector.astype(float) + noise
        return np.asarray(candidate.vector, dtype=float)


def landscape(eigenvalues: list[float], **more: Any) -> Landscape:
    return Landscape(Quadratic(eigenvalues, **more), BATCH, PROMPT)  # type: ignore[arg-type]


def test_a_white_box_tells_trace_and_norm_and_counts_its_gradients() -> None:
    found = curvature_at(landscape([3.0, 1.0, 0.5, -0.25]), np.zeros(D), ("k",), probes=60, steps=4)
    assert abs(found.trace.value - 4.25) < 4 * found.trace.error < 4
    assert found.norm == pytest.approx(3.0, rel=1e-3)
    assert found.ratio == pytest.approx(found.trace.value / 3.0, rel=1e-3)
    assert found.loss == pytest.approx(1.0)
    assert found.cost.queries == 3 * (1 + 2 * 60 + 2 * 4)


def test_a_black_box_tells_trace_and_frobenius_norm() -> None:
    field = landscape([3.0, 1.0, 0.5, -0.25], white=False)
    found = forward_curvature_at(field, np.ones(D), ("a",), probes=2000)
    assert abs(found.trace.value - 4.25) < 4 * found.trace.error < 1
    assert found.norm == pytest.approx(math.sqrt(9 + 1 + 0.25 + 0.0625), rel=0.1)
    assert (found.gradient_norm, found.ritz, found.cost.queries) == (None, (), 4001)


def test_a_black_box_that_is_asked_for_gradients_names_the_other_way() -> None:
    with pytest.raises(ModelError, match="no gradients here; or estimate from losses alone, with --forward-only"):
        curvature_at(landscape([1.0], white=False), np.zeros(D), ("k",), probes=2, steps=2)


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    with pytest.raises(ModelError, match="finite losses"):
        forward_curvature_at(landscape([1.0], broken=True), np.zeros(D), ("k",), probes=2)


def test_descents_go_down_at_the_theorems_step_sizes_and_repeat() -> None:
    field = landscape([1.0, 0.8, 0.6, 0.4])
    gd = gradient_descent(field, np.zeros(D), 1.0, 20)
    assert gd[0] == pytest.approx(1.0) and (np.diff(gd) < 1e-9).all()
    first = zo_descent(field, np.zeros(D), 4 / (2.8 + 5), 4, 0.1, 20, ("z",))
    assert np.array_equal(first, zo_descent(field, np.zeros(D), 4 / (2.8 + 5), 4, 0.1, 20, ("z",)))
    assert gd[-1] - 1e-6 <= first[-1] < first[0] - 0.5 * (gd[0] - gd[-1])


def test_a_way_has_a_point_before_every_step_and_one_after() -> None:
    optimizer = build(SgdConfig(learning_rate=0.5, momentum=0, clip=0), dim=D, key=("w",), steps=5)
    way = first_order_way(landscape([1.0, 0.8]), optimizer, 5)
    assert len(way) == 6 and not way[0].any()
    recommended = optimizer.recommend()
    assert isinstance(recommended, Point)
    assert np.array_equal(way[-1], recommended.vector)


@pytest.mark.model
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_of_a_model_products_agree_with_its_losses(architecture: str, tiny_white: Callable[[str], Any]) -> None:
    """v'Hv by differences of gradients is that by differences of losses, and H is symmetric."""
    oracle = tiny_white(architecture)
    field = Landscape(oracle, MIXED, SPEC)
    x, v, w = (
        scale * generator((name,)).standard_normal(field.dim) for name, scale in zip("xvw", (0.3, 1, 1), strict=True)
    )
    Hv, Hw = field.products(x, [v, w])
    assert float(w @ Hv) == pytest.approx(float(v @ Hw), rel=0.02, abs=1e-3 * float(np.linalg.norm(Hv)))
    h = 0.05
    plus, middle, minus = field.losses([x + h * v, x, x - h * v])
    assert float(v @ Hv) == pytest.approx((plus + minus - 2 * middle) / h**2, rel=0.1, abs=0.02)
