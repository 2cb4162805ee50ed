"""Resumed runs: settings from config.json, what is refused there, and edits since the first start."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
import yaml
from pydantic import BaseModel

from distributed_tuner.config.base import Names
from distributed_tuner.config.experiment import Experiment
from distributed_tuner.config.task import FileTaskConfig
from distributed_tuner.errors import ConfigError, RunDirectoryError
from distributed_tuner.preflight.prepare import prepare, prepare_again
from distributed_tuner.preflight.prepared import Prepared
from distributed_tuner.runs.directory import RunDirectory, write_json
from distributed_tuner.runs.resuming import reached, require_unedited

SPACE = """
name: mine
task: {kind: demo, shots: 4, test_limit: 20}
oracle: {kind: analytic}
prompt: {length: 4}
stages: [{kind: search, optimizer: {kind: zot, learning_rate: !loguniform [0.01, 3]}}]
samples: 2
budget: {queries: 50}
"""


@pytest.fixture
def space(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(SPACE)
    return path


def begun(space: Path, *overrides: str) -> RunDirectory:
    """Write the config.json of a run."""
    directory = RunDirectory(space.parent / "run")
    directory.create()
    prepared = prepare(space, list(overrides))
    write_json(directory.config, config_of(prepared) | {"root": str(space.parent)})
    return directory


def config_of(prepared: Prepared) -> dict[str, Any]:
    return {
        "experiment": prepared.experiment.model_dump(mode="json"),
        "trials": [plan.to_json() for plan in prepared.plans],
        "space": prepared.space,
    }


def edited(directory: RunDirectory, edit: Callable[[dict[str, Any]], object]) -> None:
    config = json.loads(directory.config.read_text())
    edit(config)
    write_json(directory.config, config)


# --------------------------------------------------------------------------------------------- the space
def test_the_same_space_is_the_same_however_it_is_written(space: Path) -> None:
    directory = begun(space)
    text = SPACE.replace("queries: 50", "queries:   50").replace("[0.01, 3]", "[1.0e-2, 3.0]")
    space.write_text(f"# mine\n{text}")
    assert "going on with the settings of" in require_unedited(directory, space, [])


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("queries: 50", "queries: 200", "budget.queries was 50 and is 200"),
        ("[0.01, 3]", "[0.01, 1]", "learning_rate.!loguniform.1 was 3.0 and is 1.0"),
        ("samples: 2", "samples: 3", "samples was 2 and is 3"),
        ("budget: {queries: 50}", "", 'budget was {"queries": 50} and is left out'),
        ("samples: 2", "samples: 2\nseed: 1", "seed was left out and is 1"),
    ],
)
def test_an_edit_is_refused_with_the_place_and_both_values(space: Path, old: str, new: str, says: str) -> None:
    directory = begun(space)
    space.write_text(SPACE.replace(old, new))
    with pytest.raises(ConfigError) as told:
        require_unedited(directory, space, [])
    for part in (says, str(space), "undo the edit", "--out", "leave the search space out"):
        assert part in str(told.value)


def test_what_was_set_need_not_be_set_again_and_is_told(space: Path) -> None:
    directory = begun(space, "budget.queries=80")
    assert "begun with --set budget.queries=80" in require_unedited(directory, space, [])
    assert "--set" not in require_unedited(directory, space, ["budget.queries=80"])
    assert require_unedited(directory, space, ["budget={queries: 80}", "name=mine"]), "another way to say the same"
    with pytest.raises(ConfigError, match=r"--set differs from .*: budget\.queries was 80 and is 200"):
        require_unedited(directory, space, ["budget.queries=200"])


def test_without_a_space_what_is_set_is_held_against_the_run_s_own(space: Path) -> None:
    directory = begun(space, "budget.queries=80")
    assert "going on" in require_unedited(directory, None, ["budget.queries=80"])
    with pytest.raises(ConfigError, match=r"budget\.queries was 80 and is 200"):
        require_unedited(directory, None, ["budget.queries=200"])


def test_a_run_that_kept_no_space_says_that_it_is_not_compared(space: Path) -> None:
    directory = begun(space)
    edited(directory, lambda config: config.pop("space"))
    assert "holds no search space" in require_unedited(directory, space, [])


def test_keys_and_values_that_json_does_not_have_are_the_same_again(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    (tmp_path / "d.jsonl").write_text(
        "".join(json.dumps({"text": f"film {i}", "label": i % 2}) + "\n" for i in range(30))
    )
    task = {"kind": "file", "train": "d.jsonl", "text": "text", "label": "label", "template": "{text} It{label_word}"}
    tree = yaml.safe_load(SPACE.replace("!loguniform [0.01, 3]", "0.1"))
    tree["task"] = task | {"label_words": {0: " bad", 1: " good"}, "shots": 4, "manual_prompt": "Judge."}
    path.write_text(yaml.safe_dump(tree))
    assert "going on" in require_unedited(begun(path), path, [])


# --------------------------------------------------------------------------------------------- config.json
def test_what_was_written_is_taken_up(space: Path) -> None:
    directory = begun(space)
    again = prepare_again(directory, space.parent)
    assert again.plans == prepare(space, []).plans


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda c: c.update(newer=1), "'newer', which is not known here and may change numbers"),
        (lambda c: c["trials"][1].update(newer=1), "'trials.1.newer', which is not known here"),
        (lambda c: c["trials"][1]["config"].update(newer=1), "trial 'zot-0001': newer is not a known setting"),
        (lambda c: c["trials"][0]["config"]["oracle"].update(newer=1), "oracle.newer is not a known setting"),
        (lambda c: c["experiment"].update(newer=1), "experiment: newer is not a known setting"),
        (lambda c: c["experiment"]["budget"].update(queries=9), "budget.queries is 9 in one and 50 in the other"),
        (lambda c: c.update(trials=[]), "'trials' is not"),
        (lambda c: c["trials"][0].pop("index"), "'trials.0.index' is not"),
        (lambda c: c["trials"][0].update(config=[1]), "'trials.0.config' is not"),
        (lambda c: c.update(root=3), "'root' is not"),
        (lambda c: c.update(space={"written": {}}), "'space.overrides' is not"),
    ],
)
def test_a_key_that_is_not_known_or_a_value_that_no_run_wrote_is_refused(
    space: Path, edit: Callable[[dict[str, Any]], object], says: str
) -> None:
    directory = begun(space)
    edited(directory, edit)
    with pytest.raises(RunDirectoryError) as told:
        prepare_again(directory, space.parent)
    assert says in str(told.value)
    assert str(directory.config) in str(told.value)


@pytest.mark.parametrize("kind", ["restart", "screen"])
def test_an_instruction_that_names_a_file_is_refused(kind: str, space: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("precious")
    asking = {"kind": kind, "proposer": {"kind": "local", "instruction": "secret.txt"}}
    directory = begun(space)

    def with_proposer(config: dict[str, Any]) -> None:
        for trial in config["trials"]:
            if kind == "screen":
                trial["config"]["screen"] = asking
            else:
                trial["config"]["stages"].append(asking)
        config["experiment"] = config["trials"][0]["config"]

    edited(directory, with_proposer)
    with pytest.raises(RunDirectoryError, match=r"the template itself, but .* names a file, 'secret.txt'"):
        prepare_again(directory, space.parent)


# --------------------------------------------------------------------------------------------- what is reached
def test_what_the_settings_name_outside_of_the_run_is_told(space: Path, tmp_path: Path) -> None:
    oracle = {"kind": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1", "cache": "kept", "tokenizer": "t"}
    local = {"kind": "openai", "model": "writer", "base_url": "http://127.0.0.1:8/v1", "api_key_env": "OTHER"}
    stages = [{"kind": "search", "optimizer": {"kind": "token_edit"}}, {"kind": "restart", "proposer": local}]
    tree = yaml.safe_load(SPACE.replace("!loguniform [0.01, 3]", "0.1")) | {"oracle": oracle, "stages": stages}
    experiment = Experiment.model_validate(tree | {"prompt": {"kind": "text"}, "loggers": ["wandb"]})
    plan = prepare(space, []).plans[0]
    assert set(reached([replace(plan, experiment=experiment)] * 2, tmp_path)) == {
        "directory: kept",
        "model: m, t, writer",
        "server: http://127.0.0.1:9/v1, http://127.0.0.1:8/v1",
        "environment variable: OPENAI_API_KEY, OTHER",
    }
    task = FileTaskConfig(
        kind="file",
        train="a.csv",
        text="text",
        label="label",
        template="{text}{label_word}",
        label_words={"0": "a", "1": "b"},
    )
    told = reached([replace(plan, experiment=experiment.model_copy(update={"task": task}))], tmp_path)
    assert {"file: a.csv", f"folder of relative paths: {tmp_path}"} <= set(told)


PLAIN = {
    "templates",
    "name",
    "experiment",
    "project",
    "optimizer",
    "revision",
    "text",
    "instruction",
    "template",
    "description",
}
PLAIN |= {"system", "extra_body"}
PLAIN |= {"settings"}  # of a part of the user's own, whose module is marked
PLAIN |= {
    "manual_prompt",
    "instructions",
    "label",
    "label_words",
    "target",
    "answer_words",
    "explore",
}  # words, columns, labels, paths of settings


def test_every_setting_that_takes_any_text_is_marked_or_known_to_name_nothing() -> None:
    found = {(name, marked) for name, marked in _texts(Experiment, set())}
    assert {name for name, marked in found if not marked} == PLAIN
    assert {"model", "base_url", "api_key_env", "python", "cache", "train", "ledger"} <= {n for n, m in found if m}


def _members(annotation: Any) -> list[Any]:
    """Return a type, or the members of a union."""
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    if get_origin(annotation) not in (Union, UnionType):
        return [annotation]
    return [one for part in get_args(annotation) for one in _members(part)]


def _texts(kind: Any, seen: set[Any]) -> Any:
    """Yield the settings below a class of them that take any text, and whether they are marked."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        if kind in seen:
            return
        seen.add(kind)
        for name, field in kind.model_fields.items():
            if any(one is str or str in get_args(one) for one in _members(field.annotation)):
                yield name, any(isinstance(mark, Names) for mark in field.metadata)
            yield from _texts(field.annotation, seen)
    for part in get_args(kind):
        yield from _texts(part, seen)
