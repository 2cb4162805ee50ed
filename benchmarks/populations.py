"""Requests as the optimizers make them, at whatever size a benchmark needs."""

from typing import Literal, TypeAlias

import numpy as np

from distributed_tuner.optimizers.centers import make_center
from distributed_tuner.seeds import Key, standard_normal
from distributed_tuner.values import Batch, Candidate, Latent, Perturbation, Projection, PromptSpec, Request

Asks: TypeAlias = Literal["ZOT", "CMA-ES"]

INTRINSIC = 500  # K, the latent dimensions of BBT
PROJECTION = Projection(seed=0, dim=INTRINSIC, alpha=1.0, sigma=1.0)
RADIUS = 0.1


class Population:
    """What one trial asks, step by step: ``size`` candidates, an even number.

    "ZOT": pairs around a centre that is another one each step, as x moves. "CMA-ES": latent vectors of a population;
    they are drawn once, since drawing them is the optimizer's work and not the pool's.
    """

    def __init__(self, asks: Asks, size: int, batch: Batch, prompt: PromptSpec, key: Key, width: int) -> None:
        self._asks = asks
        self._size = size
        self._batch = batch
        self._prompt = prompt
        self._key = key
        self._dim = prompt.length * width
        rows = size if asks == "CMA-ES" else 0
        z_C_K = standard_normal((*key, "population"), rows * INTRINSIC).reshape(rows, INTRINSIC)
        self._latents = tuple(Latent(z_K, PROJECTION) for z_K in z_C_K)

    def request(self, step: int) -> Request:
        """Return the request of a step."""
        candidates = self._latents if self._asks == "CMA-ES" else self._pairs(step)
        return Request(candidates, self._batch, self._prompt)

    def _pairs(self, step: int) -> tuple[Candidate, ...]:
        center = make_center(self._key, step, np.full(self._dim, 0.01 * step, dtype=np.float32))
        pairs = range(self._size // 2)
        return tuple(Perturbation(center, (*self._key, step, i), sign, RADIUS) for i in pairs for sign in (1, -1))
