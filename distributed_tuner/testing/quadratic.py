"""A small quadratic world for optimizers: candidates become coordinates here, as an oracle would make them.

A prompt in words is a list of numbers in this world, a word a coordinate: "0.5 0.25" is (0.5, 0.25, 0, ..., 0). The
answer behind a loss is the scores of two label words on one example: minus the loss for the right one, 0 for the other.
"""

from collections.abc import Callable, Sequence

import numpy as np

from distributed_tuner.maths.bbt import apply_projection, make_projection, projection_std
from distributed_tuner.optimizers import Optimizer
from distributed_tuner.seeds import generator, standard_normal
from distributed_tuner.values import (
    Answers,
    Array,
    Array64,
    Batch,
    Candidate,
    Example,
    Latent,
    Perturbation,
    Point,
    Text,
)

DIM = 40
TRAIN = Batch((Example("only", "some text", " It was", 0),), (" right", " wrong"), "train")


def materialise(candidate: Candidate) -> Array:
    """Return the prompt coordinates of a candidate, shape (DIM,)."""
    match candidate:
        case Point(vector):
            return vector
        case Perturbation(center, key, sign, radius):
            return center.vector + np.float32(sign * radius) * standard_normal(key, len(center.vector))
        case Latent(z, projection, origin):
            std = projection_std(projection.alpha, 1.0, projection.dim, projection.sigma)
            a = make_projection(generator((projection.seed,)), DIM, projection.dim, std, projection.distribution)
            return apply_projection(a, z) + (0 if origin is None else origin.vector)
        case Text(text):
            numbers = [float(word) for word in text.split()]
            return np.array(numbers + [0.0] * (DIM - len(numbers)), dtype=np.float32)
    raise AssertionError(f"unexpected candidate {candidate}")


def sphere(x: Array) -> float:
    """Squared distance from (1, ..., 1) / 2; 10 at the origin."""
    return float(np.sum((x.astype(np.float64) - 0.5) ** 2))


def answers_of(optimizer: Optimizer, losses: Sequence[float] | Array64) -> Answers | None:
    """Return answers with these losses, which grow with them; None for an optimizer that wants none."""
    if not optimizer.wants_answers:
        return None
    logits = np.zeros((len(losses), 1, 2), dtype=np.float32)
    logits[:, 0, 0] = -np.array(losses)
    return Answers(logits, TRAIN)


def answer(optimizer: Optimizer, points: Sequence[Array], losses: Sequence[float] | Array64) -> None:
    """Tell the losses of ``points``; a white box also gets gradients of the sphere, another the answers it wants."""
    if optimizer.white_box:
        optimizer.tell(losses, np.stack([2.0 * (point - np.float32(0.5)) for point in points]))
    else:
        optimizer.tell(losses, answers=answers_of(optimizer, losses))


def run(optimizer: Optimizer, steps: int, loss: Callable[[Array], float] = sphere) -> list[Array]:
    """Run ``steps`` ask/tell rounds and return everything asked, in order."""
    asked: list[Array] = []
    for _ in range(steps):
        points = [materialise(candidate) for candidate in optimizer.ask()]
        answer(optimizer, points, [loss(point) for point in points])
        asked.extend(points)
    return asked
