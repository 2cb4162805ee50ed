"""Settings of a study, as its YAML has them."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from benchmarks.heads import WORDINGS, file_settings
from distributed_tuner.config.base import LABEL, Config
from distributed_tuner.config.load import load_space
from distributed_tuner.config.space import distributions, dotted
from distributed_tuner.errors import ConfigError

OURS = ("name", "seed", "task", "oracle", "budget", "schedule", "samples", "max_concurrent_trials", "loggers")
"""Parts of an experiment that a study sets by itself, for all methods alike."""
BELOW = ("manual", "manual_head", "bag_of_words")
"""Methods that every study has: the untuned prompt as it is, read by the study's head, and no model at all."""
KNOWN = ("demo", *WORDINGS)

Counts: TypeAlias = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]


def ensemble_of(method: str) -> str:
    """Return the name of the rows of a method's ensemble."""
    return f"{method}_ensemble"


def _by_name(value: Any) -> Any:
    return {name: {} for name in value} if isinstance(value, list) else value


class Method(Config):
    """One method: parts of an experiment, in place of the study's own, such as ``stages`` and ``objective``."""

    model_config = ConfigDict(extra="allow")

    budgets: Counts | None = None
    """Its budgets in queries; the study's when left out."""
    role: Literal["search", "upper_line"] = "search"
    """An upper line is drawn, and takes no part in the ranking."""

    @property
    def parts(self) -> dict[str, Any]:
        """The parts of an experiment that it replaces."""
        return dict(self.model_extra or {})


class Study(Config):
    """A study."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Heads its page."""
    seed: int = Field(0, ge=0)
    """Root of all randomness. A split's searches draw theirs by it and the split."""
    oracle: dict[str, Any]
    """The frozen model, as a search space has it; one thread a worker."""
    data: str | None = None
    """Folder with a folder for each task, of train.jsonl and test.jsonl, beside the YAML; ``--data`` comes first."""
    tasks: Annotated[dict[Annotated[str, Field(pattern=LABEL)], dict[str, Any]], BeforeValidator(_by_name)]
    """Tasks by name: a list of those that benchmarks.heads words, or what is set on top of these, or tasks of your
    own as a search space has them. ``shots`` may be a list here as well."""
    shots: Counts = (16,)
    """Examples a class in train, and as many in dev."""
    splits: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (0, 1, 2)
    """Split seeds."""
    budgets: Counts
    """Queries of a run."""
    test_limit: int | None = Field(None, ge=1)
    """At most so many test examples, the same ones for every split."""
    experiment: dict[str, Any] = Field(default_factory=dict)
    """What all methods share: prompt, head, objective, significance, ..., as a search space has them."""
    methods: Annotated[dict[Annotated[str, Field(pattern=LABEL)], Method], Field(min_length=1)]
    """Methods by name."""

    @field_validator("shots", "splits", "budgets")
    @classmethod
    def _in_order(cls, values: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(set(values)))

    @model_validator(mode="after")
    def _parts_are_free(self) -> "Study":
        for where, parts in {"experiment": self.experiment, **{n: m.parts for n, m in self.methods.items()}}.items():
            if taken := [part for part in OURS if part in parts]:
                raise ValueError(f"the study sets {taken[0]} for all methods alike, but {where} sets it as well")
        if taken := [name for name in BELOW if name in self.methods]:
            raise ValueError(f"{taken[0]} is in every study by itself; give the method another name")
        if taken := [name for name in self.methods if self.has_ensemble(name) and ensemble_of(name) in self.methods]:
            raise ValueError(
                f"the rows of the ensemble of {taken[0]} are called {ensemble_of(taken[0])}; give that method another"
                " name"
            )
        return self

    def has_ensemble(self, method: str) -> bool:
        """Tell whether a method's best prompts are read together as well."""
        return {**self.experiment, **self.methods[method].parts}.get("ensemble") is not None

    def rows_of(self, methods: Iterable[str]) -> list[str]:
        """Return what the rows of methods are called: of their selected prompts, and of their ensembles."""
        own = [[name, ensemble_of(name)] if self.has_ensemble(name) else [name] for name in methods]
        return [name for names in own for name in names]

    def shots_of(self, task: str) -> tuple[int, ...]:
        """Return the shots of one task: its own, or the study's."""
        shots = self.tasks[task].get("shots", self.shots)
        return tuple(sorted({shots} if isinstance(shots, int) else set(shots)))

    def budgets_of(self, method: str) -> tuple[int, ...]:
        """Return the budgets of one method: its own, or the study's."""
        return tuple(sorted(set(self.methods[method].budgets or self.budgets)))

    def task_tree(self, name: str, data: Path | None) -> dict[str, Any]:
        """Return the settings of a task.

        Raises:
            ConfigError: nobody knows the task, or its data are in no folder that was given.
        """
        given = self.tasks[name]
        if "kind" in given:
            return dict(given)
        if name == "demo":
            return {"kind": "demo", **given}
        if name not in WORDINGS:
            raise ConfigError(
                f"tasks: a task has a kind, or is one of {', '.join(KNOWN)}, but {name!r} is neither; write kind: file"
                " and what goes with it"
            )
        if data is None:
            raise ConfigError(f"tasks: {name} needs its data; name their folder by --data, or in the study's data")
        return {**file_settings(name, data), **given}

    def tree(
        self, task: dict[str, Any], shots: int, split: int, parts: Mapping[str, Any], budget: int
    ) -> dict[str, Any]:
        """Return the search space of one cell, which has a single trial."""
        return {
            "name": self.name,
            "seed": self.seed,
            "task": {**task, "shots": shots, "split_seed": split, "test_limit": self.test_limit},
            "oracle": self.oracle,
            **self.experiment,
            **parts,
            "budget": {"queries": budget},
        }


def read_study(path: Path) -> Study:
    """Read a study.

    Raises:
        ConfigError: there is none, or it breaks a rule; names the path, the rule, the value, and the next move.
    """
    tree = load_space(path)
    if free := [dotted(place) for place, _ in distributions(tree)]:
        raise ConfigError(f"a method of a study is one setting, but {free[0]} is left free; write a method for each")
    try:
        return Study.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(_message(error, path)) from None


def _message(error: ValidationError, path: Path) -> str:
    problem = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in problem["loc"]) or "the study"
    if problem["type"] == "missing":
        return f"{where} is required, but is missing; add it to {path}"
    if problem["type"] == "extra_forbidden":
        known = ", ".join(Study.model_fields)
        return f"{where} is not a known setting of a study; known are {known}; what methods share stands in experiment"
    rule = re.sub(r"^Value error, ", "", problem["msg"])
    got = "" if problem["type"] == "value_error" else f", but got {problem['input']!r}"
    return f"{where}: {rule[0].lower()}{rule[1:]}{got}; change it in {path}"
