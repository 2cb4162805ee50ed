"""Messages for users of Python name arguments; the same ones of the command line name places in a search space."""

from typing import Any

import pytest

from distributed_tuner import Analytic, PromptClassifier, tune
from distributed_tuner.config.space import draw_trials
from distributed_tuner.errors import ConfigError
from distributed_tuner.python_messages import as_arguments

TEXTS, LABELS = ["good film", "great story", "bad plot", "dull story"] * 8, ["p", "p", "n", "n"] * 8
SPACE: dict[str, Any] = {
    "name": "one",
    "task": {"kind": "demo"},
    "oracle": {"kind": "analytic"},
    "stages": [{"kind": "search", "optimizer": {"kind": "zot"}}],
}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            {"optimizer": {"kind": "zot", "rho": -1}},
            'optimizer={"rho": ...}: input should be greater than 0, but got -1',
        ),
        ({"optimizer": "zott"}, "optimizer must be one of random_search, zot"),
        ({"optimizer": {"rho": 1}}, 'optimizer={"kind": ...} is required'),
        ({"optimizer": 3}, "optimizer must be settings"),
        ({"budget": -3}, 'budget={"queries": ...}: input'),
        ({"budget": {"quries": 3}}, 'budget={"quries": ...} is not a known setting; did you mean'),
        ({"head": "nope"}, "head must be one of"),
        ({"head": "vocabulary"}, 'set head="bias", or another model'),
        ({"objective": {"head": "vocabulary"}}, 'set head="vocabulary", or objective={"head": "bias"}'),
        ({"prompt": {"length": 0}}, 'prompt={"length": ...}'),
        ({"seed": -1}, "seed: input"),
        ({"instruction": 3}, "instruction: input should be a valid string, but got 3; quote it"),
        ({"label_words": {"p": " good"}}, "label_words: at least 2 label words"),
        ({"shots": 0}, "shots: input"),
        ({"settings": {"rounds": 0}}, 'settings={"rounds": ...}: input'),
        ({"settings": {"task": {"loss": "x"}}}, 'settings={"task": {"loss": ...}}: input'),
        (
            {"settings": {"stages": [{"kind": "search", "optimizer": {"kind": "zot", "rho": -1}}]}},
            'settings={"stages": [{"optimizer": {"rho": ...}}]}: input',
        ),
    ],
)
def test_a_setting_is_named_by_its_argument(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as error:
        tune(Analytic(), (TEXTS, LABELS), progress=False, **given)
    message = str(error.value)
    assert message.startswith(told) or told in message
    assert "search space" not in message and "--set" not in message and "stages.0" not in message


def test_a_model_s_setting_is_named_by_model() -> None:
    with pytest.raises(ConfigError, match=r'^model=\{"width": \.\.\.\}: input .* change the argument$'):
        tune({"kind": "analytic", "width": -1}, (TEXTS, LABELS), progress=False)


def test_the_classifier_names_its_own_arguments() -> None:
    with pytest.raises(ConfigError, match=r"^random_state: input should be"):
        PromptClassifier(Analytic(), random_state=-1).fit(TEXTS, LABELS)
    with pytest.raises(ConfigError, match=r'^optimizer={"rho": ...}: input should be'):
        PromptClassifier(Analytic(), optimizer={"kind": "zot", "rho": -1}).fit(TEXTS, LABELS)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"stages": [{"kind": "search", "optimizer": {"kind": "zot", "rho": -1}}]}, "stages.0.optimizer.rho: input"),
        ({"budget": {"queries": -3}}, "budget.queries: input"),
    ],
)
def test_the_same_messages_name_places_in_a_search_space(changed: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as error:
        draw_trials(SPACE | changed)
    assert str(error.value).startswith(told) and "in the search space or with --set" in str(error.value)


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("set prompt.init: zeros, or give it a codec", 'set prompt={"init": "zeros"}, or give it a codec'),
        ("set oracle.kind: transformers", 'set model={"kind": "transformers"}'),
        ("leave out task.metric: f1", 'leave out metric="f1"'),
        ("or set task.loss: zero_one", 'or set settings={"task": {"loss": "zero_one"}}'),
        ("shorten prompt.length, or drop", 'shorten prompt={"length": ...}, or drop'),
        ("oracle.max_tokens: 2000, say", 'model={"max_tokens": 2000}, say'),
        ("the budget must pay; the task: it has", "the budget must pay; the task: it has"),
        ("see docs/heads.md, head.npz and 'prompt.txt'", "see docs/heads.md, head.npz and 'prompt.txt'"),
        ("seed 3 of model.float()", "seed 3 of model.float()"),
    ],
)
def test_places_in_the_middle_of_a_message(message: str, told: str) -> None:
    assert as_arguments(message) == told
