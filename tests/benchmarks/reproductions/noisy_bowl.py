"""A problem small enough to follow by hand: ``F(w) = 1/N sum_n 1/2 sum_i h_i (w_i - c_n,i)^2``, of several tensors."""

from dataclasses import dataclass

import numpy as np

from benchmarks.reproductions.trainable_optimizer.problems import Picks
from distributed_tuner.seeds import Key, standard_normal
from distributed_tuner.values import Array, Array64


@dataclass(frozen=True, eq=False)
class NoisyBowl:
    shapes: tuple[tuple[int, ...], ...] = ((2, 2), (3,))
    examples: int = 12
    batch_size: int = 3
    noise: float = 1.0
    name: str = "bowl"
    title: str = "Bowl"
    optimum: float | None = None

    @property
    def centers(self) -> Array:
        return np.float32(self.noise) * standard_normal(("bowl",), self.examples * 7).reshape(self.examples, 7)

    @property
    def bends(self) -> Array:
        return np.linspace(0.5, 1.0, 7, dtype=np.float32)

    def start(self, key: Key) -> Array:
        return 2.0 + 0.1 * standard_normal((*key, "start"), 7)

    def gradients(self, w_R_d: Array, picks_R_B: Picks) -> Array:
        return self.bends * (w_R_d - self.centers[picks_R_B].mean(axis=1))

    def losses(self, w_R_d: Array) -> Array64:
        apart = w_R_d[:, None].astype(np.float64) - self.centers
        return (self.bends * apart**2).sum(axis=2).mean(axis=1) / 2

    def losses_and_gradients(self, w_R_d: Array) -> tuple[Array64, Array]:
        return self.losses(w_R_d), self.bends * (w_R_d - self.centers.mean(axis=0))

    def accuracy(self, w_R_d: Array) -> Array64 | None:
        return None
