"""Small networks on scikit-learn's handwritten digits, 8 x 8 pixels and ten classes; all runs in one pass."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from benchmarks.reproductions.trainable_optimizer.problems import Picks, spans
from distributed_tuner.seeds import Key, generator, seed_of
from distributed_tuner.values import Array, Array64

if TYPE_CHECKING:
    from torch import Tensor

HELD_OUT, CLASSES, SIDE = 0.3, 10, 8


@dataclass(frozen=True, eq=False, slots=True)
class Digits:
    """The data: images (N, 64) with pixels in [0, 1] and labels (N,), to train on and held out."""

    x: Array
    y: npt.NDArray[np.int64]
    held_out_x: Array
    held_out_y: npt.NDArray[np.int64]


def digits(seed: int) -> Digits:
    """Return the digits, split by ``seed``."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    parts = train_test_split(
        (x / 16.0).astype(np.float32),
        y.astype(np.int64),
        test_size=HELD_OUT,
        stratify=y,
        random_state=seed_of((seed, "digits", "split")),
    )
    return Digits(parts[0], parts[2], parts[1], parts[3])


@dataclass(frozen=True, eq=False, slots=True)
class Network(ABC):
    """Mean cross-entropy of a network. Members say which one; weights begin random (He), biases at 0.

    ``chunk``: examples of one pass over all the data.
    """

    data: Digits
    batch_size: int
    chunk: int = 256
    name: ClassVar[str]
    title: ClassVar[str]
    shapes: ClassVar[tuple[tuple[int, ...], ...]]
    optimum: ClassVar[float | None] = None

    @abstractmethod
    def _scores(self, parts: "list[Tensor]", x_R_B: "Tensor") -> "Tensor":
        """Return the classes' scores (R, B, classes) of images (R, B, 64), from tensors (R, *shape)."""

    @property
    def examples(self) -> int:
        return len(self.data.y)

    def start(self, key: Key) -> Array:
        noise = generator((*key, "start"))
        drawn = []
        for shape in self.shapes:
            count = math.prod(shape)
            fan_in = math.prod(shape[1:]) if len(shape) == 4 else shape[0]
            spread = math.sqrt(2.0 / fan_in) if len(shape) > 1 else 0.0
            drawn.append(spread * noise.standard_normal(count))
        return np.concatenate(drawn).astype(np.float32)

    def gradients(self, w_R_d: Array, picks_R_B: Picks) -> Array:
        return self._pass(w_R_d, self.data.x[picks_R_B], self.data.y[picks_R_B])[1] / np.float32(picks_R_B.shape[1])

    def losses(self, w_R_d: Array) -> Array64:
        return self.losses_and_gradients(w_R_d)[0]

    def losses_and_gradients(self, w_R_d: Array) -> tuple[Array64, Array]:
        runs, count = len(w_R_d), self.examples
        losses, gradients = np.zeros(runs), np.zeros_like(w_R_d)
        for at in range(0, count, self.chunk):
            x, y = self.data.x[at : at + self.chunk], self.data.y[at : at + self.chunk]
            part = self._pass(w_R_d, np.repeat(x[None], runs, axis=0), np.repeat(y[None], runs, axis=0))
            losses += part[0]
            gradients += part[1]
        return losses / count, gradients / np.float32(count)

    def accuracy(self, w_R_d: Array) -> Array64 | None:
        import torch

        x, y = self.data.held_out_x, self.data.held_out_y
        with torch.no_grad():
            images = torch.from_numpy(np.repeat(x[None], len(w_R_d), axis=0))
            scores = self._scores(self._parts(torch.from_numpy(w_R_d)), images)
        return np.asarray((scores.argmax(dim=2).numpy() == y).mean(axis=1), dtype=np.float64)

    def _pass(self, w_R_d: Array, x_R_B: Array, y_R_B: npt.NDArray[np.int64]) -> tuple[Array64, Array]:
        """Return each run's summed loss (R,) and its gradient (R, d)."""
        import torch

        w = torch.from_numpy(w_R_d).clone().requires_grad_()
        scores = self._scores(self._parts(w), torch.from_numpy(x_R_B))
        labels = torch.from_numpy(y_R_B)
        each = torch.nn.functional.cross_entropy(scores.flatten(0, 1), labels.flatten(), reduction="none")
        losses = each.view(labels.shape).sum(dim=1)
        (gradient,) = torch.autograd.grad(losses.sum(), w)
        return losses.detach().double().numpy(), gradient.numpy()

    def _parts(self, w_R_d: "Tensor") -> "list[Tensor]":
        cut = zip(self.shapes, spans(self.shapes), strict=True)
        return [w_R_d[:, at:until].reshape(-1, *shape) for shape, (at, until) in cut]


@dataclass(frozen=True, eq=False, slots=True)
class Perceptron(Network):
    """64 pixels, 16 hidden units, 10 classes."""

    name = "perceptron"
    title = "Perceptron with one hidden layer, digits"
    shapes = ((SIDE * SIDE, 16), (16,), (16, CLASSES), (CLASSES,))

    def _scores(self, parts: "list[Tensor]", x_R_B: "Tensor") -> "Tensor":
        import torch

        hidden = torch.baddbmm(parts[1][:, None], x_R_B, parts[0]).relu()
        return torch.baddbmm(parts[3][:, None], hidden, parts[2])


@dataclass(frozen=True, eq=False, slots=True)
class Convolutional(Network):
    """Two convolutions of 3 x 3, 16 and 32 channels, each with max pooling by 2, and a linear layer."""

    name = "convolutional"
    title = "Convolutional network, digits"
    shapes = ((16, 1, 3, 3), (16,), (32, 16, 3, 3), (32,), (32 * 4, CLASSES), (CLASSES,))

    def _scores(self, parts: "list[Tensor]", x_R_B: "Tensor") -> "Tensor":
        import torch
        from torch.nn.functional import conv2d, max_pool2d

        runs, count = x_R_B.shape[:2]  # the runs are groups of the channels
        z = x_R_B.transpose(0, 1).reshape(count, runs, SIDE, SIDE)
        for weight, bias in (parts[:2], parts[2:4]):
            z = conv2d(z, weight.flatten(0, 1), bias.flatten(), padding=1, groups=runs).relu()
            z = max_pool2d(z, 2)
        flat = z.reshape(count, runs, -1).transpose(0, 1)
        return torch.baddbmm(parts[5][:, None], flat, parts[4])
