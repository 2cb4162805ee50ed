"""A search space: one tree of constants and distributions, and the trials drawn from it.

Drawing is a pure function of (tree, samples, seed), so ``check``, ``run`` and ``--resume`` see the same trials.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from distributed_tuner.config.distributions import Choice, Distribution, Grid, LogUniform, RandInt, Uniform
from distributed_tuner.config.experiment import Experiment
from distributed_tuner.config.head import HeadConfig
from distributed_tuner.config.prompt import started_from
from distributed_tuner.config.renamed import with_present_names
from distributed_tuner.config.unread import require_read
from distributed_tuner.config.validation import experiment_of
from distributed_tuner.errors import ConfigError
from distributed_tuner.seeds import generator

Tree = Any
Path = tuple[str | int, ...]
VARIANT = "variant"
PYCMAS_TPA = 300  # dimensions from which pycma 4.5 by itself adapts the step size by two points
SHARED = (
    "name",
    "oracle",
    "schedule",
    "samples",
    "max_concurrent_trials",
    "loggers",
    "report_every",
    "significance",
)  # one for the whole run


@dataclass(frozen=True, slots=True)
class TrialPlan:
    """One trial before it runs. ``drawn`` maps dotted paths of the space's free values to what this trial got."""

    trial_id: str
    index: int
    method: str
    drawn: dict[str, Any]
    experiment: Experiment

    def to_json(self) -> dict[str, Any]:
        """Return the plan as config.json holds it."""
        return {
            "trial_id": self.trial_id,
            "index": self.index,
            "method": self.method,
            "seed": self.experiment.seed,
            "split_seed": self.experiment.task.split_seed,
            "drawn": self.drawn,
            "config": self.experiment.model_dump(mode="json"),
        }

    def started_from(self, instruction: str) -> "TrialPlan":
        """Return the plan as it goes on from what a screen has found."""
        prompt = started_from(self.experiment.prompt, instruction)
        return replace(self, experiment=self.experiment.model_copy(update={"prompt": prompt}))

    def with_head(self, head: HeadConfig) -> "TrialPlan":
        """Return the plan with another head."""
        return replace(self, experiment=self.experiment.model_copy(update={"head": head}))

    @classmethod
    def from_json(cls, plan: dict[str, Any]) -> "TrialPlan":
        """Return the plan that ``to_json`` wrote.

        Raises:
            ConfigError: its config breaks a rule.
        """
        experiment = experiment_of(recorded(plan["config"]))
        return cls(plan["trial_id"], plan["index"], plan["method"], plan["drawn"], experiment)


def recorded(config: dict[str, Any]) -> dict[str, Any]:
    """Return a trial's config of any age as it is meant.

    Settings that were renamed have their present names. Before there were heads, label words were read as they are;
    before ``step_size`` was a setting of cma, pycma chose the rule by the number of dimensions; before screens had
    finalists, they evaluated their winner alone."""
    config = {"head": "label_words", "significance": None, **with_present_names(config)}
    if isinstance(screen := config.get("screen"), dict):
        config["screen"] = {"finalists": 1, **screen}
    stages = config.get("stages")
    return config | {"stages": list(map(_with_step_size, stages))} if isinstance(stages, list) else config


def _with_step_size(stage: Tree) -> Tree:
    match stage:
        case {"optimizer": {"kind": "cma", "intrinsic_dim": int(dim)} as optimizer}:
            chosen = "tpa" if dim >= PYCMAS_TPA else "csa"
            return {**stage, "optimizer": {"step_size": chosen, **optimizer}}
        case _:
            return stage


def draw_trials(tree: Tree) -> list[TrialPlan]:
    """Draw every trial of the space: grids multiplied out, then ``samples`` draws of the random values for each.

    Raises:
        ConfigError: the tree breaks a rule of the config models.
    """
    samples = tree.get("samples", 1) if isinstance(tree.get("samples", 1), int) else 1
    root = tree.get("seed", 0) if isinstance(tree.get("seed", 0), int) else 0
    plans: list[TrialPlan] = []
    for combination in expand(tree):
        for _ in range(max(1, samples)):
            stream = generator(("space", root, len(plans)))
            constants = resolve(combination, stream)
            experiment = experiment_of(merged(constants))
            drawn = {dotted(path): _at(constants, path) for path in _free(tree, constants)}
            trial_id = f"{experiment.method}-{len(plans):04d}"
            plans.append(TrialPlan(trial_id, len(plans), experiment.method, drawn, experiment))
    return plans


def validate(tree: Tree) -> None:
    """Check the space at both ends of every range and at every option, whatever would be drawn.

    Raises:
        ConfigError: some end breaks a rule, or what is set is read at none; names the path.
    """
    require_read([experiment_of(merged(end)) for combination in expand(tree) for end in _extremes(combination)])


def merged(tree: Tree) -> Tree:
    """Return the tree with the parts under ``variant`` in place of its own: what varies together is drawn together.

    Raises:
        ConfigError: ``variant`` is no mapping.
    """
    if VARIANT not in tree:
        return tree
    variant = tree[VARIANT]
    if not isinstance(variant, dict):
        raise ConfigError(
            f"variant holds parts of the experiment that vary together, but got {variant!r}; write mappings such as"
            " {prompt: ..., stages: ...}, under !grid"
        )
    return {key: value for key, value in tree.items() if key != VARIANT} | variant


def expand(tree: Tree) -> Iterator[Tree]:
    """Yield the tree with its grids multiplied out, the first-written grid changing slowest."""
    match tree:
        case Grid(options):
            for option in options:
                yield from expand(option)
        case dict():
            yield from _product(list(tree.items()), {})
        case list():
            for pairs in _product(list(enumerate(tree)), {}):
                yield [pairs[i] for i in range(len(tree))]
        case _:
            yield tree


def resolve(tree: Tree, stream: np.random.Generator) -> Tree:
    """Return the tree with its random values drawn, in the order in which they are written."""
    match tree:
        case LogUniform() | Uniform() | RandInt() | Choice():
            return resolve(tree.draw(stream), stream)
        case dict():
            return {key: resolve(value, stream) for key, value in tree.items()}
        case list():
            return [resolve(value, stream) for value in tree]
        case _:
            return tree


def distributions(tree: Tree, path: Path = ()) -> Iterator[tuple[Path, Distribution]]:
    """Yield every distribution of the tree with its path; those inside options are not entered."""
    if isinstance(tree, Distribution):
        yield path, tree
        return
    children = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in children:
        yield from distributions(value, (*path, key))


def dotted(path: Path) -> str:
    """Return the path as it is written on the command line: stages.0.optimizer.rho."""
    return ".".join(str(part) for part in path)


def _extremes(tree: Tree) -> Iterator[Tree]:
    """Yield the tree with one range after the other at its ends and the rest drawn, ranges inside options too."""
    base = resolve(tree, generator(("validate",)))
    yield base
    for path, distribution in distributions(tree):
        for end in distribution.ends():
            for constants in _extremes(end):
                yield _with(base, path, constants)


def _product(items: list[tuple[Any, Tree]], chosen: dict[Any, Tree]) -> Iterator[dict[Any, Tree]]:
    if not items:
        yield dict(chosen)
        return
    (key, value), rest = items[0], items[1:]
    for option in expand(value):
        yield from _product(rest, {**chosen, key: option})


def _free(tree: Tree, constants: Tree, path: Path = ()) -> Iterator[Path]:
    """Yield the paths of what was free; an option that is a mapping counts by its kind and its own free values.

    A variant is told by its method, and counts by its own free values alone.
    """
    if isinstance(tree, Grid | Choice):
        if path == (VARIANT,):
            option = next(option for option in tree.options if _gives(option, constants))
            yield from _free(option, constants, path)
        elif isinstance(constants, dict) and "kind" in constants:
            yield from ((*path, name) for name in ("kind", "name") if name in constants)
            option = next(option for option in tree.options if _gives(option, constants))
            yield from _free(option, constants, path)
        else:
            yield path
    elif isinstance(tree, Distribution):
        yield path
    elif isinstance(tree, dict) and isinstance(constants, dict):
        for key, value in tree.items():
            if key in constants:
                yield from _free(value, constants[key], (*path, key))
    elif isinstance(tree, list) and isinstance(constants, list):
        for index, value in enumerate(tree):
            yield from _free(value, constants[index], (*path, index))


def _gives(option: Tree, constants: Tree) -> bool:
    """Tell whether these constants can have come from this option."""
    match option:
        case Grid() | Choice():
            return any(_gives(inner, constants) for inner in option.options)
        case LogUniform() | Uniform() | RandInt():
            return True
        case dict():
            return (
                isinstance(constants, dict)
                and option.keys() == constants.keys()
                and all(_gives(value, constants[key]) for key, value in option.items())
            )
        case list():
            return isinstance(constants, list) and len(option) == len(constants) and all(map(_gives, option, constants))
        case _:
            return bool(option == constants)


def _at(tree: Tree, path: Path) -> Any:
    for part in path:
        tree = tree.get(part) if isinstance(tree, dict) else tree[part]
    return tree


def _with(tree: Tree, path: Path, value: Any) -> Tree:
    """Return a copy of the tree with the value at the path."""
    if not path:
        return value
    head, rest = path[0], path[1:]
    if isinstance(tree, list):
        return [_with(child, rest, value) if i == head else child for i, child in enumerate(tree)]
    return {**tree, head: _with(tree[head], rest, value)}
