"""The random projection of BBT, "Black-Box Tuning for Language-Model-as-a-Service" (ICML 2022), p = A z.

K intrinsic dimensions, P prompt coordinates. Where the matrix lives and which generator draws it is left to others:
it is made once beside the model and never travels.
"""

import math
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.float32]
Array64: TypeAlias = npt.NDArray[np.float64]

SOLVE_ROWS = 8192  # of the matrix that are widened to float64 at once


def projection_std(alpha: float, embedding_std: float, dim: int, sigma: float) -> float:
    """Return the entries' standard deviation ``s = alpha std(E) / (sqrt(K) sigma)`` (BBTv2, Sec. 4.2).

    With z ~ N(0, sigma^2 I_K) every coordinate of A z then has standard deviation ``alpha std(E)``.
    """
    return alpha * embedding_std / (math.sqrt(dim) * sigma)


def make_projection(
    rng: np.random.Generator, size: int, dim: int, std: float, distribution: Literal["normal", "uniform"] = "normal"
) -> Array:
    """Return the matrix A, float32, shape (P, K) = ``(size, dim)``, filled row by row from ``rng``.

    "normal" has entries N(0, std^2); "uniform" has U(-1/sqrt(K), 1/sqrt(K)) as the published BBT and ignores ``std``.
    """
    if distribution == "normal":
        a_P_K = rng.standard_normal((size, dim), dtype=np.float32)
        a_P_K *= np.float32(std)
        return a_P_K
    bound = 1.0 / math.sqrt(dim)
    a_P_K = rng.random((size, dim), dtype=np.float32)
    a_P_K *= np.float32(2.0 * bound)
    a_P_K -= np.float32(bound)
    return a_P_K


def apply_projection(a_P_K: Array, z_K: Array) -> Array:
    """Return ``A z``, float32. z: (K,) gives (P,); a population (C, K) gives (C, P)."""
    return np.asarray(z_K @ a_P_K.T, dtype=np.float32)


def solve_projection(a_P_K: Array, p_P: Array) -> Array64:
    """Return the z, shape (K,), whose ``A z`` is nearest to p, the shortest where there are several.

    Through the normal equations ``A'A z = A'p`` in float64, summed block by block, so that no float64 copy of the whole
    matrix is made. Their squared condition is harmless: a random A of many more rows than columns is near orthogonal.
    """
    columns = a_P_K.shape[1]
    gram_K_K, moment_K = np.zeros((columns, columns)), np.zeros(columns)
    for at in range(0, len(a_P_K), SOLVE_ROWS):
        rows = a_P_K[at : at + SOLVE_ROWS].astype(np.float64)
        gram_K_K += rows.T @ rows
        moment_K += rows.T @ p_P[at : at + SOLVE_ROWS].astype(np.float64)
    return np.asarray(np.linalg.lstsq(gram_K_K, moment_K, rcond=None)[0], dtype=np.float64)
