"""Prompt specification that travels with requests, from the prompt's settings and the task."""

from collections.abc import Callable
from dataclasses import replace

from distributed_tuner.config.prompt import PromptConfig, SoftPromptConfig, TextPromptConfig
from distributed_tuner.errors import ConfigError
from distributed_tuner.tasks.base import Task
from distributed_tuner.values import Example, Layout, PromptSpec

NO_ROWS = PromptSpec(0, "zeros", "", "prefix", "paper")
"""The soft prompt of a request with only text candidates: none."""


def prompt_spec(config: PromptConfig, task: Task) -> PromptSpec:
    """Return the recipe of the prompt, ``NO_ROWS`` of a text; its layout must have been decided.

    Raises:
        ConfigError: the layout is still "auto", or ``init: text`` has no text to start from.
    """
    if isinstance(config, TextPromptConfig):
        return NO_ROWS
    if config.layout == "auto":
        raise ConfigError("prompt.layout must be decided before a trial begins, but it is 'auto'; use prefix or suffix")
    text = start_text(config, task)
    if config.init == "text" and not text:
        raise ConfigError(
            "prompt.init 'text' needs a text, but prompt.text and task.manual_prompt are empty; write one of them, or"
            " set prompt.init to vocab, filler or zeros"
        )
    layout: Layout = "suffix" if config.layout == "instruction_suffix" else config.layout
    return PromptSpec(
        config.length, config.init, text if config.init == "text" else "", layout, config.scale, config.seed
    )


def framed(task: Task, config: PromptConfig) -> Task:
    """Return the task as the prompt's layout has it: with an instruction in front of every text, or as it is.

    Raises:
        ConfigError: there is no instruction.
    """
    if not isinstance(config, SoftPromptConfig) or config.layout != "instruction_suffix":
        return task
    instruction = instruction_of(config, task)
    if not instruction:
        raise ConfigError(
            "prompt.layout: instruction_suffix needs words to put in front of every text, but prompt.instruction and"
            " task.manual_prompt are empty; write one of them, or set prompt.layout: suffix"
        )

    return _with_texts(task, lambda text: f"{instruction}\n{text}")


def unframed(task: Task, config: PromptConfig) -> Task:
    """Return the task that ``framed`` was given."""
    if not isinstance(config, SoftPromptConfig) or config.layout != "instruction_suffix":
        return task
    instruction = instruction_of(config, task)
    return _with_texts(task, lambda text: text.removeprefix(f"{instruction}\n"))


def _with_texts(task: Task, change: Callable[[str], str]) -> Task:
    def changed(examples: tuple[Example, ...]) -> tuple[Example, ...]:
        return tuple(replace(example, text=change(example.text)) for example in examples)

    return replace(
        task,
        train=changed(task.train),
        dev=changed(task.dev),
        test=changed(task.test),
        feedback=changed(task.feedback),
    )


def instruction_of(config: SoftPromptConfig, task: Task) -> str:
    """Return the words in front of every text in the layout ``instruction_suffix``."""
    return config.instruction if config.instruction is not None else task.manual_prompt


def start_text(config: PromptConfig, task: Task) -> str:
    """Return the words that a prompt starts from; empty where neither it nor the task has any."""
    return config.text if config.text is not None else task.manual_prompt
