"""A contest: every method is tuned on one problem over the same step sizes by as many runs, then run on fresh seeds."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from benchmarks.reproductions.trainable_optimizer.methods import Method, is_discrete
from benchmarks.reproductions.trainable_optimizer.problems import Problem, dim
from benchmarks.reproductions.trainable_optimizer.runs import Course, Runs, Setting, run, spread, watched
from distributed_tuner.seeds import Key
from distributed_tuner.values import Array64

ABLATED = "diagonal"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a contest spends. learning_rates: what every method tries. options: how many settings beside. tuning_seeds:
    runs of each such pair. seeds: fresh runs with what was chosen. watch: steps to look at. ablation: whether slope and
    decay are switched one by one."""

    learning_rates: tuple[float, ...]
    options: int
    tuning_seeds: int
    seeds: int
    course: Course
    watch: int
    ablation: bool = True

    @property
    def tuning_runs(self) -> int:
        """Of each method."""
        return len(self.learning_rates) * self.options * self.tuning_seeds


@dataclass(frozen=True, slots=True)
class About:
    """Results of a problem. optimum: its smallest training loss, if known."""

    name: str
    title: str
    dim: int
    examples: int
    batch_size: int
    optimum: float | None


@dataclass(frozen=True, eq=False, slots=True)
class Entry:
    """What a method did.

    edge: the chosen step size is the smallest or largest that was tried. accuracy: (S,), None where nothing was held
    out. ablation: of the diagonal variant, runs of its setting by (slope trained, rates decaying); empty of others.
    """

    method: Method
    setting: Setting
    edge: bool
    runs: Runs
    accuracy: Array64 | None
    ablation: Mapping[tuple[bool, bool], Runs] = field(default_factory=dict)

    def is_discrete(self) -> str:
        """Return setting and final loss in one line."""
        final = self.runs.final
        return (
            f"{self.method.label}: step size {self.setting.learning_rate:g}, {is_discrete(self.setting.options)}:"
            f" training loss {final.mean():.5g} +- {spread(final):.2g}"
        )


@dataclass(frozen=True, eq=False, slots=True)
class Contest:
    """All methods on one problem. left_out: reasons, by method's label."""

    about: About
    plan: Plan
    entries: Mapping[str, Entry]
    left_out: Mapping[str, str]


def about(problem: Problem) -> About:
    """Return the results of a problem."""
    return About(problem.name, problem.title, dim(problem), problem.examples, problem.batch_size, problem.optimum)


def enter(problem: Problem, method: Method, plan: Plan, seed: int) -> Entry:
    """Tune a method and run it on fresh seeds."""
    setting = tune(problem, method, plan, seed)
    runs = _fresh(problem, method, setting, plan, seed)
    return Entry(
        method,
        setting,
        setting.learning_rate in (min(plan.learning_rates), max(plan.learning_rates)),
        runs,
        problem.accuracy(runs.w),
        _ablation(problem, method, setting, runs, plan, seed) if plan.ablation and method.name == ABLATED else {},
    )


def tune(problem: Problem, method: Method, plan: Plan, seed: int) -> Setting:
    """Return the setting whose runs end with the lowest mean of the full training loss, on seeds of their own.

    A method with fewer settings beside the step size has more runs of each. A setting with a run that diverges loses.
    """
    tried = method.options[: plan.options]
    each = plan.options * plan.tuning_seeds // len(tried)
    keys: list[Key] = [(seed, problem.name, "tuning", i) for i in range(each)]
    settings = [Setting(gamma, options) for options in tried for gamma in plan.learning_rates]
    runs = run(problem, method, [(setting, keys) for setting in settings], plan.course, [])
    final = np.where(np.isfinite(runs.final), runs.final, np.inf)
    return settings[int(final.reshape(len(settings), each).mean(axis=1).argmin())]


def _fresh(problem: Problem, method: Method, setting: Setting, plan: Plan, seed: int) -> Runs:
    keys: list[Key] = [(seed, problem.name, "fresh", i) for i in range(plan.seeds)]
    return run(problem, method, [(setting, keys)], plan.course, watched(plan.course.steps, plan.watch))


def _ablation(
    problem: Problem, method: Method, setting: Setting, runs: Runs, plan: Plan, seed: int
) -> dict[tuple[bool, bool], Runs]:
    """Switch the slope off and the rates' decay over, all else as tuning chose it; on the same seeds."""
    decays = plan.course.decaying
    found = {(True, decays): runs}
    for slope, decaying in ((True, not decays), (False, decays), (False, not decays)):
        options = setting.options if slope else {**setting.options, "alpha": 0.0}
        other = replace(plan, course=replace(plan.course, decaying=decaying))
        found[slope, decaying] = _fresh(problem, method, Setting(setting.learning_rate, options), other, seed)
    return found
