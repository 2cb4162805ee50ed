"""From the prompt's settings and the task to the recipe that travels with requests."""

from distributed_tuner.config.prompt import PromptConfig, TextPromptConfig
from distributed_tuner.errors import ConfigError
from distributed_tuner.tasks.base import Task
from distributed_tuner.values import PromptSpec

NO_ROWS = PromptSpec(0, "zeros", "", "prefix", "paper")
"""What a request with text candidates alone says of the soft prompt: there is none."""


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
    return PromptSpec(
        config.length, config.init, text if config.init == "text" else "", config.layout, config.units, config.seed
    )


def start_text(config: PromptConfig, task: Task) -> str:
    """Return the words that a prompt starts from; empty where neither it nor the task has any."""
    return config.text if config.text is not None else task.manual_prompt
