"""What a run's calibration of precision asks: the comparisons that its methods would make in their first steps.

Pure: what is measured with them is oracles/calibration.py's, and what follows from it the run's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from distributed_tuner import optimizers
from distributed_tuner.config.experiment import Experiment
from distributed_tuner.config.optimizer import OptimizerConfig, TokenEditConfig, ZotConfig, in_words
from distributed_tuner.config.stage import SearchStageConfig
from distributed_tuner.oracles.calibration import COPIES
from distributed_tuner.prompts.spec import prompt_spec
from distributed_tuner.tasks.base import Task
from distributed_tuner.values import Batch, Candidate, PromptSpec

MOST_CASES = 4  # of methods, radii and data that are calibrated
ASKS = 4  # a case
QUERIES = 2 * (1 + len(COPIES))  # an ask


@dataclass(frozen=True, slots=True)
class Case:
    """What is calibrated: a method at its first step's radius, on one task with one prompt."""

    optimizer: OptimizerConfig
    seed: int
    split_seed: int
    task: Task
    prompt: PromptSpec

    @property
    def radius(self) -> float:
        """How far from the centre the first step's candidates lie."""
        assert not isinstance(self.optimizer, TokenEditConfig)
        if isinstance(self.optimizer, ZotConfig):
            assert self.optimizer.rho != "auto"
            return self.optimizer.rho
        return self.optimizer.sigma

    @property
    def radius_name(self) -> Literal["rho", "sigma"]:
        """What the settings call it."""
        return "rho" if isinstance(self.optimizer, ZotConfig) else "sigma"

    def batch(self, dim: int) -> Batch:
        """Return the train batch that a step is scored on, by its size."""
        built = optimizers.build(self.optimizer, dim=dim, key=(self.seed,), steps=1)
        size = min(built.batch_size or len(self.task.train), len(self.task.train))
        return self.task.batch("train", range(size))

    def asks(self, dim: int) -> list[list[Candidate]]:
        """Return the first two candidates that the optimizer would compare, with different noise in each ask."""
        return [self._ask(dim, number) for number in range(ASKS)]

    def _ask(self, dim: int, number: int) -> list[Candidate]:
        built = optimizers.build(self.optimizer, dim=dim, key=(self.seed, "calibration", number), steps=2)
        asked = built.ask()
        if len(asked) == 1:  # one candidate a step: it is compared with the next
            built.tell([0.0])
            asked += built.ask()
        return asked[:2]


def cases(experiments: Sequence[Experiment], tasks: Sequence[Task]) -> list[Case]:
    """Return the distinct cases of the first searches: of every kind of optimizer the smallest radius, then the next.

    Gradient stages compare no losses and have none, prompts in words are no small steps apart, and a rho that is left
    to the trial is measured against the noise.
    """
    found: dict[tuple[object, ...], Case] = {}
    for experiment, task in zip(experiments, tasks, strict=True):
        search = next((stage for stage in experiment.stages if isinstance(stage, SearchStageConfig)), None)
        optimizer = None if search is None else _with_radius(search.optimizer)
        if optimizer is not None:
            spec = prompt_spec(experiment.prompt, task)
            case = Case(optimizer, experiment.seed, experiment.task.split_seed, task, spec)
            found.setdefault((case.optimizer.kind, case.radius, task, spec), case)
    ranked: list[tuple[int, float, Case]] = []
    for case in sorted(found.values(), key=lambda case: case.radius):
        before = sum(other.optimizer.kind == case.optimizer.kind for _, _, other in ranked)
        ranked.append((before, case.radius, case))
    return [case for _, _, case in sorted(ranked, key=lambda entry: entry[:2])][:MOST_CASES]


def _with_radius(optimizer: OptimizerConfig) -> OptimizerConfig | None:
    """Return a search's settings, ready to ask; None where it has no radius of its own."""
    if isinstance(optimizer, ZotConfig):
        return None if optimizer.rho == "auto" else optimizer.settled({})
    return None if in_words(optimizer) else optimizer
