"""Preparation of a run: a search space drawn into valid trials, and their projected cost. Nothing is spent here.

Reads data, tokenizer and model configuration; loads no weights and starts no Ray.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from distributed_tuner import proposers, tasks
from distributed_tuner.config.budget import BudgetConfig
from distributed_tuner.config.experiment import Experiment
from distributed_tuner.config.head import (
    AutoHeadConfig,
    BiasHeadConfig,
    CustomHeadConfig,
    HeadConfig,
    WordyHeadConfig,
    reads_words,
)
from distributed_tuner.config.load import load_space
from distributed_tuner.config.oracle import OracleConfig, TransformersOracleConfig
from distributed_tuner.config.prompt import SoftPromptConfig, started_from
from distributed_tuner.config.proposer import CustomProposerConfig, ProposerConfig
from distributed_tuner.config.schedule import PopulationScheduleConfig
from distributed_tuner.config.space import SHARED, TrialPlan, draw_trials, validate
from distributed_tuner.config.stage import RestartStageConfig
from distributed_tuner.config.task import TaskConfig
from distributed_tuner.custom import with_folders
from distributed_tuner.errors import ConfigError, ModelError, RunDirectoryError
from distributed_tuner.ledger.rows import ScreenRow
from distributed_tuner.oracles.base import priced
from distributed_tuner.oracles.cost_model import Counter, build_counter
from distributed_tuner.oracles.local.model_facts import ModelFacts
from distributed_tuner.oracles.pool_size import sized
from distributed_tuner.oracles.tile_size import even_candidates
from distributed_tuner.preflight.compatibility import require_sound, wants_gradients
from distributed_tuner.preflight.parity_cases import parity_cases
from distributed_tuner.preflight.precision_cases import ASKS, QUERIES, cases
from distributed_tuner.preflight.rehearsal import Rehearsal, rehearse_head
from distributed_tuner.preflight.wordings import templates_tried, with_wordings
from distributed_tuner.prompts.spec import NO_ROWS, framed, start_text, unframed
from distributed_tuner.proposers.custom import NoModel
from distributed_tuner.proposers.instruction import template_source
from distributed_tuner.runs.directory import RunDirectory, data_root
from distributed_tuner.runs.recorded_config import Recorded
from distributed_tuner.runs.resuming import space_record, trials_of
from distributed_tuner.stages.prompt_space import prompt_space, words_of
from distributed_tuner.stages.reading import Reader, fitted_on, read_by, settled_head, settled_kind
from distributed_tuner.stages.schedule import StageSchedule
from distributed_tuner.stages.screen import longest_instruction, longest_prompt, wordings
from distributed_tuner.stages.step_plan import StagePlan
from distributed_tuner.stages.validation import batches
from distributed_tuner.tasks.base import Task
from distributed_tuner.values import LABEL_WORDS, Batch, Cost, Point, Request, Split, Text

SHARED_BY_POPULATION = ("prompt", "task", "rounds")  # a donor's prompt and loss mean the same to all
SPLITS: tuple[Split, ...] = ("train", "dev", "test")


@dataclass(frozen=True, slots=True)
class Projection:
    """Projected cost of a trial: ``search`` within its budget, ``measurement`` outside it; in device seconds."""

    plans: tuple[StagePlan, ...]
    search: Cost
    measurement: Cost
    ensemble: Cost
    """Maximum cost of the trial's ensemble on test, measured for the best trial of every split."""
    kept_bytes: int
    """Keys and values of train and dev texts that an oracle actor keeps for the suffix layout."""
    slow: str
    """Which train rows cannot share what they have in common, and why; empty where all do."""


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
        return [note for note in (self._text_cache_note, slow) if note]

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
            plans.append(_with_head(plan, head))
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
        found = next((row for row in screens if row.trial_id == plan.trial_id), None)
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


def prepare(path: Path, overrides: list[str]) -> Prepared:
    """Read, validate and draw a search space, and build its tasks.

    Raises:
        ConfigError, TaskError, ModelError: something in the space, the data or the model is wrong.
        BudgetTooSmall: the budget pays for no step.
    """
    tree = load_space(path, overrides)
    validate(tree)
    plans = draw_trials(tree)
    _require_rivals(plans)
    prepared = prepare_plans(plans, path.resolve().parent)
    _require_races(prepared)
    return replace(prepared, space=space_record(load_space(path), overrides))


def prepare_again(directory: RunDirectory, root: Path) -> Prepared:
    """Take the trials of a run from its config.json, as they were drawn then. ``root``: where relative data paths are
    looked up when the folder of the first start is gone.

    Raises:
        RunDirectoryError: no run is there, or another version's.
        ConfigError, TaskError, ModelError: its data or model cannot be had any more.
    """
    config = directory.read_config()
    plans = trials_of(config, directory.shown(directory.config))
    if (places := [plan.index for plan in plans]) != list(range(len(plans))):
        raise RunDirectoryError(
            f"{directory.shown(directory.config)} must number the run's trials from 0, but they have {places[:9]}; copy"
            " it back from where the run was made"
        )
    return prepare_plans(plans, data_root(Recorded.of(config), root))


def prepare_plans(
    plans: list[TrialPlan],
    root: Path,
    build: Callable[[TaskConfig, Path, tuple[str, ...]], Task] = tasks.build,
    count: Callable[[OracleConfig], Counter] = build_counter,
) -> Prepared:
    """Check drawn trials and build their tasks; relative data paths are looked up in ``root``, then where we are.

    build: makes a task of its settings. count: makes a counter of an oracle's. Whoever hands in objects has them
    returned in place of what settings name.
    """
    plans = [replace(plan, experiment=with_folders(plan.experiment, root)) for plan in plans]
    _require_shared(plans, SHARED, "all trials")
    if isinstance(plans[0].experiment.schedule, PopulationScheduleConfig):
        _require_shared(plans, SHARED_BY_POPULATION, "all trials of a population")
    build_task = _remember(lambda config, others: build(config, root, others))
    built = [build_task(plan.experiment.task, templates_tried(plan.experiment)) for plan in plans]
    auto_head = all(isinstance(plan.experiment.head, AutoHeadConfig) for plan in plans)
    plans = [_with_head(plan, settled_kind(plan.experiment, task)) for plan, task in zip(plans, built, strict=True)]
    for plan, task in zip(plans, built, strict=True):
        require_sound(plan.experiment, task, root)
    _require_one_head(plans)
    _rehearse_own(plans, built[0], root)
    plans = _with_templates(_with_gradients(plans), root)
    counter = count(plans[0].experiment.oracle)
    built = [with_wordings(task, plan.experiment, counter) for plan, task in zip(plans, built, strict=True)]
    decided = [_decide_layout(plan, task, counter) for plan, task in zip(plans, built, strict=True)]
    seen = [read_by(task, plan.experiment) for plan, task in zip(decided, built, strict=True)]
    rehearsal = Rehearsal()
    projections = [
        _project(plan.experiment, task, counter, rehearsal) for plan, task in zip(decided, seen, strict=True)
    ]
    undecided = tuple(place for place, plan in enumerate(plans) if _races_layouts(plan.experiment, counter))
    nothing = Cost()
    prepared = Prepared(
        decided,
        built,
        seen,
        projections,
        nothing,
        nothing,
        nothing,
        counter.model_bytes,
        counter.facts,
        root,
        undecided,
        auto_head,
    )
    return replace(
        prepared,
        baseline=_baseline_cost(prepared, counter),
        calibration=_calibration_cost(prepared, counter),
        parity=_parity_cost(prepared, counter),
    )


def _rehearse_own(plans: list[TrialPlan], task: Task, root: Path) -> None:
    """Make the head and the proposers of the user's own, which nothing else makes before a run."""
    experiment = plans[0].experiment
    if isinstance(head := experiment.head, CustomHeadConfig):
        rehearse_head(head, len(task.label_words), experiment.task.shots - experiment.task.feedback)
    asked = {proposer.model_dump_json(): proposer for plan in plans for proposer in plan.experiment.proposers}
    for proposer in asked.values():
        if isinstance(proposer, CustomProposerConfig):
            proposers.build(proposer, root=root, tuned=NoModel())


def _with_head(plan: TrialPlan, head: HeadConfig) -> TrialPlan:
    return replace(plan, experiment=plan.experiment.model_copy(update={"head": head}))


def _remember(build: Callable[[TaskConfig, tuple[str, ...]], Task]) -> Callable[[TaskConfig, tuple[str, ...]], Task]:
    """Build each task once: trials share it, and equal tasks are one object on the wire."""
    known: dict[tuple[str, tuple[str, ...]], Task] = {}

    def remembered(config: TaskConfig, others: tuple[str, ...]) -> Task:
        key = (config.model_dump_json(), others)
        if key not in known:
            known[key] = build(config, others)
        return known[key]

    return remembered


def _require_rivals(plans: list[TrialPlan]) -> None:
    schedule = plans[0].experiment.schedule.kind
    if len(plans) == 1 and schedule != "none":
        raise ConfigError(
            f"schedule: {schedule} has trials compete, but the space has one, so that it would do nothing; draw several"
            " (samples, !grid), or set schedule.kind: none"
        )


def _require_races(prepared: Prepared) -> None:
    optimizers = [
        (stage.optimizer, len(task.train))
        for plan, task in zip(prepared.plans, prepared.tasks, strict=True)
        for stage in plan.experiment.stages
        if not isinstance(stage, RestartStageConfig)
    ]
    raced = [(one.race_examples, rows) for one, rows in optimizers if one.race_examples]
    if raced and all(block >= rows for block, rows in raced):
        block, rows = raced[0]
        raise ConfigError(
            f"race_block is smaller than train, but it is {block} and train has {rows} rows, so that no candidate"
            f" would be raced; set {max(1, rows // 4)}, say, or leave it out"
        )


def _require_shared(plans: list[TrialPlan], names: tuple[str, ...], whom: str) -> None:
    for name in names:
        values = {repr(getattr(plan.experiment, name)) for plan in plans}
        if len(values) > 1:
            raise ConfigError(
                f"{name} must be the same for {whom}, but the space draws {len(values)} values; make it a constant"
            )


def _require_one_head(plans: list[TrialPlan]) -> None:
    """Trials are compared with one manual prompt, read in one way; the words it is read by may follow their tasks."""
    heads = {plan.experiment.head.model_dump_json(exclude={"answer_words"}) for plan in plans}
    if len(heads) > 1:
        kinds = sorted({plan.experiment.head.kind for plan in plans})
        raise ConfigError(
            f"head must be the same for all trials, but the space has {len(heads)} ({', '.join(kinds)}); make it a"
            " constant, and compare heads by `python -m benchmarks.heads`"
        )


def _with_templates(plans: list[TrialPlan], root: Path) -> list[TrialPlan]:
    """Return the plans with templates of instructions in place of their files, which trials elsewhere cannot read."""

    def filled(proposer: ProposerConfig) -> ProposerConfig:
        if proposer.instruction is None:
            return proposer
        return proposer.model_copy(update={"instruction": template_source(proposer.instruction, root)})

    return [replace(plan, experiment=plan.experiment.with_proposers(filled)) for plan in plans]


def _with_gradients(plans: list[TrialPlan]) -> list[TrialPlan]:
    """Return the plans with a differentiable oracle where some trial needs one; all trials share it."""
    oracle = plans[0].experiment.oracle
    wanted = any(wants_gradients(plan.experiment) for plan in plans)
    if not wanted or not isinstance(oracle, TransformersOracleConfig):
        return plans
    oracle = oracle.model_copy(update={"gradients": True})
    return [replace(p, experiment=p.experiment.model_copy(update={"oracle": oracle})) for p in plans]


def _decide_layout(plan: TrialPlan, task: Task, counter: Counter) -> TrialPlan:
    prompt = plan.experiment.prompt
    if isinstance(prompt, SoftPromptConfig) and prompt.layout == "auto":
        layout = counter.choose_layout(task.batch("train"), prompt.length)
        prompt = prompt.model_copy(update={"layout": layout})
    return replace(plan, experiment=plan.experiment.model_copy(update={"prompt": prompt}))


def _races_layouts(experiment: Experiment, counter: Counter) -> bool:
    """Tell whether a run finds the layout by a race: where it is left open, and the model takes all of them."""
    prompt = experiment.prompt
    undecided = isinstance(prompt, SoftPromptConfig) and prompt.layout == "auto"
    return undecided and experiment.oracle.kind == "transformers" and counter.takes_suffix


def _project(experiment: Experiment, task: Task, counter: Counter, rehearsal: Rehearsal) -> Projection:
    space = prompt_space(experiment.prompt, task, counter.width)
    prompt = space.spec
    sample = words_of(space.sample)  # a word is a token or more: what is too long for these is too long
    texts = (task.manual_prompt, *(() if sample is None else (sample, start_text(experiment.prompt, task))))
    for split in task.splits:
        counter.require(task.batch(split), prompt, texts)
    if isinstance(experiment.prompt, SoftPromptConfig) and _restarts(experiment):
        counter.require_embedded(prompt)
    stage_schedule = _planned(experiment, task, counter)
    plans = stage_schedule.plan_all()
    for index, (stage, plan) in enumerate(zip(stage_schedule.stages, plans, strict=True)):
        if not isinstance(stage, RestartStageConfig):
            steps = stage_schedule.horizon(index, plan)
            rehearsal.take(stage.optimizer, space, experiment.seed, steps, counter.has_tokenizer, experiment.rounds)
    search = sum((plan.cost for plan in plans), Cost())
    train = Request((space.sample,), task.batch("train"), prompt)
    seconds_a_token = counter.seconds(train) / counter.cost(train).tokens
    size = 0 if experiment.ensemble is None else experiment.ensemble.size
    test = Request((space.sample,), task.batch("test"), prompt)
    return Projection(
        plans,
        _timed(search, search.tokens * seconds_a_token, experiment),
        _measurement_cost(test, counter, experiment),
        _ensemble_cost(experiment, task, counter, test, size) if task.test else Cost(),
        counter.kept_bytes(task.batch("train"), prompt) + counter.kept_bytes(task.batch("dev"), prompt),
        counter.why_slow(task.batch("train"), prompt),
    )


def _ensemble_cost(experiment: Experiment, task: Task, counter: Counter, test: Request, size: int) -> Cost:
    """Return what as many members cost on test at most: as the trial's prompts are, or as its screen's longest."""
    members, screen = [test], experiment.screen
    if screen is not None:
        for one in wordings(unframed(task, experiment.prompt)):
            members.append(Request((Text(longest_prompt(screen, one)),), one.batch("test"), NO_ROWS))
    dearest = max(members, key=lambda request: counter.cost(request).tokens)
    together = replace(dearest, candidates=dearest.candidates * size)
    return _timed(counter.cost(together), counter.seconds(together), experiment) if size else Cost()


def _measurement_cost(request: Request, counter: Counter, experiment: Experiment) -> Cost:
    if not request.batch.examples:
        return Cost()
    return _timed(counter.cost(request), counter.seconds(request), experiment)


def _planned(experiment: Experiment, task: Task, counter: Counter) -> StageSchedule:
    """Return the course of a trial; behind a screen, of the longest that the search may start from and be worded by."""
    screen, prompt = experiment.screen, experiment.prompt
    if screen is not None:

        def tokens(worded: Task) -> int:
            return counter.cost(Request((Text(""),), worded.batch("train"), NO_ROWS)).tokens

        plain = unframed(task, prompt)
        prompt = started_from(prompt, longest_instruction(screen, plain))
        task = framed(max(wordings(plain), key=tokens), prompt)
        experiment = experiment.model_copy(update={"prompt": prompt})
    return StageSchedule(experiment, task, prompt_space(prompt, task, counter.width), counter)


def _restarts(experiment: Experiment) -> bool:
    return any(isinstance(stage, RestartStageConfig) for stage in experiment.stages)


def _baseline_cost(prepared: Prepared, counter: Counter) -> Cost:
    total = Cost()
    head = settled_head(prepared.experiment.head)
    asked = []
    for _, task in prepared.baselines():
        reader = Reader(task, head)
        tested = (reader.batch("test"),) if task.test else ()
        asked += [(task.manual_prompt, batch) for batch in (*batches(reader), *tested)]
    for text, batch in dict.fromkeys(asked):  # a test set that several split seeds share is scored once
        request = Request((Text(text),), batch, NO_ROWS)
        total = total + _timed(counter.cost(request), counter.seconds(request), prepared.experiment)
    return total


def _calibration_cost(prepared: Prepared, counter: Counter) -> Cost:
    if not counter.rounds:
        return Cost()
    total = Cost()
    for case in cases([plan.experiment for plan in prepared.plans], prepared.tasks):
        dim = case.prompt.length * counter.width
        points = (Point(np.zeros(dim, dtype=np.float32)),) * (ASKS * QUERIES)
        request = Request(points, case.batch(dim), case.prompt)
        total = total + _timed(counter.cost(request), counter.seconds(request), prepared.experiment)
    return total


def _parity_cost(prepared: Prepared, counter: Counter) -> Cost:
    total = Cost()
    for case in parity_cases([plan.experiment for plan in prepared.plans], prepared.tasks):
        for request in case.requests(counter.width):
            total = total + _timed(counter.cost(request), counter.seconds(request), prepared.experiment)
    return total


def _timed(cost: Cost, seconds: float, experiment: Experiment) -> Cost:
    """Return the cost with device seconds, and the dollars of tokens and seconds."""
    return priced(replace(cost, seconds=seconds), experiment.oracle.price)
