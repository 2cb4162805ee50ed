"""Prepared trials: valid, with their tasks and projected costs."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distributed_tuner.config.budget import BudgetConfig
from distributed_tuner.config.experiment import Experiment
from distributed_tuner.config.head import (
    BiasHeadConfig,
    HeadConfig,
    WordyHeadConfig,
    reads_words,
)
from distributed_tuner.config.oracle import OracleConfig, TransformersOracleConfig
from distributed_tuner.config.prompt import SoftPromptConfig
from distributed_tuner.config.space import TrialPlan
from distributed_tuner.errors import ModelError
from distributed_tuner.ledger.rows import ScreenRow
from distributed_tuner.oracles.local.machine import dtype_here
from distributed_tuner.oracles.local.model_facts import ModelFacts
from distributed_tuner.oracles.pool_size import sized
from distributed_tuner.oracles.tile_size import DTYPE_BYTES, decoded_bytes, even_candidates
from distributed_tuner.preflight.projection import Projection
from distributed_tuner.stages.reading import fitted_on, read_by
from distributed_tuner.stages.trial_state import Found
from distributed_tuner.tasks.base import Task
from distributed_tuner.values import LABEL_WORDS, Batch, Cost, Split

SPLITS: tuple[Split, ...] = ("train", "dev", "test")


def screen_of(plan: TrialPlan, screens: Iterable[ScreenRow]) -> ScreenRow | None:
    """Return what a trial's screen has found."""
    return next((row for row in screens if row.trial_id == plan.trial_id), None)


@dataclass(frozen=True, slots=True)
class Prepared:
    """Sound trials, the task of each, and what each will cost.

    plain_tasks: as they were built. tasks: as the trials see them, by their layout, objective and head.
    baseline: the manual prompts' cost, once a split. calibration: the most that checking the precision costs, where the
    model may compute in few bits on a device like this machine's. parity: what the sanity check costs. model_bytes:
    what one actor's model takes, 0 without one. facts: the model's settings, where it is one of transformers.
    undecided: places of trials whose layout a race is to find; until then they have the one that computes fewer tokens.
    auto_head: the head was left open. space: the search space, as config.json holds it.
    """

    plans: list[TrialPlan]
    plain_tasks: list[Task]
    tasks: list[Task]
    projections: list[Projection]
    baseline: Cost
    calibration: Cost
    parity: Cost
    model_bytes: int
    facts: ModelFacts | None
    root: Path
    undecided: tuple[int, ...] = ()
    auto_head: bool = False
    space: dict[str, Any] | None = None

    @property
    def experiment(self) -> Experiment:
        """The settings that all trials share are the same in each: those of the first."""
        return self.plans[0].experiment

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about the data of some trial."""
        return tuple(dict.fromkeys(warning for task in self.plain_tasks for warning in task.warnings))

    @property
    def notes(self) -> list[str]:
        """Warnings about how the model computes."""
        slow = next((projection.slow for projection in self.projections if projection.slow), None)
        return [note for note in (self._text_cache_note, self._decoding_note, slow) if note]

    @property
    def _decoding_note(self) -> str | None:
        """Memory of answers that are decoded; None where none are, or another process has the model."""
        oracle, tokens = self.experiment.oracle, max(one.decoded_tokens for one in self.projections)
        if not tokens or self.facts is None or not isinstance(oracle, TransformersOracleConfig):
            return None
        itemsize = DTYPE_BYTES[dtype_here(oracle.device, oracle.dtype)]
        needed = decoded_bytes(self.facts.kept_numbers, itemsize, tokens)
        if not needed:
            return None
        return f"decoding keeps at most {needed / 2**20:.0f} MiB of keys and values for each candidate of a tile"

    @property
    def _text_cache_note(self) -> str | None:
        """Cache of the suffix layout on the device, and the effect if it does not fit; None for other layouts."""
        experiment = self.experiment
        needed = max(projection.kept_bytes for projection in self.projections)
        if not needed or experiment.oracle.kind != "transformers":
            return None
        limit = experiment.oracle.text_cache_gib
        note = f"the texts' keys and values take {needed / 2**20:.1f} MiB on each oracle's device"
        if needed <= limit * 2**30:
            return note
        return (
            f"{note}, more than oracle.text_cache_gib: {limit:g} lets them: what does not fit is computed again at"
            " every request; raise it, or set prompt.layout: prefix"
        )

    @property
    def ensembles(self) -> Cost:
        """The most that ensembles cost on test: the dearest trial of every split."""
        dearest: dict[int, Cost] = {}
        for plan, projection in zip(self.plans, self.projections, strict=True):
            split, cost = plan.experiment.task.split_seed, projection.ensemble
            dearest[split] = max(dearest.get(split, Cost()), cost, key=lambda one: one.tokens)
        return sum(dearest.values(), Cost())

    @property
    def proposer_calls(self) -> int:
        """The most requests that all trials may send to their proposers."""
        total = 0
        for plan in self.plans:
            proposers = plan.experiment.proposers
            asked = sum(1 + proposer.retries for proposer in proposers)
            limits = [proposer.calls for proposer in proposers if proposer.calls is not None]
            total += min([asked, *limits])
        return total

    def with_oracle(self, oracle: OracleConfig) -> "Prepared":
        """Return the same trials with another oracle: what a run decides of it is decided for all of them."""
        plans = [replace(p, experiment=p.experiment.model_copy(update={"oracle": oracle})) for p in self.plans]
        return replace(self, plans=plans)

    @property
    def tiles_at_once(self) -> int:
        """The most tiles that all trials together have the pool compute at the same time."""
        experiment = self.experiment
        tile = experiment.oracle.tile
        of_trials = []
        for task, projection in zip(self.tasks, self.projections, strict=True):
            candidates = max(stage.candidates for stage in projection.plans)
            examples = len(task.batch("train").examples)
            of_trials.append(math.ceil(candidates / even_candidates(tile)) * math.ceil(examples / tile.examples))
        return sum(sorted(of_trials)[-(experiment.max_concurrent_trials or len(of_trials)) :])

    def sized(self, slots: int, free: int | None) -> "Prepared":
        """Return the same trials with a pool whose actors and threads are numbers. ``slots``: cores, or GPUs where the
        actors have some; ``free``: bytes of memory that they share, None where it is not known."""
        oracle = self.experiment.oracle
        return self.with_oracle(
            sized(oracle, slots=slots, tiles=self.tiles_at_once, model_bytes=self.model_bytes, free=free)
        )

    def with_prompt(self, place: int, prompt: SoftPromptConfig, budget: BudgetConfig) -> "Prepared":
        """Return the same trials, one of them with another prompt and budget."""
        plan = self.plans[place]
        experiment = plan.experiment.model_copy(update={"prompt": prompt, "budget": budget})
        plans, tasks = list(self.plans), list(self.tasks)
        plans[place] = replace(plan, experiment=experiment)
        tasks[place] = read_by(self.plain_tasks[place], experiment)
        return replace(self, plans=plans, tasks=tasks)

    def with_answer_words(self, choose: Callable[[Batch, int], tuple[str, ...]]) -> "Prepared":
        """Return the same trials with the words that their head reads. ``choose``: an oracle's ``answer_words``.

        A head that was left open reads the label words alone where it finds no others.

        Raises:
            ModelError: one that was asked for finds none.
        """
        known: dict[Batch, tuple[str, ...]] = {}
        plans = []
        for plan, task in zip(self.plans, self.tasks, strict=True):
            head = plan.experiment.head
            if reads_words(head) and head.answer_words is None:
                asked = replace(task.batch("train", [0]), objective=LABEL_WORDS, answer_words=())
                if asked not in known:
                    known[asked] = choose(asked, head.words)
                head = self._with_words(plan.experiment, head, known[asked])
            plans.append(plan.with_head(head))
        tasks = [read_by(task, plan.experiment) for plan, task in zip(plans, self.plain_tasks, strict=True)]
        return replace(self, plans=plans, tasks=tasks)

    def _with_words(self, experiment: Experiment, head: WordyHeadConfig, words: tuple[str, ...]) -> HeadConfig:
        if words:
            return head.model_copy(update={"answer_words": words})
        if self.auto_head and experiment.objective.head != "vocabulary":
            return BiasHeadConfig(kind="bias")
        raise ModelError(
            f"head: {head.kind} reads words other than the label words, but the oracle returns none; set head: bias"
            " (and objective.head, where it is vocabulary), or a larger oracle.top_logprobs"
        )

    def plain_task(self, plan: TrialPlan) -> Task:
        """Return a trial's task as it was built, with the words that its head reads."""
        place = plan.index
        return replace(self.plain_tasks[place], answer_words=self.tasks[place].answer_words)

    def as_screened(self, plan: TrialPlan, screens: Iterable[ScreenRow]) -> tuple[TrialPlan, Task]:
        """Return a trial and its task, as it was built, as they go on from what the trial's screen has found."""
        return self.going_on(plan, screen_of(plan, screens))

    def going_on(self, plan: TrialPlan, found: ScreenRow | Found | None) -> tuple[TrialPlan, Task]:
        """Return a trial and its task, as it was built, as they go on from what a screen has found."""
        task = self.plain_task(plan)
        if found is None:
            return plan, task
        return plan.started_from(found.instruction), task.worded(found.template, found.label_words)

    @property
    def fitted_on(self) -> tuple[Split, ...]:
        """Rows to which the manual prompt's head is fitted."""
        return fitted_on(self.experiment)

    def baselines(self) -> list[tuple[int, Task]]:
        """Return (split_seed, task) for each distinct task among the trials, whatever they search by."""
        seen: dict[tuple[int, Task], None] = {}
        for plan, task, read in zip(self.plans, self.plain_tasks, self.tasks, strict=True):
            alone = replace(task, answer_words=read.answer_words, others=(), verbalizers=())
            seen.setdefault((plan.experiment.task.split_seed, alone))
        return list(seen)
