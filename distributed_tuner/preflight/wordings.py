"""Wordings that a screen may try: templates and label words, as far as the model's tokens allow them.

What a user gives and the model cannot take is an error; what is built in is left out then.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from distributed_tuner.config.experiment import Experiment
from distributed_tuner.config.head import reads_words
from distributed_tuner.config.schedule import PopulationScheduleConfig
from distributed_tuner.config.task import label_key
from distributed_tuner.errors import ModelError, TaskError
from distributed_tuner.oracles.cost_model import Counter
from distributed_tuner.prompts.spec import NO_ROWS
from distributed_tuner.stages.reading import WORDS_TOLD
from distributed_tuner.tasks.base import Task
from distributed_tuner.tasks.templates import LABEL_WORD, TARGET, Template
from distributed_tuner.values import Batch, Split

CUES = ("\nLabel:{label_word}", "\nAnswer:{label_word}", " All in all:{label_word}")
TARGET_CUES = ("\nAnswer:{target}", "\nOutput:{target}")


def templates_tried(experiment: Experiment) -> tuple[str, ...]:
    """Return the templates, or cues alone, that a screen tries in addition to the task's own: the user's first."""
    screen = experiment.screen
    if screen is None:
        return ()
    cues = TARGET_CUES if getattr(experiment.task, "target", None) else CUES
    neutral = cues if screen.patterns and not isinstance(experiment.schedule, PopulationScheduleConfig) else ()
    return (*screen.templates, *neutral)


def with_wordings(task: Task, experiment: Experiment, counter: Counter) -> Task:
    """Return a task with the templates and label words that its screen tries. ``others``: as ``templates_tried`` says.

    Raises:
        TaskError: the user's label words are no single tokens, or not for the task's labels.
        TaskError, ModelError: the model cannot take the task in the user's templates.
    """
    if experiment.screen is None:
        return task
    verbalizers = () if task.has_targets else _verbalizers(task, experiment, counter)
    own = Template.parse(task.template, experiment.task.model_family, TARGET if task.has_targets else LABEL_WORD)
    given = {own.other(source, experiment.task.model_family).source for source in experiment.screen.templates}
    others = []
    for other in task.others:
        try:
            _require(other, verbalizers, counter)
        except (TaskError, ModelError) as error:
            if other.template in given:
                raise type(error)(f"the screen's template {other.template!r} cannot be tried: {error}") from error
            continue
        others.append(other)
    return replace(task, others=tuple(others), verbalizers=verbalizers)


def _require(other: Task, verbalizers: Sequence[Sequence[str]], counter: Counter) -> None:
    for split in other.splits:
        counter.require(_batch(other, split), NO_ROWS, (other.manual_prompt,))
    for word in dict.fromkeys(word for words in verbalizers for word in words):
        if counter.tokens(_batch(other), (word,))[-1] is None:
            raise TaskError(f"the label word {word!r} is not one token behind {other.train[0].cue!r}; choose another")


def _verbalizers(task: Task, experiment: Experiment, counter: Counter) -> tuple[tuple[str, ...], ...]:
    """Return label words to try in addition to the task's own; one for each group that shares tokens."""
    screen = experiment.screen
    assert screen is not None
    if reads_words(experiment.head) or experiment.oracle.kind not in WORDS_TOLD:
        return ()
    template = Template.parse(task.template, experiment.task.model_family)
    given = [_given(words, template, task) for words in screen.verbalizers]
    names = [] if isinstance(experiment.schedule, PopulationScheduleConfig) or not screen.patterns else [_names(task)]
    known = dict(zip(counter.tokens(_batch(task), ()), task.label_words, strict=True))
    found = {task.label_words: None}
    for words in (*given, *names):
        tokens = counter.tokens(_batch(task), words)[len(task.label_words) :]
        if None in tokens or len(set(tokens)) < len(words):
            if words in given:
                raise _unreadable(words, tokens, task)
            continue
        found[tuple(known.setdefault(token, word) for token, word in zip(tokens, words, strict=True))] = None
    return tuple(found)[1:]


def _unreadable(words: Sequence[str], tokens: Sequence[int | None], task: Task) -> TaskError:
    if None in tokens:
        word = words[tokens.index(None)]
        return TaskError(
            f"label words of a screen's verbalizers must be one token each, for their scores stand in one answer, but"
            f" {word!r} is not one behind {task.train[0].cue!r}; choose another word"
        )
    return TaskError(
        f"label words must differ in their token, but of the screen's verbalizer {list(words)} two have the same;"
        " choose other words"
    )


def _given(words: Mapping[str, str], template: Template, task: Task) -> tuple[str, ...]:
    ordered = _in_order(words, task)
    try:
        return template.label_words(ordered)
    except TaskError as error:
        raise TaskError(f"a screen's verbalizer cannot be tried: {error}") from error


def _in_order(words: Mapping[str, str], task: Task) -> tuple[str, ...]:
    by_label = {label_key(label): word for label, word in words.items()}
    names = [label_key(name) for name in task.label_names]
    if set(by_label) != set(names):
        raise TaskError(
            f"a screen's verbalizer has a word for each label, {', '.join(task.label_names)}, but this one for"
            f" {', '.join(words)}; write it as task.label_words"
        )
    return tuple(by_label[name] for name in names)


def _names(task: Task) -> tuple[str, ...]:
    """Return the labels' names as words, with the space that the label words begin with."""
    space = " " if all(word.startswith(" ") for word in task.label_words) else ""
    return tuple(f"{space}{label_key(name)}" for name in task.label_names)


def _batch(task: Task, split: Split = "train") -> Batch:
    return task.batch(split)
