"""Prompt coordinates from a candidate's recipe, computed next to the model.

Projections are made once, kept while in use.
"""

from collections import OrderedDict

import numpy as np

from distributed_tuner.errors import OracleError
from distributed_tuner.maths.bbt import apply_projection, make_projection, projection_std
from distributed_tuner.seeds import generator, standard_normal
from distributed_tuner.values import Array, Candidate, Embedded, Latent, Perturbation, Point, Projection, Text

PROJECTION_BYTES = 2 * 2**30  # two projections of a 7B model's 50-row prompt, or dozens of a small one's


class Recipes:
    """Makes coordinates ``x``, shape (P,), of candidates for prompts of ``unit`` and embedding std ``embedding_std``.

    A projection's entries are in embedding space, so they are divided by the prompt's unit: rows are base + unit * x.
    """

    def __init__(self, embedding_std: float) -> None:
        self._embedding_std = embedding_std
        self._projections: OrderedDict[tuple[Projection, int], Array] = OrderedDict()

    def coordinates(self, candidate: Candidate, dim: int, unit: float) -> Array:
        """Return x of shape (dim,), float32.

        Raises:
            OracleError: the candidate is a text, embedded or not, or its vector has another length than the prompt.
        """
        match candidate:
            case Perturbation(center, key, sign, radius):
                x = _of_size(center.vector, dim) + np.float32(sign * radius) * standard_normal(key, dim)
            case Latent(z, projection, origin):
                x = apply_projection(self._projection(projection, dim), _of_size(z, projection.dim)) / np.float32(unit)
                x = x if origin is None else _of_size(origin.vector, dim) + x
            case Point(vector):
                x = _of_size(vector, dim)
            case Text():
                raise OracleError("a text candidate has no prompt coordinates; ask for soft candidates only")
            case Embedded():
                raise OracleError("the rows of an embedded text are its tokens'; ask the model's oracle for them")
        return np.asarray(x, dtype=np.float32)

    def _projection(self, projection: Projection, dim: int) -> Array:
        key = (projection, dim)
        if key not in self._projections:
            self._projections[key] = projection_matrix(projection, dim, self._embedding_std)
            while len(self._projections) > 1 and sum(a.nbytes for a in self._projections.values()) > PROJECTION_BYTES:
                self._projections.popitem(last=False)
        self._projections.move_to_end(key)
        return self._projections[key]


def projection_matrix(projection: Projection, dim: int, embedding_std: float) -> Array:
    """Return the matrix A that a projection names, shape (dim, K), float32, for a model of that embedding std."""
    std = projection_std(projection.alpha, embedding_std, projection.dim, projection.sigma)
    return make_projection(
        generator(("projection", projection.seed)), dim, projection.dim, std, projection.distribution
    )


def _of_size(vector: Array, size: int) -> Array:
    if vector.shape != (size,):
        raise OracleError(f"a candidate must have {size} coordinates, but got an array of shape {vector.shape}")
    return vector
