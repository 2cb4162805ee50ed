"""Projected cost of a trial, before anything is spent."""

from dataclasses import dataclass, replace

from distributed_tuner.config.experiment import Experiment
from distributed_tuner.config.prompt import SoftPromptConfig, started_from
from distributed_tuner.config.stage import RestartStageConfig
from distributed_tuner.oracles.base import priced
from distributed_tuner.oracles.cost_model import Counter
from distributed_tuner.preflight.rehearsal import Rehearsal
from distributed_tuner.prompts.spec import NO_ROWS, framed, start_text, unframed
from distributed_tuner.stages.prompt_space import prompt_space, words_of
from distributed_tuner.stages.reading import head_for_costs
from distributed_tuner.stages.schedule import StageSchedule
from distributed_tuner.stages.screen_prompts import longest_instruction, longest_prompt, wordings
from distributed_tuner.stages.step_plan import StagePlan
from distributed_tuner.stages.validation import reader_of
from distributed_tuner.tasks.base import Task
from distributed_tuner.values import Cost, Request, Text


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


def project(experiment: Experiment, task: Task, counter: Counter, rehearsal: Rehearsal) -> Projection:
    space = prompt_space(experiment.prompt, task, counter.width)
    prompt = space.spec
    sample = words_of(space.sample)  # a word is a token or more: what is too long for these is too long
    head = head_for_costs(experiment.head)
    texts = (task.manual_prompt, *(() if sample is None else (sample, start_text(experiment.prompt, task))))
    for split in task.splits:
        for batch in reader_of(task, head).measured(split) if task.has_targets else [task.batch(split)]:
            counter.require(batch, prompt, texts)
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
    tested = [Request((space.sample,), batch, prompt) for batch in reader_of(task, head).measured("test")]
    test = Request((space.sample,), task.batch("test"), prompt)
    return Projection(
        plans,
        timed(search, search.tokens * seconds_a_token, experiment),
        sum((_measurement_cost(request, counter, experiment) for request in tested), Cost()),
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
    return timed(counter.cost(together), counter.seconds(together), experiment) if size else Cost()


def _measurement_cost(request: Request, counter: Counter, experiment: Experiment) -> Cost:
    if not request.batch.examples:
        return Cost()
    return timed(counter.cost(request), counter.seconds(request), experiment)


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


def timed(cost: Cost, seconds: float, experiment: Experiment) -> Cost:
    """Return the cost with device seconds, and the dollars of tokens and seconds."""
    return priced(replace(cost, seconds=seconds), experiment.oracle.price)
