"""Prompts that a screen tries, how it asks for them, and the most that it asks. Pure functions."""

from collections.abc import Sequence
from dataclasses import replace

from distributed_tuner.config.stage import ScreenStageConfig
from distributed_tuner.oracles.base import evaluation
from distributed_tuner.seeds import Key, generator
from distributed_tuner.stages.validation import AnyReader
from distributed_tuner.tasks.base import Task
from distributed_tuner.values import Batch, Evaluation, Example

PROPOSED_WORDS = 30  # that an instruction of a proposer may have


def instructions(config: ScreenStageConfig, task: Task) -> list[str]:
    """Return the instructions that are tried, each once: the manual prompt, the user's, and neutral patterns."""
    described = f"{task.description[:1].upper()}{task.description[1:]}"
    if task.has_targets:
        patterns = [
            "",
            f"{described}.",
            "Read the text and write the answer alone, without an explanation.",
            "Each text below is followed by the right answer.",
        ]
    else:
        words = [word.strip() for word in task.label_words]
        listed = f"{', '.join(words[:-1])} or {words[-1]}"
        patterns = [
            "",
            f"Classify the text as {listed}.",
            f"{described}: {listed}.",
            f"Read the text and answer with one word: {listed}.",
            f"Which of these fits the text best: {listed}?",
            f"Each text below is labelled {listed}.",
        ]
    tried = [task.manual_prompt, *config.instructions, *(patterns if config.patterns else ())]
    return list(dict.fromkeys(tried))


def drawn(task: Task, number: int, key: Key) -> tuple[int, ...]:
    """Return places in train of rows to show, as even over the labels as can be, in random order.

    None where fewer than two rows of some label would be left to fit a head to.
    """
    stream = generator(key)
    by_label: dict[int, list[int]] = {}
    for place, example in enumerate(task.train):
        by_label.setdefault(example.label, []).append(place)
    pools = [stream.permutation(places).tolist() for _, places in sorted(by_label.items())]
    start = int(stream.integers(len(pools)))
    shown: list[int] = []
    for turn in range(number):
        pool = pools[(start + turn) % len(pools)]
        if len(pool) <= 2:
            return ()
        shown.append(pool.pop())
    return tuple(int(i) for i in stream.permutation(shown))


def demonstrated(instruction: str, examples: Sequence[Example], task: Task) -> str:
    """Return an instruction with examples and their answers behind it, as the model reads them."""
    answers = [e.target if task.has_targets else task.label_words[e.label] for e in examples]
    shown = [f"{e.text}{e.cue}{answer}{e.tail}" for e, answer in zip(examples, answers, strict=True)]
    return "\n\n".join([*([instruction] if instruction else []), *shown]) + "\n"


def screened_batch(reader: AnyReader) -> Batch:
    """Return train as a screen asks for it: with the scores of all label words that it may read."""
    batch, task = reader.batch("train"), reader.task
    words = dict.fromkeys(word for words in task.verbalizers for word in words if word not in task.label_words)
    return replace(batch, answer_words=tuple(words)) if words else batch


def read_as(answer: Evaluation, batch: Batch, words: Sequence[str]) -> Evaluation:
    """Return the answer to a batch as if it had been asked for with other label words, of those whose scores it has."""
    known = (*batch.label_words, *batch.answer_words)
    told = answer.logits if answer.features is None else answer.features
    scores = told[..., [known.index(word) for word in words]].astype("float32")
    return evaluation(scores, replace(batch, label_words=tuple(words), answer_words=()), answer.cost)


def screen_queries(config: ScreenStageConfig, task: Task) -> int:
    """Return the most queries that a screen asks, its evaluations left out."""
    first = len(instructions(config, task)) + (0 if config.proposer is None else config.proposals)
    kept = min(first, config.instructions_kept)
    behind = min(first * (1 + len(task.others)), config.instructions_kept)
    return first + kept * len(task.others) + behind * len(config.demonstrations) * config.orders


def longest_prompt(config: ScreenStageConfig, task: Task) -> str:
    """Return a prompt about as long as any that is tried, to plan with."""
    instruction = longest_instruction(config, task)
    number = max((*config.demonstrations, 0))
    longest = sorted(task.train, key=lambda example: len(example.text), reverse=True)[:number]
    return demonstrated(instruction, longest, task) if longest else instruction


def longest_instruction(config: ScreenStageConfig, task: Task) -> str:
    """Return an instruction about as long as any that is tried, to plan with."""
    proposed = [] if config.proposer is None else [" ".join(["prompt"] * PROPOSED_WORDS)]
    return max([*instructions(config, task), *proposed], key=len)


def wordings(task: Task) -> list[Task]:
    """Return the task in each of its templates, with each of its verbalizers."""
    return [task.worded(one.template, words) for one in (task, *task.others) for words in ((), *task.verbalizers)]
