"""Messages about invalid search spaces: the path as written, the rule, the value, the next move."""

from typing import Any

import pytest

from distributed_tuner.config.load import parse
from distributed_tuner.config.validation import experiment_of
from distributed_tuner.errors import ConfigError


def tree(**more: str) -> Any:
    """Return a sound space with parts replaced or added."""
    parts = {
        "name": "some",
        "task": "{kind: demo}",
        "oracle": "{kind: analytic}",
        "stages": "[{kind: search, optimizer: {kind: zot}}]",
        **more,
    }
    return {key: parse(text) for key, text in parts.items()}


def test_the_space_that_is_varied_below_is_sound() -> None:
    assert experiment_of(tree()).method == "zot"


@pytest.mark.parametrize(
    ("more", "holds"),
    [
        # unknown keys: full written path, without the tags of unions, and the nearest name
        ({"bugdet": "{queries: 3}"}, ["bugdet is not a known setting", "did you mean 'budget'?"]),
        ({"task": "{kind: demo, shot: 3}"}, ["task.shot is not a known setting", "'shots'"]),
        (
            {"stages": "[{kind: search, optimizer: {kind: zot, leaning_rate: 3}}]"},
            ["stages.0.optimizer.leaning_rate is not", "'learning_rate'"],
        ),
        ({"oracle": "{kind: analytic, tile: {candidate: 3}}"}, ["oracle.tile.candidate is not", "'candidates'"]),
        ({"budget": "{zzzzzz: 3}"}, ["budget.zzzzzz is not", "known here: forwards, queries, seconds, tokens, usd"]),
        (
            {"oracle": "{kind: analytic, actors: {min: 3, max: 2}}"},
            ["oracle.actors: min must be at most max, but is 3 of 2"],
        ),
        ({"oracle": "{kind: analytic, actors: {maxx: 2}}"}, ["oracle.actors.maxx is not", "'max'"]),
        ({"oracle": "{kind: analytic, actors: {min: 2}}"}, ["oracle.actors.max is required"]),
        ({"oracle": "{kind: analytic, actors: 0}"}, ["oracle.actors: input should be greater than or equal to 1"]),
        ({"oracle": "{kind: analytic, actors: many}"}, ["oracle.actors: input should be a valid integer", "'many'"]),
        ({"oracle": "{kind: analytic, model: gpt2}"}, ["oracle.model is not", "known here:", "function"]),
        # values out of range
        (
            {"stages": "[{kind: search, optimizer: {kind: zot, rho: 0}}]"},
            ["stages.0.optimizer.rho:", "greater than 0", "but got 0;", "--set"],
        ),
        ({"budget": "{queries: 0}"}, ["budget.queries:", "greater than or equal to 1", "but got 0"]),
        ({"prompt": "{length: 0}"}, ["prompt.length:", "but got 0"]),
        ({"budget": "{seconds: .inf}"}, ["budget.seconds:", "finite", "inf"]),
        ({"prompt": "{layout: sideways}"}, ["prompt.layout:", "'prefix'", "'suffix'", "but got 'sideways'"]),
        ({"task": "{kind: demo, metric: [accuracy, accuracy]}"}, ["task.metric", "different names"]),
        ({"name": "a/b"}, ["name:", "but got 'a/b'"]),
        ({"stages": "[]"}, ["stages:", "at least 1 item", "but got []"]),
        # wrong types
        ({"seed": "one"}, ["seed:", "integer", "but got 'one'"]),
        ({"budget": "3"}, ["budget:", "but got 3"]),
        ({"seed": "[1, 2]"}, ["seed:", "but got [1, 2]"]),
        (
            {"task": "{kind: file, train: a.csv, label: y, template: t, label_words: {a: b, c: d}, text: 3}"},
            ["task.text: ", "string", "but got 3", "quote it"],
        ),
        (
            {"task": "{kind: file, train: a.csv, text: t, template: t, label_words: {a: b, c: d}, label: no}"},
            ["task.label: ", "quote it"],
        ),
        ({"task": "{kind: demo, label_words: {a: x, a.0: [y]}}"}, ["task.label_words", "string", "but got ['y']"]),
        # missing
        ({"stages": "[{kind: search}]"}, ["stages.0.optimizer is required", "add it"]),
        ({"task": "{kind: file, train: a.jsonl}"}, ["task.template is required"]),
        # kinds
        (
            {"stages": "[{kind: search, optimizer: {kind: zott}}]"},
            ["stages.0.optimizer.kind must be one of", "zot, surrogate, cma", "but got 'zott'", "did you mean 'zot'?"],
        ),
        ({"oracle": "{kind: tgi}"}, ["oracle.kind must be one of transformers, analytic, vllm", "but got 'tgi'"]),
        ({"task": "{kind: sst3}"}, ["task.kind must be one of", "did you mean 'sst2'?"]),
        ({"prompt": "{kind: words}"}, ["prompt", "text"]),
        ({"screen": "{template: [x]}"}, ["screen.template is not a known setting", "'templates'"]),
        ({"screen": "{zzzzzz: 3}"}, ["screen.zzzzzz is not", "known here: demonstrations, finalists, instructions,"]),
        ({"screen": "{templates: '{label_word}'}"}, ["screen.templates: input should be a list, but got"]),
        ({"screen": "{verbalizers: [[a, b]]}"}, ["screen.verbalizers.0: input should be a mapping, but got"]),
        ({"prompt": "{kind: text, layout: suffix}"}, ["prompt.layout is not a known setting", "vocabulary"]),
        ({"oracle": "{width: 3}"}, ["oracle.kind is required"]),
        ({"stages": "[{optimizer: {kind: zot}}]"}, ["stages.0.kind is required"]),
        ({"stages": "[{kind: serch, optimizer: {kind: zot}}]"}, ["stages.0.kind", "'search'", "but got 'serch'"]),
    ],
)
def test_a_broken_rule_is_told_with_its_path_value_and_next_move(more: dict[str, str], holds: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        experiment_of(tree(**more))
    for part in holds:
        assert part in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("key", ["name", "task", "oracle", "stages"])
def test_what_has_no_default_is_required(key: str) -> None:
    some = tree()
    del some[key]
    with pytest.raises(ConfigError, match=f"^{key} is required, but it is missing; add it"):
        experiment_of(some)


def test_an_unknown_key_is_told_before_other_errors_because_it_often_explains_them() -> None:
    with pytest.raises(ConfigError, match=r"^task\.trian is not .* did you mean 'train'"):
        experiment_of(tree(task="{kind: file, trian: a.jsonl}"))


def test_further_errors_are_counted() -> None:
    with pytest.raises(ConfigError, match=r"1 more after this one"):
        experiment_of(tree(seed="-1", samples="0"))
