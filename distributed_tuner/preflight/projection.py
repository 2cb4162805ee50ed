"""Projected cost of a trial, before anything is spent."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from distributed_tuner.config.experiment import Experiment
from distributed_tuner.config.head import HeadConfig
from distributed_tuner.config.prompt import SoftPromptConfig, started_from
from distributed_tuner.config.stage import RestartStageConfig, ScreenStageConfig
from distributed_tuner.oracles import tile_size
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
from distributed_tuner.values import Candidate, Cost, PromptSpec, Request, Text


@dataclass(frozen=True, slots=True)
class Projection:
    """Projected cost of a trial: ``search`` within its budget, ``measurement`` outside it; in device seconds."""

    plans: tuple[StagePlan, ...]
    search: Cost
    measurement: Cost
    """Of the selected prompt on test; behind a screen, of the longest prompt that it may select."""
    ensemble: Cost
    """Maximum cost of the trial's ensemble on test, measured for the best trial of every split."""
    kept_bytes: int
    """Keys and values of train and dev texts that an oracle actor keeps for the suffix layout."""
    decoded_tokens: int
    """The most tokens of a candidate on a tile's examples, with answers that are generated; 0 where none are."""
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
    longest, longest_task = _longest(experiment, task, counter)
    longest_space = prompt_space(longest.prompt, longest_task, counter.width)
    stage_schedule = StageSchedule(longest, longest_task, longest_space, counter)
    plans = stage_schedule.plan_all()
    for index, (stage, plan) in enumerate(zip(stage_schedule.stages, plans, strict=True)):
        if not isinstance(stage, RestartStageConfig):
            steps = stage_schedule.horizon(index, plan)
            seed, rounds = experiment.seed, experiment.rounds
            rehearsal.take(stage.optimizer, space, task.batch("train"), seed, steps, counter.has_tokenizer, rounds)
    search = sum((plan.cost for plan in plans), Cost())
    train = Request((space.sample,), task.batch("train"), prompt)
    seconds_a_token = counter.seconds(train) / counter.cost(train).tokens
    size = 0 if experiment.ensemble is None else experiment.ensemble.size
    tests = [_tests(longest_space.sample, longest_task, longest_space.spec, head)]
    if experiment.screen is not None and task.test:
        tests += _screened_tests(experiment.screen, unframed(task, experiment.prompt), head)
    test = max(tests, key=lambda asked: sum(counter.cost(one).tokens for one in asked)) if task.test else []
    together = [replace(one, candidates=one.candidates * size) for one in test if size]
    return Projection(
        plans,
        timed(search, search.tokens * seconds_a_token, experiment),
        _cost(test, counter, experiment),
        _cost(together, counter, experiment),
        counter.kept_bytes(task.batch("train"), prompt) + counter.kept_bytes(task.batch("dev"), prompt),
        _decoded_tokens(longest_space.sample, longest_task, longest_space.spec, experiment, counter),
        counter.why_slow(task.batch("train"), prompt),
    )


def _tests(candidate: Candidate, task: Task, spec: PromptSpec, head: HeadConfig) -> list[Request]:
    """Return what scoring a prompt on test asks for."""
    return [Request((candidate,), batch, spec) for batch in reader_of(task, head).measured("test")]


def _decoded_tokens(
    candidate: Candidate, task: Task, spec: PromptSpec, experiment: Experiment, counter: Counter
) -> int:
    """Return the tokens of a candidate on the longest examples of a tile, answers included."""
    if not task.has_targets:
        return 0
    batches = [tile_size.longest(task.generated_batch(split), experiment.oracle.tile.examples) for split in task.splits]
    return max(counter.cost(Request((candidate,), batch, spec)).tokens for batch in batches)


def _screened_tests(screen: ScreenStageConfig, task: Task, head: HeadConfig) -> list[list[Request]]:
    """Return the same of a screen's longest prompts in words, one a wording: with demonstrations, if it tries any."""
    return [_tests(Text(longest_prompt(screen, one)), one, NO_ROWS, head) for one in wordings(task)]


def _cost(requests: Iterable[Request], counter: Counter, experiment: Experiment) -> Cost:
    return sum((timed(counter.cost(one), counter.seconds(one), experiment) for one in requests), Cost())


def _longest(experiment: Experiment, task: Task, counter: Counter) -> tuple[Experiment, Task]:
    """Return a trial as its stages see it; behind a screen, from the longest start and in the longest wording."""
    screen = experiment.screen
    if screen is None:
        return experiment, task

    def tokens(worded: Task) -> int:
        return counter.cost(Request((Text(""),), worded.batch("train"), NO_ROWS)).tokens

    plain = unframed(task, experiment.prompt)
    prompt = started_from(experiment.prompt, longest_instruction(screen, plain))
    return experiment.model_copy(update={"prompt": prompt}), framed(max(wordings(plain), key=tokens), prompt)


def _restarts(experiment: Experiment) -> bool:
    return any(isinstance(stage, RestartStageConfig) for stage in experiment.stages)


def timed(cost: Cost, seconds: float, experiment: Experiment) -> Cost:
    """Return the cost with device seconds, and the dollars of tokens and seconds."""
    return priced(replace(cost, seconds=seconds), experiment.oracle.price)
