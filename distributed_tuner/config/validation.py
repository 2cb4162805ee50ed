"""Validation of a settings tree: the typed experiment, or one message that a person can act on."""

import difflib
import types
from collections.abc import Mapping
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from distributed_tuner.config.experiment import Experiment
from distributed_tuner.config.renamed import RENAMED
from distributed_tuner.errors import ConfigError

ADD = "add it to the search space"
CHANGE = "change it in the search space or with --set"
QUOTE = ", as YAML reads it; quote it in the search space or in --set"


def experiment_of(tree: Any) -> Experiment:
    """Validate a tree of constants.

    Raises:
        ConfigError: the first rule that is broken: its path, the rule, the value received, the next move.
    """
    try:
        return Experiment.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(_message(error)) from None


def _message(error: ValidationError) -> str:
    problems = error.errors(include_url=False)
    unknown = [problem for problem in problems if problem["type"] == "extra_forbidden"]
    problem = (unknown or problems)[0]
    location = tuple(problem["loc"])
    path = _written_path(location)
    if problem["type"] == "extra_forbidden":
        return _unknown_key(location, path)
    if problem["type"] == "missing":
        return f"{path} is required, but it is missing; {ADD}"
    if problem["type"] in ("union_tag_invalid", "union_tag_not_found"):
        return _unknown_kind(path, problem)
    rule = problem["msg"].removeprefix("Value error, ")
    rule = rule[0].lower() + rule[1:]
    rule = rule.replace("a valid tuple", "a list").replace("a valid dictionary", "a mapping")  # as YAML calls them
    more = f" ({len(problems) - 1} more after this one)" if len(problems) > 1 else ""
    if location[-1:] == ("api_key_env",):  # a key may stand there, so what was given is not shown
        return (
            f"{path} must be the name of an environment variable, in capitals, never a key itself, so what was given is"
            f" not shown; put the key into a variable and write the variable's name{more}"
        )
    if location[-1:] == ("base_url",) or "extra_body" in location:
        return f"{path}: {rule}; what was given is not shown, since it may hold a key; give that by api_key_env{more}"
    got = problem["input"]
    if problem["type"] == "string_type" and not isinstance(got, Mapping | list | tuple):
        return f"{path}: {rule}, but got {got!r}{QUOTE}{more}"
    return f"{path}: {rule}, but got {got!r}; {CHANGE}{more}"


def _unknown_key(location: tuple[Any, ...], path: str) -> str:
    known = sorted(_fields(location[:-1]))
    present = RENAMED.get(str(location[-1]))
    if present in known or (present and len(location) == 1):  # at the root where --set found no such name
        return f"{path} is called {present!r} in this version; write {present} in its place"
    near = difflib.get_close_matches(str(location[-1]), known, n=1)
    advice = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}"
    return f"{path} is not a known setting; {advice}"


def _unknown_kind(path: str, problem: Any) -> str:
    context = problem.get("ctx", {})
    expected = str(context.get("expected_tags", "")).replace("'", "")
    if problem["type"] == "union_tag_not_found":
        return f"{path}.kind is required, but it is missing; set it to one of the known kinds"
    known = [tag.strip() for tag in expected.split(",")]
    near = difflib.get_close_matches(str(context.get("tag")), known, n=1)
    advice = f"did you mean {near[0]!r}?" if near else "choose one of them"
    return f"{path}.kind must be one of {expected}, but got {context.get('tag')!r}; {advice}"


def _written_path(location: tuple[Any, ...]) -> str:
    """Return the path as written in YAML: pydantic's location without the tags of discriminated unions."""
    written: list[str] = []
    model: Any = Experiment
    for part in location:
        model, tagged = _enter(model, part)
        if not tagged:
            written.append(str(part))
    return ".".join(written) or "the search space"


def _fields(location: tuple[Any, ...]) -> set[str]:
    model: Any = Experiment
    for part in location:
        model, _ = _enter(model, part)
    model = _bare(model)
    return set(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else set()


def _enter(annotation: Any, part: Any) -> tuple[Any, bool]:
    """Step from a type into one of its parts. The second value tells whether the part was a union's tag."""
    annotation = _bare(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field = annotation.model_fields.get(str(part))
        return (field.annotation if field else None), False
    if get_origin(annotation) in (Union, types.UnionType):
        for member in map(_bare, get_args(annotation)):
            if isinstance(member, type) and issubclass(member, BaseModel) and part in (*_tags(member), member.__name__):
                return member, True
        return None, True  # pydantic's name of a plain member, such as "str"
    if get_origin(annotation) in (tuple, list):
        return get_args(annotation)[0], False
    return None, False


def _bare(annotation: Any) -> Any:
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, types.UnionType):
        members = [member for member in get_args(annotation) if member is not type(None)]
        return _bare(members[0]) if len(members) == 1 else annotation
    return annotation


def _tags(member: type[BaseModel]) -> tuple[Any, ...]:
    field = member.model_fields.get("kind")
    return get_args(field.annotation) if field else ()
