"""Preparation of a run: a search space drawn into valid trials, and their projected cost. Nothing is spent here.

Reads data, tokenizer and model configuration; loads no weights and starts no Ray.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from distributed_tuner import proposers, tasks
from distributed_tuner.config.default_search import with_default_search
from distributed_tuner.config.experiment import Experiment
from distributed_tuner.config.head import (
    AutoHeadConfig,
    CustomHeadConfig,
)
from distributed_tuner.config.load import load_space
from distributed_tuner.config.oracle import OracleConfig, TransformersOracleConfig
from distributed_tuner.config.prompt import SoftPromptConfig
from distributed_tuner.config.proposer import CustomProposerConfig, ProposerConfig
from distributed_tuner.config.schedule import PopulationScheduleConfig
from distributed_tuner.config.space import SHARED, TrialPlan, draw_trials, validate
from distributed_tuner.config.stage import RestartStageConfig
from distributed_tuner.config.task import TaskConfig
from distributed_tuner.custom import with_folders
from distributed_tuner.errors import ConfigError, RunDirectoryError
from distributed_tuner.oracles.cost_model import Counter, build_counter
from distributed_tuner.preflight.check_costs import baseline_cost, calibration_cost, parity_cost
from distributed_tuner.preflight.compatibility import require_sound, wants_gradients
from distributed_tuner.preflight.prepared import Prepared
from distributed_tuner.preflight.projection import project
from distributed_tuner.preflight.rehearsal import Rehearsal, rehearse_head
from distributed_tuner.preflight.wordings import templates_tried, with_wordings
from distributed_tuner.proposers.custom import NoModel
from distributed_tuner.proposers.instruction import template_source
from distributed_tuner.runs.directory import RunDirectory, data_root
from distributed_tuner.runs.recorded_config import Recorded
from distributed_tuner.runs.resuming import space_record, trials_of
from distributed_tuner.stages.reading import read_by, resolved_head, steered
from distributed_tuner.tasks.base import Task
from distributed_tuner.tasks.text_metrics import require_metrics
from distributed_tuner.values import Cost

SHARED_BY_POPULATION = ("prompt", "task", "rounds")  # a source trial's prompt and loss mean the same to all


def prepare(path: Path, overrides: list[str]) -> Prepared:
    """Read, validate and draw a search space, and build its tasks.

    Raises:
        ConfigError, TaskError, ModelError: something in the space, the data or the model is wrong.
        BudgetTooSmall: the budget pays for no step.
    """
    tree = with_default_search(load_space(path, overrides))
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

    build: makes a task of its settings. count: makes a counter of an oracle's. The Python API passes functions that
    return the objects that were handed in.
    """
    plans = [replace(plan, experiment=with_folders(plan.experiment, root)) for plan in plans]
    _require_shared(plans, SHARED, "all trials")
    if isinstance(plans[0].experiment.schedule, PopulationScheduleConfig):
        _require_shared(plans, SHARED_BY_POPULATION, "all trials of a population")
    build_task = _remember(lambda config, others: build(config, root, others))
    built = [build_task(plan.experiment.task, templates_tried(plan.experiment)) for plan in plans]
    auto_head = all(isinstance(plan.experiment.head, AutoHeadConfig) for plan in plans)
    plans = [plan.with_head(resolved_head(plan.experiment, task)) for plan, task in zip(plans, built, strict=True)]
    for task in dict.fromkeys(built):
        require_metrics(task)
    for plan, task in zip(plans, built, strict=True):
        require_sound(plan.experiment, task, root)
    _require_one_head(plans)
    _rehearse_own(plans, built[0], root)
    plans = _with_templates(_with_gradients(plans), root)
    counter = count(plans[0].experiment.oracle)
    built = [
        with_wordings(steered(task, plan.experiment), plan.experiment, counter)
        for plan, task in zip(plans, built, strict=True)
    ]
    decided = [_decide_layout(plan, task, counter) for plan, task in zip(plans, built, strict=True)]
    seen = [read_by(task, plan.experiment) for plan, task in zip(decided, built, strict=True)]
    rehearsal = Rehearsal()
    projections = [project(plan.experiment, task, counter, rehearsal) for plan, task in zip(decided, seen, strict=True)]
    undecided = tuple(
        place
        for place, (plan, task) in enumerate(zip(plans, seen, strict=True))
        if task.batch("train").question != "texts" and _races_layouts(plan.experiment, counter)
    )
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
        baseline=baseline_cost(prepared, counter),
        calibration=calibration_cost(prepared, counter),
        parity=parity_cost(prepared, counter),
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
