"""Settings that were written and that no trial reads: refused, like unknown keys.

What a part says of its own settings stands with it (``Config.reads``); what only the whole can know stands here. A
setting that has its default is none that anybody misses, so that ``null`` or the default take one back.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from distributed_tuner.config.base import Config, Read
from distributed_tuner.config.experiment import Experiment
from distributed_tuner.config.oracle import OpenAIOracleConfig
from distributed_tuner.config.prompt import SoftPromptConfig
from distributed_tuner.config.schedule import AshaScheduleConfig
from distributed_tuner.config.stage import RestartStageConfig
from distributed_tuner.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Whole:
    """A setting that is read only where the whole experiment asks for it; ``why`` it is not, and what to do.

    path: with ``*`` for any part of it.
    """

    path: str
    is_read: Callable[[Experiment], bool]
    why: str


def require_read(experiments: Sequence[Experiment]) -> None:
    """Check that every setting that was written is read by some experiment that has it.

    Raises:
        ConfigError: some are not; names them, why, and what to do.
    """
    unread: dict[str, str] = {}
    read: set[str] = set()
    for experiment in experiments:
        mine = dict(_unread(experiment))
        unread |= mine
        read |= {path for path, *_ in _written(experiment)} - mine.keys()
    told = [f"{path} {why}" for path, why in unread.items() if path not in read]
    if told:
        raise ConfigError(f"what is set must be read by some trial, but {'; '.join(told)}")


def _unread(experiment: Experiment) -> Iterator[tuple[str, str]]:
    """Yield the path of each setting that was written and is not read, and why."""
    written = list(_written(experiment))
    for path, part, name in written:
        for rule in part.reads:
            if name in rule.names and not rule.holds(value := _at(part, rule.setting)):
                yield path, _why(rule, value, name)
                break
    for whole in WHOLES:
        if not whole.is_read(experiment):
            yield from ((path, whole.why) for path, *_ in written if fnmatchcase(path, whole.path))


def _written(part: Any, path: str = "") -> Iterator[tuple[str, Config, str]]:
    """Yield the path of each setting that was written and is not its default, its part and its name there."""
    for name in part.model_fields_set:
        value, here = getattr(part, name), _path(part, path, name)
        if value != type(part).model_fields[name].get_default(call_default_factory=True):
            yield here, part, name
        inner = [(here, value)] if isinstance(value, Config) else []
        if isinstance(value, tuple):
            first = 1 if here == "stages" and part.screen is not None else 0  # a screen is written as the first stage
            inner = [(f"{here}.{first + i}", each) for i, each in enumerate(value) if isinstance(each, Config)]
        for below, each in inner:
            yield from _written(each, below)


def _path(part: Config, path: str, name: str) -> str:
    if isinstance(part, Experiment):
        return "stages.0" if name == "screen" else name
    return f"{path}.{name}"


def _at(part: Any, setting: str) -> Any:
    for name in setting.split("."):
        part = getattr(part, name)
    return part


def _why(rule: Read, value: Any, name: str) -> str:
    stands = f"{rule.setting}: {_spelled(value)}"
    if rule.where:
        wanted = f"{rule.setting}: {' or '.join(map(_spelled, rule.where))}"
        return f"is read only with {wanted}, and not with {stands}: leave {name} out, or set {wanted}"
    return f"is not read with {stands}: leave {name} out, or set another {rule.setting}"


def _spelled(value: Any) -> str:
    """Return a value about as YAML has it."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(_spelled, value))}]"
    words = {None: "null", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else str(value)


# ------------------------------------------------------------------------------------------------ of the whole
def _selects_by_test(experiment: Experiment) -> bool:
    tuned = [stage for stage in experiment.stages if not isinstance(stage, RestartStageConfig)]
    return not tuned or any(stage.select == "cross_validation" for stage in tuned)


def _keeps_texts(experiment: Experiment) -> bool:
    prompt = experiment.prompt
    return isinstance(prompt, SoftPromptConfig) and prompt.layout in ("auto", "suffix", "instruction_suffix")


def _searches_words(experiment: Experiment) -> bool:
    return any(not isinstance(stage, RestartStageConfig) and stage.optimizer.is_discrete for stage in experiment.stages)


def _has_prices(experiment: Experiment) -> bool:
    return any(value for value in experiment.oracle.price.model_dump().values())


def _may_stop(experiment: Experiment) -> bool:
    schedule, limit = experiment.schedule, experiment.budget.queries
    return not isinstance(schedule, AshaScheduleConfig) or limit is None or schedule.grace_queries < limit


WHOLES = (
    Whole(
        "significance",
        _selects_by_test,
        "is read only where a stage selects by cross_validation, and none does: leave it out, or set select",
    ),
    Whole(
        "oracle.revision",
        lambda experiment: not Path(getattr(experiment.oracle, "model", "")).is_dir(),
        "is read only of models of the hub, and oracle.model is a directory here: leave it out",
    ),
    Whole(
        "oracle.text_cache_gib",
        _keeps_texts,
        "is read only in layouts that put the rows behind the text: leave it out, or set prompt.layout: suffix",
    ),
    Whole(
        "budget.usd",
        _has_prices,
        "limits dollars, but nothing has a price, so that it would never hold: set oracle.price, or limit queries",
    ),
    Whole(
        "oracle.price.usd_per_million_cached_input_tokens",
        lambda experiment: isinstance(experiment.oracle, OpenAIOracleConfig),
        "is read only of servers (oracle.kind: openai), which say what they found in their cache: leave it out",
    ),
    Whole(
        "oracle.price.usd_per_million_output_tokens",
        lambda experiment: isinstance(experiment.oracle, OpenAIOracleConfig),
        "is read only of servers (oracle.kind: openai), which write a token a forward: leave it out",
    ),
    Whole(
        "schedule",
        _may_stop,
        "(asha) gives every trial schedule.grace_queries, no less than budget.queries, and would stop none: lower it,"
        " or leave the schedule out",
    ),
    Whole(
        "stages.*.tokens",
        lambda experiment: isinstance(experiment.prompt, SoftPromptConfig),
        "says how rows become words, and prompts of kind text are words: leave it out",
    ),
    Whole(
        "prompt.vocabulary",
        _searches_words,
        "says what a search in words may take, and there is none: leave it out, or add one to stages",
    ),
)
"""Settings whose use depends on other parts."""
