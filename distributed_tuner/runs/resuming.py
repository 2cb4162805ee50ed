"""Resuming: the trials in a run's config.json, compared with what is asked for this time."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from distributed_tuner import __version__
from distributed_tuner.config.base import FILE, named
from distributed_tuner.config.distributions import Distribution
from distributed_tuner.config.load import apply_override, load_space
from distributed_tuner.config.renamed import with_present_names
from distributed_tuner.config.space import TrialPlan, recorded
from distributed_tuner.config.stage import RestartStageConfig, ScreenStageConfig
from distributed_tuner.config.validation import experiment_of
from distributed_tuner.errors import ConfigError, RunDirectoryError
from distributed_tuner.runs.directory import RunDirectory

MOST_SHOWN = 3
"""Differences that a message names."""
ELSEWHERE = f"continue with the version that wrote it (this one is {__version__}), or start a new run"


class _Record(BaseModel):
    """A trial in config.json, and config.json itself. A key that is not known may change numbers, and is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _TrialRecord(_Record):
    trial_id: str
    index: int
    method: str
    seed: int = 0
    split_seed: int = 0
    drawn: dict[str, Any]
    config: dict[str, Any]


class _Space(_Record):
    """A search space as it was read, and what ``--set`` made of it."""

    written: dict[str, Any]
    overrides: list[str]


class _RunRecord(_Record):
    experiment: dict[str, Any] | None = None
    trials: list[_TrialRecord] = Field(min_length=1)
    space: _Space | None = None
    task: Any = None
    model: Any = None
    versions: Any = None
    command: Any = None
    root: str = ""


def space_record(written: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return how config.json holds the search space that a run began with."""
    return {"written": plain(written), "overrides": list(overrides)}


def plain(tree: Any) -> Any:
    """Return a search space's tree as JSON holds it: a distribution as a mapping of its tag."""
    match tree:
        case Mapping():
            return {str(key): plain(value) for key, value in tree.items()}
        case list() | tuple():
            return [plain(value) for value in tree]
        case None | bool() | int() | float() | str():
            return tree
        case _ if isinstance(tree, Distribution):
            fields = [plain(getattr(tree, name)) for name in type(tree).__slots__]
            return {f"!{type(tree).__name__.lower()}": fields}
        case _:
            return str(tree)  # a date


def trials_of(config: Mapping[str, Any], where: str) -> list[TrialPlan]:
    """Return the trials of a config.json. ``where``: what a person calls the file.

    Raises:
        RunDirectoryError: it holds what this version does not know, or what no run has written.
    """
    try:
        record = _RunRecord.model_validate(config)
    except ValidationError as error:
        raise RunDirectoryError(_unreadable(error, where)) from None
    plans = [_plan(trial, where) for trial in record.trials]
    if record.experiment is not None:
        with _written_elsewhere(f"{where}, experiment"):
            experiment_of(recorded(record.experiment))
        _require_agreement(record, where)
    return plans


def _unreadable(error: ValidationError, where: str) -> str:
    problems = error.errors(include_url=False, include_input=False)
    problem = next((one for one in problems if one["type"] == "extra_forbidden"), problems[0])
    path = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        return f"{where} holds {path!r}, which is not known here and may change numbers; {ELSEWHERE}"
    return f"{where} must be as a run has written it, but {path!r} is not ({problem['msg']}); {ELSEWHERE}"


def _plan(trial: _TrialRecord, where: str) -> TrialPlan:
    with _written_elsewhere(f"{where}, trial {trial.trial_id!r}"):
        plan = TrialPlan.from_json(trial.model_dump())
    for stage in (plan.experiment.screen, *plan.experiment.stages):
        proposer = stage.proposer if isinstance(stage, RestartStageConfig | ScreenStageConfig) else None
        instruction = None if proposer is None else proposer.instruction
        if instruction is not None and not ("\n" in instruction or "{" in instruction):
            raise RunDirectoryError(
                f"a run's proposer.instruction is the template itself, but in {where} it names a file,"
                f" {instruction!r}, which this run has not read; put the template there, or start a new run"
            )
    return plan


@contextmanager
def _written_elsewhere(where: str) -> Iterator[None]:
    """Say of settings that break a rule where they stand, and who has written them."""
    try:
        yield
    except ConfigError as error:
        raise RunDirectoryError(f"{where}: {error}; {ELSEWHERE}") from None


def _require_agreement(record: _RunRecord, where: str) -> None:
    """Check that what all trials share is what the first one has: an edit of one place alone would go unheard."""
    apart = list(differences(record.experiment, record.trials[0].config))
    if apart:
        path, whole, own = apart[0]
        raise RunDirectoryError(
            f"the experiment in {where} must be its first trial's config, but {path} is {whole} in one and {own} in the"
            " other; settings are taken from the trials' configs: change these and it alike, or undo the edit"
        )


# ---------------------------------------------------------------------------------------------------- what was edited
def require_unedited(directory: RunDirectory, space: Path | None, overrides: Sequence[str]) -> str:
    """Hold a search space, and what is set on top of it, against those that a run began with; return what a person
    should know. Settings that were set then need not be set again. ``space``: None where the run's own is meant.

    Raises:
        ConfigError: it is another one, or another value is set.
        RunDirectoryError: there is no run.
    """
    begun = directory.read_config().get("space")
    where = directory.shown(directory.config)
    if begun is None:
        what = space or "--set"
        return f"{where} holds no search space that {what} could be held against; all settings are those of the run"
    begun = _Space.model_validate(begun)
    written = begun.written if space is None else load_space(space, [])
    _require_equal(with_present_names(begun.written), with_present_names(plain(written)), str(space), where)
    if overrides:
        _require_equal(plain(_with(written, begun.overrides)), plain(_with(written, overrides)), "--set", where)
    again = "".join(f" --set {one}" for one in begun.overrides if one not in overrides)
    return f"going on with the settings of {where}{f', which was begun with{again}' if again else ''}"


def _with(tree: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    for override in overrides:
        tree = apply_override(tree, override)
    return tree


def _require_equal(begun: Any, asked: Any, what: str, where: str) -> None:
    apart = list(differences(begun, asked))
    if not apart:
        return
    told = "; ".join(f"{path} was {old} and is {new}" for path, old, new in apart[:MOST_SHOWN])
    more = f" ({len(apart) - MOST_SHOWN} more)" if len(apart) > MOST_SHOWN else ""
    raise ConfigError(
        f"a resumed run continues with the settings that it began with, but {what} differs from {where}:"
        f" {told}{more}; undo the edit, leave the search space out to take all settings from the run, or start a new"
        " run with another --out"
    )


def differences(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield where two trees of JSON differ: the dotted path, and what stands there in each."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in dict.fromkeys((*old, *new)):
            yield from differences(old.get(key, _ABSENT), new.get(key, _ABSENT), f"{path}.{key}".lstrip("."))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from differences(before, after, f"{path}.{index}".lstrip("."))
    elif old != new or type(old) is not type(new):
        yield path or "the search space", _shown(old), _shown(new)


_ABSENT = object()


def _shown(value: Any) -> str:
    text = "left out" if value is _ABSENT else json.dumps(value, ensure_ascii=True)
    return text if len(text) <= 60 else f"{text[:57]}..."


# ---------------------------------------------------------------------------------------------------- what is reached
def reached(plans: Sequence[TrialPlan], root: Path) -> list[str]:
    """Return what the settings of a run name outside of it, each kind once: a resumed run uses it.
    ``root``: where relative paths are looked up."""
    found: dict[str, dict[str, None]] = {}
    for plan in plans:
        for what, name in named(plan.experiment):
            found.setdefault(what, {})[name] = None
    if FILE.what in found:
        found["folder of relative paths"] = {str(root): None}
    return [f"{what}: {', '.join(names)}" for what, names in found.items()]
