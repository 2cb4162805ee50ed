"""Logistic regression on data that ship with scikit-learn: convex, strongly so with a penalty, its minimum known."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from benchmarks.reproductions.trainable_optimizer.problems import Picks
from distributed_tuner.seeds import Key, seed_of
from distributed_tuner.values import Array, Array64

HELD_OUT = 0.3
NEWTON_STEPS, FLAT = 200, 1e-10


@dataclass(frozen=True, eq=False, slots=True)
class Logistic:
    """``F(w) = 1/N sum_n log(1 + exp(-z_n.w)) + penalty / 2 ||w||^2``, z_n example n times its label, +1 or -1.

    signed: the z_n, shape (N, d), a column of ones (times the label) included. held_out: the same of examples that are
    not trained on. Runs begin at w = 0.
    """

    name: str
    title: str
    signed: Array
    held_out: Array
    penalty: float
    batch_size: int
    optimum: float | None

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        return ((self.signed.shape[1],),)

    @property
    def examples(self) -> int:
        return len(self.signed)

    def start(self, key: Key) -> Array:
        return np.zeros(self.signed.shape[1], dtype=np.float32)

    def gradients(self, w_R_d: Array, picks_R_B: Picks) -> Array:
        z_R_B_d = self.signed[picks_R_B]
        slopes_R_B = _slopes(np.einsum("rbd,rd->rb", z_R_B_d, w_R_d))
        means = np.einsum("rbd,rb->rd", z_R_B_d, slopes_R_B) / np.float32(picks_R_B.shape[1])
        return np.asarray(means + np.float32(self.penalty) * w_R_d, dtype=np.float32)

    def losses(self, w_R_d: Array) -> Array64:
        return self.losses_and_gradients(w_R_d)[0]

    def losses_and_gradients(self, w_R_d: Array) -> tuple[Array64, Array]:
        import torch

        w, z = torch.from_numpy(w_R_d).double(), torch.from_numpy(self.signed).double()
        margins = w @ z.T
        losses = torch.nn.functional.softplus(-margins).mean(dim=1) + self.penalty / 2 * w.square().sum(dim=1)
        gradients = -torch.sigmoid(-margins) @ z / len(z) + self.penalty * w
        return losses.numpy(), gradients.float().numpy()

    def accuracy(self, w_R_d: Array) -> Array64 | None:
        return np.asarray((w_R_d @ self.held_out.T > 0).mean(axis=1), dtype=np.float64)


def logistic(data: Literal["breast_cancer", "digits"], penalty: float, batch_size: int, seed: int) -> Logistic:
    """Return a problem of real data.

    data: "breast_cancer", malignant against benign, features standardised; "digits", even against odd, pixels in
    [0, 1]. seed: of the split into training and held-out examples.
    """
    from sklearn.datasets import load_breast_cancer, load_digits
    from sklearn.model_selection import train_test_split

    if data == "breast_cancer":
        x_N_d, labels = load_breast_cancer(return_X_y=True)
        signs = 2.0 * labels - 1.0
    else:
        x_N_d, labels = load_digits(return_X_y=True)
        signs = 1.0 - 2.0 * (labels % 2)
    train, held_out, train_signs, held_out_signs = train_test_split(
        x_N_d, signs, test_size=HELD_OUT, stratify=labels, random_state=seed_of((seed, data, "split"))
    )
    varied = train.std(axis=0) > 0.0  # pixels at the rim are always white
    shift, scale = (
        (train.mean(axis=0), train.std(axis=0)) if data == "breast_cancer" else (0.0, np.full(len(varied), 16.0))
    )
    signed, held_out_signed = (
        _with_ones((x - shift)[:, varied] / scale[varied]) * sign[:, None]
        for x, sign in ((train, train_signs), (held_out, held_out_signs))
    )
    what = "breast cancer" if data == "breast_cancer" else "digits, even or odd"
    return Logistic(
        name=f"logistic-{data.replace('_', '-')}-{'penalty' if penalty else 'plain'}",
        title=f"Logistic regression, {what}, lambda = {penalty:g}",
        signed=signed,
        held_out=held_out_signed,
        penalty=penalty,
        batch_size=batch_size,
        optimum=minimum(signed.astype(np.float64), penalty),
    )


def minimum(signed_N_d: Array64, penalty: float) -> float | None:
    """Return the smallest loss, by Newton's method in float64; None where the method does not get there.

    Examples that a hyperplane separates have no smallest loss without a penalty, but one that they come near to: 0.
    """
    count, width = signed_N_d.shape
    w = np.zeros(width)

    def loss(at: Array64) -> float:
        return float(np.logaddexp(0.0, -signed_N_d @ at).mean() + penalty / 2 * at @ at)

    for _ in range(NEWTON_STEPS):
        margins = signed_N_d @ w
        if penalty == 0.0 and margins.min() > 0.0:
            return 0.0
        slopes = _slopes(margins)
        gradient = slopes @ signed_N_d / count + penalty * w
        if np.linalg.norm(gradient) < FLAT:
            return loss(w)
        curvature = (signed_N_d.T * (-slopes * (1.0 + slopes))) @ signed_N_d / count + penalty * np.eye(width)
        step = np.linalg.lstsq(curvature, gradient, rcond=None)[0]
        length = 1.0
        while length > 1e-10 and loss(w - length * step) > loss(w):
            length /= 2.0
        w = w - length * step
    return None


def _slopes(margins: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the derivative of ``log(1 + exp(-m))`` by m, which is ``-1 / (1 + exp(m))``, without overflow."""
    return 0.5 * (np.tanh(0.5 * margins) - 1.0)


def _with_ones(x_N_d: Array64) -> Array:
    return np.column_stack([x_N_d, np.ones(len(x_N_d))]).astype(np.float32)
