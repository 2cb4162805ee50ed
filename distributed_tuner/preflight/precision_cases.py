"""Cases of the precision check: the comparisons that each method makes in its first step.

Pure: what is measured with them is oracles/checks/precision.py's, and what follows from it the run's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from distributed_tuner import optimizers
from distributed_tuner.config.experiment import Experiment
from distributed_tuner.config.optimizer import OptimizerConfig
from distributed_tuner.config.stage import SearchStageConfig
from distributed_tuner.oracles.checks.precision import COPIES
from distributed_tuner.prompts.spec import prompt_spec
from distributed_tuner.tasks.base import Task
from distributed_tuner.values import Answers, Batch, Candidate, PromptSpec

MOST_CASES = 4  # of methods, radii and data that are calibrated
ASKS = 4  # a case
QUERIES = 2 * (1 + len(COPIES))  # an ask


@dataclass(frozen=True, slots=True)
class Case:
    """Case of the calibration: a method at its first step, on one task with one prompt."""

    optimizer: OptimizerConfig
    seed: int
    split_seed: int
    task: Task
    prompt: PromptSpec

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
            built.tell([0.0], answers=self._flat_answers(dim) if built.wants_answers else None)
            asked += built.ask()
        return asked[:2]

    def _flat_answers(self, dim: int) -> Answers:
        batch = self.batch(dim)
        return Answers(np.zeros((1, len(batch.examples), len(batch.label_words)), dtype=np.float32), batch)


def cases(experiments: Sequence[Experiment], tasks: Sequence[Task]) -> list[Case]:
    """Return the distinct cases of the first searches: of every kind of optimizer the smallest radius, then the next.

    Gradient stages compare no losses and have none, prompts in words are no small steps apart, and a radius that is
    left to the trial is measured against the noise. A method whose settings name no radius comes first, since it may be
    any.
    """
    found: dict[tuple[object, ...], Case] = {}
    for experiment, task in zip(experiments, tasks, strict=True):
        if task.has_targets and task.steers == "metric":
            continue  # rounding changes a text or it does not
        search = next((stage for stage in experiment.stages if isinstance(stage, SearchStageConfig)), None)
        if search is not None and _is_calibrated(search.optimizer):
            optimizer, spec = search.optimizer.resolved({}), prompt_spec(experiment.prompt, task)
            case = Case(optimizer, experiment.seed, experiment.task.split_seed, task, spec)
            found.setdefault((optimizer.kind, optimizer.radius, task, spec), case)
    ranked: list[tuple[int, float, Case]] = []
    for case in sorted(found.values(), key=lambda case: case.optimizer.radius or 0.0):
        before = sum(other.optimizer.kind == case.optimizer.kind for _, _, other in ranked)
        ranked.append((before, case.optimizer.radius or 0.0, case))
    return [case for _, _, case in sorted(ranked, key=lambda entry: entry[:2])][:MOST_CASES]


def _is_calibrated(optimizer: OptimizerConfig) -> bool:
    return not (optimizer.is_discrete or optimizer.radius_is_measured)
