"""Jobs of a study: which trial runs to which budgets, and which one continues from a smaller budget."""

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.study.settings import Study
from distributed_tuner.config.experiment import Experiment
from distributed_tuner.config.oracle import OracleConfig
from distributed_tuner.config.space import draw_trials, validate
from distributed_tuner.config.stage import RestartStageConfig
from distributed_tuner.errors import ConfigError, TunerError
from distributed_tuner.preflight.prepare import prepare_plans
from distributed_tuner.preflight.prepared import Prepared
from distributed_tuner.tasks.base import Task

UNTUNED = "untuned"
NOTHING = {"stages": [{"kind": "search", "optimizer": {"kind": "random_search", "popsize": 1}}]}
"""Stages that are never run, of an experiment that the untuned prompt stands for."""
AMPLE = 100  # queries, likewise


@dataclass(frozen=True, slots=True)
class Job:
    """One draw of one task, and what one worker does with it at a time: one method, or what is below all methods.

    budgets: of its rows, ascending; none where nothing is tuned. prepared: holds one trial, with the smallest budget.
    """

    task: str
    method: str
    shots: int
    split: int
    budgets: tuple[int, ...]
    prepared: Prepared

    @property
    def experiment(self) -> Experiment:
        """The experiment, with the smallest budget."""
        return self.prepared.plans[0].experiment

    @property
    def plain_task(self) -> Task:
        """The task as it was built."""
        return self.prepared.plain_tasks[0]

    @property
    def oracle(self) -> OracleConfig:
        """The model that it asks."""
        return self.experiment.oracle

    @property
    def goes_on(self) -> bool:
        """Whether a larger budget goes on from where a smaller one has ended."""
        return shares_budgets(self.experiment)

    @property
    def name(self) -> str:
        """Names its files."""
        alone = "" if self.goes_on or not self.budgets else f"-{self.budgets[0]}"
        return f"{self.task}-{self.method}-{self.shots}-{self.split}{alone}"

    @property
    def tokens(self) -> float:
        """About how many tokens it takes, to do long jobs first."""
        projection = self.prepared.projections[0]
        each = projection.search.tokens / max(1, projection.search.queries)
        return each * max(self.budgets, default=0) + projection.measurement.tokens * max(1, len(self.budgets))

    def follows_from(self) -> str:
        """Return a digest of what its rows follow from, budgets left out: what is asked, and of which model.

        Settings that have their defaults are left out as well: a study goes on where a version has more of them.
        """
        settings = self.experiment.model_dump_json(exclude={"name", "task", "budget"}, exclude_defaults=True)
        said = "\n".join([settings, repr(self.prepared.tasks[0]), str(self.split)])
        return hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()

    def with_oracle(self, oracle: OracleConfig) -> "Job":
        """Return the job with a model of which nothing is left open."""
        return replace(self, prepared=self.prepared.with_oracle(oracle))


def jobs_of(study: Study, data: Path | None, root: Path) -> list[Job]:
    """Return what is to be done, long jobs first. ``root``: where relative paths of data are looked up.

    Raises:
        TunerError: some cell cannot be run; names it.
    """
    methods: dict[str, dict[str, Any]] = {UNTUNED: NOTHING, **{name: m.parts for name, m in study.methods.items()}}
    jobs = []
    for task, (method, parts) in itertools.product(study.tasks, methods.items()):
        for shots in study.shots_of(task):
            try:
                jobs += _jobs(study, task, study.task_tree(task, data), method, shots, parts, root)
            except TunerError as error:
                raise type(error)(f"{method} on {task} with {shots} shots: {error}") from None
    return sorted(jobs, key=lambda job: (-job.tokens, job.name))


def said_of(jobs: Sequence[Job]) -> str:
    """Return what jobs ask at most, in words."""
    queries, tokens = sum(max(job.budgets, default=2) for job in jobs), sum(job.tokens for job in jobs)
    cells = sum(len(job.budgets) or 3 for job in jobs)
    return f"{cells:,} cells by {len(jobs):,} jobs: about {queries:,} queries and {tokens / 1e6:,.1f} million tokens"


def shares_budgets(experiment: Experiment) -> bool:
    """Tell whether a run to a larger budget passes exactly what a run to a smaller one does.

    It does where one stage alone, the last, takes what the others leave, and its optimizer does not plan ahead.
    """
    *before, last = experiment.stages
    fixed = all(not isinstance(stage, RestartStageConfig) and stage.steps is not None for stage in before)
    return (
        fixed and experiment.rounds == 1 and not isinstance(last, RestartStageConfig) and not last.optimizer.plans_ahead
    )


def _jobs(
    study: Study, task: str, settings: dict[str, Any], method: str, shots: int, parts: Mapping[str, Any], root: Path
) -> list[Job]:
    """Return the jobs of one method on one task with so many shots, split by split."""
    budgets = () if method == UNTUNED else study.budgets_of(method)
    found = []
    trees = [study.tree(settings, shots, split, parts, min(budgets, default=AMPLE)) for split in study.splits]
    validate(trees[0])
    plans = [replace(draw_trials(tree)[0], index=place) for place, tree in enumerate(trees)]
    _require_plain(plans[0].experiment)
    prepared = prepare_plans(plans, root)
    if prepared.undecided:
        raise ConfigError(
            "a study compares methods on one layout, but prompt.layout is auto; set prefix, suffix or"
            " instruction_suffix in experiment.prompt"
        )
    for place, split in enumerate(study.splits):
        one = replace(
            prepared,
            plans=[replace(prepared.plans[place], index=0)],
            plain_tasks=prepared.plain_tasks[place : place + 1],
            tasks=prepared.tasks[place : place + 1],
            projections=prepared.projections[place : place + 1],
        )
        apart = [(budget,) for budget in budgets]
        for some in [budgets] if not budgets or shares_budgets(one.experiment) else apart:
            found.append(Job(task, method, shots, split, some, one))
    return found


def _require_plain(experiment: Experiment) -> None:
    if experiment.proposers:
        raise ConfigError(
            "a study's trials ask no proposers, but a stage has one; run it by itself with python tune.py run"
        )
