"""Test problems for comparing optimizers: the mean of losses over examples, by the coordinates of several runs.

Letters: R runs side by side, d coordinates of one run, N examples, B examples of a mini-batch.
"""

import math
from typing import Protocol

import numpy as np
import numpy.typing as npt

from distributed_tuner.seeds import Key, generator
from distributed_tuner.values import Array, Array64

Picks = npt.NDArray[np.int64]


class Problem(Protocol):
    """A training problem. Runs are rows of w (R, d), float32; a row that is not finite has a loss that is not either.

    name: for files and random numbers. title: for people. shapes: of the parameter tensors that w is cut into, each of
    which has a gradient estimator of its own. optimum: the smallest training loss, None where it is not known.
    """

    @property
    def name(self) -> str: ...

    @property
    def title(self) -> str: ...

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]: ...

    @property
    def examples(self) -> int: ...

    @property
    def batch_size(self) -> int: ...

    @property
    def optimum(self) -> float | None: ...

    def start(self, key: Key) -> Array:
        """Return where the run ``key`` begins, shape (d,)."""
        ...

    def gradients(self, w_R_d: Array, picks_R_B: Picks) -> Array:
        """Return the gradient (R, d) of each run's loss on its own mini-batch of training examples."""
        ...

    def losses(self, w_R_d: Array) -> Array64:
        """Return each run's loss on all training examples, shape (R,)."""
        ...

    def losses_and_gradients(self, w_R_d: Array) -> tuple[Array64, Array]:
        """Return ``losses`` and their gradients (R, d)."""
        ...

    def accuracy(self, w_R_d: Array) -> Array64 | None:
        """Return each run's share of right answers on held-out examples, shape (R,); None where there are none."""
        ...


def dim(problem: Problem) -> int:
    """Return d."""
    return sum(math.prod(shape) for shape in problem.shapes)


def largest(problem: Problem) -> int:
    """Return the number of coordinates of the largest parameter tensor."""
    return max(math.prod(shape) for shape in problem.shapes)


def spans(shapes: tuple[tuple[int, ...], ...]) -> list[tuple[int, int]]:
    """Return where each tensor begins and ends in the d coordinates."""
    ends = np.cumsum([math.prod(shape) for shape in shapes]).tolist()
    return list(zip([0, *ends[:-1]], ends, strict=True))


def batches(key: Key, steps: int, examples: int, size: int) -> Picks:
    """Return the mini-batches of a run, shape (steps, size): each drawn anew, no example twice in one."""
    noise = generator((*key, "batches")).random((steps, examples))
    return np.sort(np.argpartition(noise, min(size, examples - 1), axis=1)[:, :size], axis=1)
