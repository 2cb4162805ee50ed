"""The loss as a function of a prompt's coordinates, asked of any oracle, and its curvature at a point.

A white box gives Hessian-vector products by differences of gradients, which need no second derivatives of the model, so
that any attention kernel will do. A black box gives quadratic forms by differences of losses.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from distributed_tuner.errors import ModelError
from distributed_tuner.maths.curvature import (
    Array64,
    Mean,
    frobenius_norm,
    gradient_difference,
    lanczos,
    operator_norm,
    rademacher,
    second_difference,
)
from distributed_tuner.oracles.base import LossOracle
from distributed_tuner.seeds import Key, generator
from distributed_tuner.values import Batch, Candidate, Cost, Evaluation, Point, PromptSpec, Request

GRADIENT_STEP = 1e-2  # RMS of the coordinates' displacement between two gradients, in the prompt's units
LOSS_STEP = 0.5  # ... between losses, whose second difference loses twice as many digits


@dataclass(frozen=True, slots=True)
class Curvature:
    """Measurements of H at one point.

    norm: largest |eigenvalue|, by Lanczos from inside; of a black box ||H||_F, which is at least that. ritz: Lanczos's
    values, none of a black box.
    """

    loss: float
    gradient_norm: float | None
    trace: Mean
    norm: float
    ritz: tuple[float, ...]
    cost: Cost

    @property
    def ratio(self) -> float:
        """tr(H) over its norm at this point; of a black box a lower bound of it, whose square is an upper one."""
        return self.trace.value / self.norm if self.norm > 0 else 0.0


class Landscape:
    """The mean loss of ``batch`` at coordinates x, shape (d,), float64. ``spent`` adds up what was asked."""

    def __init__(self, oracle: LossOracle, batch: Batch, prompt: PromptSpec) -> None:
        self._oracle = oracle
        self._batch = batch
        self._prompt = prompt
        self.dim = prompt.length * oracle.info.width
        self.spent = Cost()

    def ask(self, candidates: Sequence[Candidate], gradient: bool = False) -> Evaluation:
        """Answer a request on the batch.

        Raises:
            ModelError: a loss is not finite.
        """
        answer = self._oracle.evaluate(Request(tuple(candidates), self._batch, self._prompt, gradient=gradient))
        self.spent = self.spent + answer.cost
        if not np.isfinite(answer.losses).all():
            raise ModelError(
                "curvature needs finite losses at every point, but some failed; ask a model that answers all of them,"
                " in float32"
            )
        return answer

    def losses(self, points: Sequence[Array64]) -> Array64:
        """Return the losses (N,) at points."""
        return np.asarray(self.ask([_point(x) for x in points]).losses, dtype=np.float64)

    def gradients(self, points: Sequence[Array64]) -> tuple[Array64, Array64]:
        """Return losses (N,) and gradients (N, d) at points.

        Raises:
            ModelError: the oracle gives none.
        """
        try:
            answer = self.ask([_point(x) for x in points], gradient=True)
        except ModelError as error:
            raise ModelError(f"{error}; or estimate from losses alone, with --forward-only") from None
        assert answer.gradients is not None
        return np.asarray(answer.losses, dtype=np.float64), np.asarray(answer.gradients, dtype=np.float64)

    def products(self, x: Array64, vectors: Sequence[Array64]) -> list[Array64]:
        """Return H v at x for each of some vectors, two gradients each, in one request."""
        steps = [GRADIENT_STEP * np.sqrt(self.dim) / np.linalg.norm(v) for v in vectors]
        ends = [x + sign * h * v for v, h in zip(vectors, steps, strict=True) for sign in (1, -1)]
        _, gradients = self.gradients(ends)
        return [
            gradient_difference(plus, minus, h)
            for plus, minus, h in zip(gradients[::2], gradients[1::2], steps, strict=True)
        ]


def curvature_at(landscape: Landscape, x: Array64, key: Key, *, probes: int, steps: int) -> Curvature:
    """Measure trace (Hutchinson, Rademacher) and largest |eigenvalue| (Lanczos from the gradient) of H at x.

    ``2 probes + 2 steps + 1`` gradients. ``key`` names the probes.
    """
    before = landscape.spent
    (loss,), (gradient,) = landscape.gradients([x])
    vectors = [rademacher(generator((*key, i)), landscape.dim) for i in range(probes)]
    forms = [float(v @ p) for v, p in zip(vectors, landscape.products(x, vectors), strict=True)]
    start = gradient if np.any(gradient) else vectors[0]
    ritz = lanczos(lambda v: landscape.products(x, [v])[0], start, steps)
    length = float(np.linalg.norm(gradient))
    cost = landscape.spent - before
    return Curvature(float(loss), length, Mean.of(forms), operator_norm(ritz), tuple(map(float, ritz)), cost)


def forward_curvature_at(
    landscape: Landscape, x: Array64, key: Key, *, probes: int, step: float = LOSS_STEP
) -> Curvature:
    """Measure trace and ||H||_F at x from losses alone: ``2 probes + 1`` queries, Gaussian probes named by ``key``.

    These are the queries that ZOT's steps make at the radius ``step``. The norm is an upper bound of the largest
    |eigenvalue|, and noise of the losses makes it larger.
    """
    before = landscape.spent
    vectors = [generator((*key, i)).standard_normal(landscape.dim) for i in range(probes)]
    points = [x, *(x + sign * step * v for v in vectors for sign in (1, -1))]
    losses = landscape.losses(points)
    middle, plus, minus = losses[0], losses[1::2], losses[2::2]
    forms = [second_difference(float(p), float(m), float(middle), step) for p, m in zip(plus, minus, strict=True)]
    cost = landscape.spent - before
    return Curvature(float(middle), None, Mean.of(forms), frobenius_norm(forms), (), cost)


Measure = Callable[[Landscape, Array64, Key], Curvature]
"""One of the two ways, with its numbers of probes."""


def _point(x: Array64) -> Point:
    return Point(np.asarray(x, dtype=np.float32))
