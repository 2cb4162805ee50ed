"""The optimizers that are compared: how each is made, what it is tuned over, what it takes the gradient to be."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from benchmarks.reproductions.trainable_optimizer.problems import Problem, largest
from distributed_tuner.maths import trainable
from distributed_tuner.optimizers.trainable import FULL_LIMIT
from distributed_tuner.values import Array

if TYPE_CHECKING:
    from torch.optim import Optimizer

Options: TypeAlias = Mapping[str, Any]
"""What a method has beside its step size; keyword arguments of a parameter group, lr aside."""
Held: TypeAlias = Mapping[str, Any]
"""Numbers and arrays that an optimizer has kept for one parameter tensor, all in the tensor's shape."""

VARIANTS = ("full", "diagonal", "rank_one")
CONTROL, RIVALS = "a_off", ("a_off", "sgd", "momentum", "adam")


@dataclass(frozen=True, slots=True)
class Method:
    """An optimizer under comparison.

    options: what tuning tries at each step size, the usual ones first. make: from parameter groups with lr and options.
    estimate: the gradient at w, shape of w, as the method takes it to be once it has seen the mini-batch gradient g at
    w, from its state, w, g and its options. decays: it has rates that may decay (the option ``decay_steps``).
    """

    name: str
    label: str
    options: tuple[Options, ...]
    make: Callable[[list[dict[str, Any]]], "Optimizer"]
    estimate: Callable[[Held, Array, Array, Options], Array]
    decays: bool = False

    def left_out(self, problem: Problem) -> str:
        """Return why it cannot take part in a problem; empty where it can."""
        if self.name == "full" and largest(problem) > FULL_LIMIT:
            return f"a tensor of {largest(problem):,} coordinates is beyond the {FULL_LIMIT:,} of a full A"
        return ""


def methods() -> tuple[Method, ...]:
    """Return all methods, in the order of tables and charts."""
    rates = ((0.1, 0.1), (0.5, 0.3), (0.5, 0.1), (0.1, 0.3))
    trained = tuple({"alpha": alpha, "beta": beta} for alpha, beta in rates)
    controls = tuple({"alpha": 0.0, "beta": beta} for beta in (0.1, 0.3, 0.03, 0.5))
    pairs = ((0.9, 0.99), (0.9, 0.999), (0.5, 0.99), (0.5, 0.999))
    return (
        Method("sgd", "SGD", ({},), _sgd, _seen),
        Method("momentum", "momentum", tuple({"momentum": m} for m in (0.9, 0.5, 0.95, 0.99)), _sgd, _buffer),
        Method("adam", "Adam", tuple({"betas": pair} for pair in pairs), _adam, _first_moment),
        Method("a_off", "A off", controls, partial(_trainable, "diagonal"), _diagonal, decays=True),
        Method("full", "TO full", trained, partial(_trainable, "full"), _full, decays=True),
        Method("diagonal", "TO diagonal", trained, partial(_trainable, "diagonal"), _diagonal, decays=True),
        Method("rank_one", "TO rank one", trained, partial(_trainable, "rank_one"), _rank_one, decays=True),
    )


def is_discrete(options: Options) -> str:
    """Return options as people read them."""
    parts = {name: value for name, value in options.items() if name not in {"betas", "decay_steps"}}
    if "betas" in options:
        parts["beta1"], parts["beta2"] = options["betas"]
    return ", ".join(f"{name} {value:g}" for name, value in parts.items() if (name, value) != ("alpha", 0.0)) or "-"


# ------------------------------------------------------------------------------------------------------------- making
def _sgd(groups: list[dict[str, Any]]) -> "Optimizer":
    import torch

    return torch.optim.SGD(groups, foreach=True)


def _adam(groups: list[dict[str, Any]]) -> "Optimizer":
    import torch

    return torch.optim.Adam(groups, foreach=True)


def _trainable(variant: str, groups: list[dict[str, Any]]) -> "Optimizer":
    from distributed_tuner.optimizers import TrainableOptimizer

    made: Optimizer = TrainableOptimizer(groups, variant=variant, foreach=True)
    return made


# --------------------------------------------------------------------------------------------- estimates of a gradient
def _seen(held: Held, w: Array, g: Array, options: Options) -> Array:
    return g


def _buffer(held: Held, w: Array, g: Array, options: Options) -> Array:
    """Return the mean that torch's momentum, a sum, is a multiple of."""
    return np.asarray(np.float32(1.0 - options["momentum"]) * held["momentum_buffer"], dtype=np.float32)


def _first_moment(held: Held, w: Array, g: Array, options: Options) -> Array:
    """Return Adam's bias-corrected first moment: it moves along that divided by a root of the second one."""
    correction = 1.0 - options["betas"][0] ** float(held["step"])
    return np.asarray(held["exp_avg"] / np.float32(correction), dtype=np.float32)


def _full(held: Held, w: Array, g: Array, options: Options) -> Array:
    flat = trainable.full_estimate(held["slope"], held["intercept"].reshape(-1), w.reshape(-1))
    return flat.reshape(w.shape)


def _diagonal(held: Held, w: Array, g: Array, options: Options) -> Array:
    return trainable.diagonal_estimate(held["slope"], held["intercept"], w)


def _rank_one(held: Held, w: Array, g: Array, options: Options) -> Array:
    return trainable.rank_one_estimate(held["slope_u"], held["slope_v"], held["intercept"], w)
