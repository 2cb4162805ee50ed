"""Wordings that a screen tries in addition to instructions, as far as a model's tokens allow."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import TEXTS, save_tiny

from distributed_tuner import oracles
from distributed_tuner.errors import ConfigError, ModelError, TaskError
from distributed_tuner.oracles.base import LossOracle, evaluation
from distributed_tuner.oracles.wrappers.base import WrappedOracle
from distributed_tuner.preflight.prepare import prepare
from distributed_tuner.preflight.prepared import Prepared
from distributed_tuner.report.text import projection_lines
from distributed_tuner.stages.trial import Trial
from distributed_tuner.tasks.base import Task
from distributed_tuner.values import Evaluation, Request, Text

pytestmark = pytest.mark.model


@pytest.fixture(scope="module", params=["llama", pytest.param("bert", marks=pytest.mark.extended)])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A masked model takes the same way."""
    return save_tiny(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("llama", tmp_path_factory.mktemp("llama"))


class Preferring(WrappedOracle):
    """Says the label where one instruction stands in the longer template."""

    def __init__(self, oracle: LossOracle, instruction: str) -> None:
        super().__init__(oracle)
        self._instruction = instruction

    def evaluate(self, request: Request, timeout: float = math.inf) -> Evaluation:
        found = super().evaluate(request, timeout)
        if request.candidates != (Text(self._instruction),) or len(request.batch.examples[0].cue) < 10:
            return found
        logits = np.zeros_like(found.logits)
        for j, example in enumerate(request.batch.examples):
            logits[:, j, example.label] = 5.0
        return evaluation(logits, request.batch, found.cost)


def prepared(folder: Path, model: Path, screen: dict[str, Any], task: dict[str, Any] | None = None) -> Prepared:
    rows = [{"text": text, "label": ("bad", "good")[i % 2]} for i in range(8) for text in TEXTS]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    masked = "bert" in model.name
    space = {
        "name": "some",
        "task": {
            "kind": "file",
            "train": "train.jsonl",
            "text": "text",
            "label": "label",
            "template": "{text} It was {label_word}",
            "label_words": {"bad": "terrible", "good": "great"},
            "model_family": "masked" if masked else "causal",
            "shots": 4,
        }
        | (task or {}),
        "oracle": {"kind": "transformers", "model": str(model), "dtype": "float32"},
        "head": "bias",
        "prompt": {"length": 2, "init": "zeros", "layout": "prefix"},
        "stages": [
            {"kind": "screen", "demonstrations": [], **screen},
            {"kind": "search", "optimizer": {"kind": "random_search"}},
        ],
        "budget": {"queries": 100},
    }
    (folder / "space.yaml").write_text(json.dumps(space))
    return prepare(folder / "space.yaml", [])


def tried(*given: Any) -> Task:
    (task,) = prepared(*given).plain_tasks
    return task


def test_templates_and_label_words_are_worded_as_the_tasks_own(model: Path, tmp_path: Path) -> None:
    task = tried(
        tmp_path,
        model,
        {
            "templates": ["{text} Verdict: {label_word}", " The movie was{label_word}"],
            "verbalizers": [{"good": "good", "bad": "bad"}, {"good": " great", "bad": "terrible"}],
        },
    )
    assert task.verbalizers == ((" bad", " good"),), "the task's own and the labels' names are the same"
    first, second, *neutral = task.others
    assert first.template == "{text} Verdict: {label_word}" and first.train[0].cue == " Verdict:"
    assert second.template == "{text} The movie was {label_word}"
    assert {other.train[0].text for other in task.others} == {task.train[0].text}
    assert [other.train[0].cue for other in neutral] == ["\nLabel:", "\nAnswer:", " All in all:"]
    assert {other.label_words for other in task.others} == {task.label_words}


def test_without_patterns_nothing_is_tried_but_what_is_given(model: Path, tmp_path: Path) -> None:
    task = tried(tmp_path, model, {"patterns": False})
    assert task.others == () and task.verbalizers == ()


def test_a_head_that_reads_many_words_has_nothing_to_choose_label_words_by(model: Path, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    wide = prepared(tmp_path / "one", model, {})
    assert wide.plain_tasks[0].verbalizers == ((" bad", " good"),)
    space = json.loads((tmp_path / "one" / "space.yaml").read_text())
    (tmp_path / "one" / "space.yaml").write_text(json.dumps(space | {"head": {"kind": "vocabulary", "words": 12}}))
    (task,) = prepare(tmp_path / "one" / "space.yaml", []).plain_tasks
    assert task.verbalizers == () and task.others


@pytest.mark.parametrize(
    ("screen", "message"),
    [
        ({"templates": ["{text} {review} It was{label_word}"]}, "names {review}, which is no column of"),
        ({"templates": ["It was"]}, "needs exactly one {label_word}, got 0"),
        ({"templates": ["{label}: {text} It was{label_word}"]}, "shows the label column {label} to the model"),
        ({"templates": ["{text} It was a{label_word}ly"]}, "screen's template|must end with {label_word}"),
        ({"verbalizers": [{"good": "good"}]}, "at least 2 label words"),
        ({"verbalizers": [{"good": "good", "poor": "bad"}]}, "a word for each label, bad, good, but this one for"),
        ({"verbalizers": [{"good": "good", "bad": "dreadfully"}]}, "must be one token each"),
        ({"verbalizers": [{"good": "good", "bad": "good"}]}, "must be different"),
        ({"templates": [" ".join(["the film"] * 80) + " {text} It was {label_word}"]}, "cannot be tried: .*context"),
    ],
)
def test_what_cannot_be_tried_is_said_before_anything_is_spent(
    model: Path, tmp_path: Path, screen: dict[str, Any], message: str
) -> None:
    if "bert" in model.name and "must end" in message:
        pytest.skip("a masked model reads on")
    with pytest.raises((TaskError, ConfigError, ModelError), match=message):
        prepared(tmp_path, model, screen)


def test_the_baseline_is_one_whatever_screens_try(model: Path, tmp_path: Path) -> None:
    prepared(tmp_path, model, {})
    space = json.loads((tmp_path / "space.yaml").read_text())
    grid = "!grid [[], [' Verdict:{label_word}']]"
    (tmp_path / "space.yaml").write_text(json.dumps(space).replace('"demonstrations": []', f'"templates": {grid}'))
    both = prepare(tmp_path / "space.yaml", [])
    assert len(both.plans) == 2 and len(both.baselines()) == 1
    assert [len(task.others) for task in both.plain_tasks] == [3, 4]


@pytest.mark.parametrize(
    "prompt",
    [
        {"length": 2, "init": "zeros", "layout": "prefix"},
        {"length": 2, "init": "zeros", "layout": "instruction_suffix", "instruction": "Judge"},
        {"kind": "text", "length": 1, "text": "Judge", "vocabulary": "task"},
    ],
    ids=["rows", "rows-behind", "words"],
)
def test_a_trial_asks_no_more_than_was_projected(tmp_path: Path, llama: Path, prompt: dict[str, Any]) -> None:
    """Whatever its screen finds: here the longest instruction, in a long template."""
    kind = "token_edit" if prompt.get("kind") else "random_search"
    prepared(tmp_path, llama, {})
    space = json.loads((tmp_path / "space.yaml").read_text())
    long = "the film that was not the film that was not"
    templates = [" and the movie or the plot of it was{label_word}"]
    screen = space["stages"][0] | {"instructions": [long], "templates": templates, "patterns": False}
    search = {"kind": "search", "optimizer": {"kind": kind}}
    space |= {"prompt": prompt, "stages": [screen, search], "budget": {"queries": 30}, "ensemble": {"size": 3}}
    (tmp_path / "space.yaml").write_text(json.dumps(space))
    ready = prepare(tmp_path / "space.yaml", [])
    (projection,), (plan,), (task,) = ready.projections, ready.plans, ready.tasks
    trial = Trial(plan.trial_id, plan.experiment, task, Preferring(oracles.build(plan.experiment.oracle), long))
    while not trial.done:
        trial.advance()
    spent = trial.progress()
    assert (spent["queries"], spent["forwards"]) == (projection.search.queries, projection.search.forwards)
    assert spent["tokens"] <= projection.search.tokens
    assert ready.ensembles == projection.ensemble and ready.ensembles.forwards == 3 * len(task.test)
    (line,) = (line for line in projection_lines(ready) if line.startswith("test of prompts together"))
    assert f" {ready.ensembles.forwards} " in line


def test_a_test_is_projected_with_the_demonstrations_that_may_win(tmp_path: Path, llama: Path) -> None:
    alone = prepared(tmp_path, llama, {"patterns": False})
    shown = prepared(tmp_path, llama, {"patterns": False, "demonstrations": [2]})
    (less,), (more,) = alone.projections, shown.projections
    assert less.measurement.queries == more.measurement.queries == 1
    longest = sorted((example.text for example in shown.tasks[0].train), key=len)[-2:]
    words = sum(len(text.split()) for text in longest)  # a word is a token or more
    assert more.measurement.tokens >= less.measurement.tokens + words * len(shown.tasks[0].test)
    assert any(line.startswith("tests, at most") for line in projection_lines(shown))
