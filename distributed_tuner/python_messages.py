"""Messages for users of the Python API: settings by the argument that holds them.

A message names a setting by its place in a search space: ``prompt.init: zeros``. In Python the same setting is
``prompt={"init": "zeros"}``. All messages are made in the first spelling; ``tune`` puts them into the second on their
way out.
"""

import functools
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from distributed_tuner.config.experiment import Experiment
from distributed_tuner.config.validation import ADD, CHANGE, QUOTE
from distributed_tuner.errors import TunerError

ARGUMENTS = {
    **{name: name for name in ("prompt", "head", "objective", "budget", "seed")},
    **{f"task.{name}": name for name in ("text", "label", "target", "label_words", "label_rule", "template", "shots")},
    "task.metric": "metric",
    "task.manual_prompt": "instruction",
    "task.split_seed": "seed",
    "oracle": "model",
    "stages.0.optimizer": "optimizer",
}
"""Arguments of ``tune``, by the place in a search space that each fills. All other places are in ``settings``."""
ADVICE = {CHANGE: "change the argument", QUOTE: "; quote it", ADD: "add it to the argument"}
_PLACE = re.compile(r"(?<![\w.'\"/-])([a-z]+(?:\.\w+)*)\b(?!\()(?:: (-?\d[\d.e+-]*\b|\w+))?(?! ?=)")
_NUMBER = re.compile(r"-?\d[\d.e+-]*")


@contextmanager
def spelled_as_arguments(own_stages: bool = False, **renamed: str) -> Iterator[None]:
    """Respell the message of an error that leaves the block.

    Args:
        own_stages: ``settings`` name the stages, so that no optimizer is an argument.
        renamed: arguments that have another name, such as ``seed="random_state"``.
    """
    places = {place: renamed.get(name, name) for place, name in ARGUMENTS.items()}
    if own_stages:
        del places["stages.0.optimizer"]
    try:
        yield
    except TunerError as error:
        error.args = (as_arguments(str(error), places),)
        raise


def as_arguments(message: str, places: Mapping[str, str] = ARGUMENTS) -> str:
    """Return a message with settings by the argument that holds them. ``places``: arguments by place."""
    for told, spelled in ADVICE.items():
        message = message.replace(told, spelled)
    return _PLACE.sub(lambda found: _spelled(found, places), message)


def _spelled(found: re.Match[str], places: Mapping[str, str]) -> str:
    path, told = found.group(1), found.group(2)
    root, _, setting = path.partition(".")
    if root not in Experiment.model_fields:
        return found.group()
    if found.start() and setting and not setting[0].isdigit() and setting.partition(".")[0] not in _names():
        return found.group()  # a file, say; what begins a message may be a setting that does not exist
    value = None if told is None else _literal(told)
    behind = f": {told}" if told is not None and value is None else ""
    subject = found.start() == 0 and bool(behind)  # "prompt: input should be ..."
    if "." not in path and value is None and not subject:
        return found.group()  # a word of the sentence
    argument = max((one for one in places if f"{path}.".startswith(f"{one}.")), key=len, default="")
    inner = [part for part in path[len(argument) :].split(".") if part]
    missing = found.string.startswith(" is required", found.end())
    if inner[-1:] == ["kind"] and value is None and not missing:
        inner = inner[:-1]
    for part in reversed(inner):
        held = value or "..."
        value = f"[{held}]" if part.isdigit() else f'{{"{part}": {held}}}'
    name = places.get(argument, "settings")
    return name + (f"={value}" if value else "") + behind


def _literal(value: str) -> str | None:
    """Return a value as Python writes it; None for a word that no setting can be."""
    if _NUMBER.fullmatch(value):
        return value
    if value in ("true", "false"):
        return value.title()
    return f'"{value}"' if value in _words() else None


@functools.cache
def _words() -> frozenset[str]:
    """Return the words that some setting may be: kinds and choices."""
    schema = Experiment.model_json_schema()
    told = [one for node in _nodes(schema) for one in (node.get("const"), *node.get("enum", ()))]
    return frozenset(one for one in told if isinstance(one, str))


@functools.cache
def _names() -> frozenset[str]:
    """Return the names of all settings."""
    return frozenset(name for node in _nodes(Experiment.model_json_schema()) for name in node.get("properties", ()))


def _nodes(node: Any) -> Iterator[dict[str, Any]]:
    """Yield all mappings of a tree."""
    if isinstance(node, dict):
        yield node
    for one in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _nodes(one)
