"""Runs of one method on one problem, side by side: each has its own setting, seed, mini-batches and estimators."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, assert_never

import numpy as np

from benchmarks.reproductions.trainable_optimizer.methods import Method, Options
from benchmarks.reproductions.trainable_optimizer.problems import Problem, batches, spans
from distributed_tuner.maths.schedules import cosine_annealing
from distributed_tuner.maths.trainable import rate
from distributed_tuner.seeds import Key
from distributed_tuner.values import Array, Array64

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

LAST_PART = 0.2


@dataclass(frozen=True, slots=True)
class Course:
    """How long runs last and how step sizes fall, the same for all methods.

    schedule: "harmonic" is ``1 / (1 + t / decay_steps)``, "cosine" falls to 0. decaying: the rates of trained
    estimators fall like ``1 / (1 + t / decay_steps)`` too.
    """

    steps: int
    schedule: Literal["harmonic", "cosine"]
    decay_steps: float
    decaying: bool

    def factor(self, t: int) -> float:
        """Return what the step size of step t, counted from 0, is multiplied by."""
        match self.schedule:
            case "harmonic":
                return rate(t, 1.0, self.decay_steps)
            case "cosine":
                return cosine_annealing(t, self.steps, 1.0, 0.0)
            case unknown:
                assert_never(unknown)


@dataclass(frozen=True, eq=False, slots=True)
class Setting:
    """What tuning chooses."""

    learning_rate: float
    options: Options


@dataclass(frozen=True, eq=False, slots=True)
class Runs:
    """How R runs went.

    w: where they ended, (R, d). final: the full training loss there, (R,). Of the C watched steps: steps (C,), the full
    loss before each (C, R), and the squared error ``||G_hat - grad F||^2`` of each estimate (C, R). seconds: CPU time
    of one step of one run, its gradient and the method's own update; update_seconds: the latter alone.
    """

    w: Array
    final: Array64
    steps: Array64
    losses: Array64
    errors: Array64
    seconds: float
    update_seconds: float

    @property
    def late_errors(self) -> Array64:
        """The mean of each run's squared errors in the last fifth of its steps, shape (R,); NaN if none was watched."""
        if not len(self.steps):
            return np.full(len(self.final), np.nan)
        return np.asarray(self.errors[self.steps >= (1.0 - LAST_PART) * self.steps[-1]].mean(axis=0))


def watched(steps: int, count: int) -> list[int]:
    """Return ``count`` steps out of 0 to ``steps - 1``, both ends among them, evenly spread."""
    return sorted({round(t) for t in np.linspace(0, steps - 1, min(count, steps)).tolist()})


def run(
    problem: Problem,
    method: Method,
    jobs: Sequence[tuple[Setting, Sequence[Key]]],
    course: Course,
    watch: Sequence[int],
) -> Runs:
    """Return the runs of all jobs, a setting with the keys of its runs each, in their order.

    A key names a run's start and its mini-batches, which are the same whatever the method. watch: the steps to look at.
    A run that diverges goes on with numbers that are not finite and harms no other.
    """
    keys = [key for _, own in jobs for key in own]
    drawn = {key: batches(key, course.steps, problem.examples, problem.batch_size) for key in dict.fromkeys(keys)}
    picks_T_R_B = np.stack([drawn[key] for key in keys], axis=1)
    w = np.stack([problem.start(key) for key in keys])
    g = np.zeros_like(w)
    optimizer, tensors = _optimizer(problem, method, jobs, course, w, g)
    losses, errors, spent, updating = [], [], 0.0, 0.0
    marks = frozenset(watch)
    with np.errstate(all="ignore"):
        for t in range(course.steps):
            factor = course.factor(t)
            for group, (setting, _) in zip(optimizer.param_groups, jobs, strict=True):
                group["lr"] = factor * setting.learning_rate
            if t in marks:
                loss, exact = problem.losses_and_gradients(w)
                before = w.copy()
            began = time.process_time()
            g[:] = problem.gradients(w, picks_T_R_B[t])
            asked = time.process_time()
            optimizer.step()
            ended = time.process_time()
            spent, updating = spent + ended - began, updating + ended - asked
            if t in marks:
                estimates = _estimates(problem, method, optimizer, tensors, before, g)
                losses.append(loss)
                errors.append(np.square(estimates - exact, dtype=np.float64).sum(axis=1))
        final = problem.losses(w)
    steps, count = np.array(sorted(marks), dtype=np.float64), course.steps * len(keys)
    shape = (len(steps), len(keys))
    return Runs(w, final, steps, np.reshape(losses, shape), np.reshape(errors, shape), spent / count, updating / count)


def _optimizer(
    problem: Problem,
    method: Method,
    jobs: Sequence[tuple[Setting, Sequence[Key]]],
    course: Course,
    w: Array,
    g: Array,
) -> "tuple[Optimizer, list[list[Tensor]]]":
    """Return an optimizer with a group for every job, and each run's tensors: windows into w, their grad into g."""
    import torch

    flat_w, flat_g = torch.from_numpy(w), torch.from_numpy(g)
    cut = list(zip(problem.shapes, spans(problem.shapes), strict=True))
    tensors: list[list[Tensor]] = []
    for i in range(len(w)):
        tensors.append([flat_w[i, at:until].view(shape) for shape, (at, until) in cut])
        for tensor, (shape, (at, until)) in zip(tensors[-1], cut, strict=True):
            tensor.grad = flat_g[i, at:until].view(shape)
    decay = {"decay_steps": course.decay_steps if course.decaying else None} if method.decays else {}
    groups: list[dict[str, Any]] = []
    at = 0
    for setting, keys in jobs:
        own = [tensor for row in tensors[at : at + len(keys)] for tensor in row]
        groups.append({"params": own, "lr": setting.learning_rate, **decay, **setting.options})
        at += len(keys)
    return method.make(groups), tensors


def _estimates(
    problem: Problem, method: Method, optimizer: "Optimizer", tensors: "list[list[Tensor]]", w: Array, g: Array
) -> Array:
    """Return each run's estimate of its gradient at w, shape (R, d)."""
    options = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    estimates = np.empty_like(w)
    for i, row in enumerate(tensors):
        for p, (at, until) in zip(row, spans(problem.shapes), strict=True):
            shape = tuple(p.shape)
            held = _held(optimizer.state[p])
            found = method.estimate(held, w[i, at:until].reshape(shape), g[i, at:until].reshape(shape), options[id(p)])
            estimates[i, at:until] = found.reshape(-1)
    return estimates


def _held(state: Mapping[str, Any]) -> dict[str, Any]:
    import torch

    return {name: kept.numpy() if isinstance(kept, torch.Tensor) else kept for name, kept in state.items()}


def spread(values: Array64) -> float:
    """Return the standard deviation over runs, NaN of a single one."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
