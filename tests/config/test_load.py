"""Reading a space and setting values on top of it."""

from pathlib import Path
from typing import Any

import pytest

from distributed_tuner.config.distributions import Grid, LogUniform
from distributed_tuner.config.load import apply_override, load_space, parse
from distributed_tuner.errors import ConfigError

SPACE = """
name: some
task: {kind: demo, shots: 8}
stages:
  - kind: search
    optimizer: {kind: zot, rho: 0.1}
budget: {queries: 100}
"""


@pytest.fixture
def space(tmp_path: Path) -> Path:
    path = tmp_path / "some.yaml"
    path.write_text(SPACE, encoding="utf-8")
    return path


def test_a_space_is_read_as_it_is_written(space: Path) -> None:
    assert load_space(space) == {
        "name": "some",
        "task": {"kind": "demo", "shots": 8},
        "stages": [{"kind": "search", "optimizer": {"kind": "zot", "rho": 0.1}}],
        "budget": {"queries": 100},
    }


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("seed=3", ("seed",), 3),  # left out in the YAML
        ("name=other", ("name",), "other"),
        ("budget.queries=50", ("budget", "queries"), 50),
        ("budget.usd=0.5", ("budget", "usd"), 0.5),
        ("stages.0.optimizer.rho=0.2", ("stages", 0, "optimizer", "rho"), 0.2),
        ("optimizer.rho=0.2", ("stages", 0, "optimizer", "rho"), 0.2),  # the only optimizer
        ("optimizer.clip=0", ("stages", 0, "optimizer", "clip"), 0),
        ("schedule.kind=asha", ("schedule", "kind"), "asha"),  # neither level is in the YAML
        ("optimizer.rho=!loguniform [0.1, 1]", ("stages", 0, "optimizer", "rho"), LogUniform(0.1, 1.0)),
        ("seed=!grid [0, 1]", ("seed",), Grid((0, 1))),
        ("optimizer={kind: cma}", ("optimizer",), {"kind": "cma"}),  # one name alone always means the root
        ("task.manual_prompt=a=b", ("task", "manual_prompt"), "a=b"),
    ],
)
def test_an_override_sets_its_place_and_nothing_else(space: Path, override: str, path: Any, value: Any) -> None:
    before, after = load_space(space), load_space(space, [override])
    assert _at(after, path) == value
    assert load_space(space) == before
    assert _without(after, path) == _without(before, path)


WORDS = "{null: ~, no: yes, 1.10: ' x', 0x1F: 2, 12:30: on}"
AS_WRITTEN = {"null": "~", "no": "yes", "1.10": " x", "0x1F": "2", "12:30": "on"}


def test_label_words_are_read_as_they_are_written(space: Path) -> None:
    assert parse(f"task: {{label_words: {WORDS}}}") == {"task": {"label_words": AS_WRITTEN}}
    assert parse(f"task: {{label_words: !grid [{WORDS}, {{a: !grid [no, on]}}]}}")["task"]["label_words"].options == (
        AS_WRITTEN,
        {"a": Grid(("no", "on"))},
    )
    assert parse(f"{{kind: screen, verbalizers: [{WORDS}]}}")["verbalizers"] == [AS_WRITTEN]
    assert parse("task: {label_words: null}") == {"task": {"label_words": None}}
    tree = load_space(space, [f"task.label_words={WORDS}", "task.label_words.no=off", "task.label_words.2=null"])
    assert tree["task"]["label_words"] == AS_WRITTEN | {"no": "off", "2": "null"}
    assert load_space(space, ["task.label_words=null"])["task"]["label_words"] is None
    with pytest.raises(ConfigError, match="'no' occurs twice"):
        parse("label_words: {no: a, 'no': b}")


def test_characters_that_are_escaped_in_halves_are_put_together() -> None:
    assert parse(r'{prompt: "so \ud83d\ude00 \u00e9"}') == {"prompt": "so \U0001f600 \u00e9"}
    with pytest.raises(ConfigError, match=r"half of a surrogate pair \(space, line 1, column 10\)"):
        parse(r'{prompt: "so \ud83d"}', "space")


def test_overrides_apply_in_their_order(space: Path) -> None:
    assert load_space(space, ["seed=1", "seed=2"])["seed"] == 2


def test_an_override_does_not_change_the_tree_that_it_is_given() -> None:
    tree = parse(SPACE)
    apply_override(tree, "optimizer.rho=9")
    assert tree == parse(SPACE)


@pytest.mark.parametrize(
    ("override", "holds"),
    [
        ("seed", ["path=value", "'seed'", "--set budget.queries=500"]),
        ("=3", ["path=value", "'=3'"]),
        ("stages.1.steps=3", ["'1'", "list of 1", "use 0 to 0"]),
        ("stages.first.steps=3", ["'first'", "no index"]),
        ("name.first=3", ["'first'", "'some'", "no mapping"]),
        ("seed=[1", ["--set seed", "line 1"]),
        ("seed=!gird [1]", ["!gird", "!grid", "--set seed"]),
    ],
)
def test_an_override_that_fits_nowhere_is_refused(space: Path, override: str, holds: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        load_space(space, [override])
    for part in holds:
        assert part in str(refused.value)


def test_an_ambiguous_override_lists_every_full_path(space: Path) -> None:
    two = SPACE.replace("budget:", "  - kind: search\n    optimizer: {kind: cma}\nbudget:")
    space.write_text(two, encoding="utf-8")
    with pytest.raises(ConfigError) as refused:
        load_space(space, ["optimizer.name=x"])
    assert "stages.0.optimizer.name, stages.1.optimizer.name" in str(refused.value)
    assert load_space(space, ["stages.1.optimizer.name=x"])["stages"][1]["optimizer"]["name"] == "x"


def test_nothing_is_set_inside_a_distribution(space: Path) -> None:
    space.write_text(SPACE.replace("{kind: zot, rho: 0.1}", "!grid [{kind: zot}, {kind: cma}]"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"'rho' lies inside a distribution; set the whole of it"):
        load_space(space, ["optimizer.rho=1"])


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("name: a\nseed: 0\nname: b\n", ["'name' occurs twice", "line 3, column 1"]),
        ("name: a\ntask: {kind: demo\n", ["must be YAML", "line 3"]),
        ("name: a\n{{x}}: 1\n", ["a key must be a word", "line 2, column 2"]),
        ("{[1]: 2}", ["a key must be a word", "line 1, column 2"]),
        ("- a\n- b\n", ["must be a mapping", "list"]),
        ("", ["must be a mapping", "NoneType"]),
        ("name: a\x07b\n", ["must be YAML", "character"]),
    ],
)
def test_what_is_no_space_is_refused_with_its_place(space: Path, text: str, holds: list[str]) -> None:
    space.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as refused:
        load_space(space)
    for part in [*holds, "some.yaml"]:
        assert part in str(refused.value)


def test_a_duplicate_key_deep_inside_is_refused(space: Path) -> None:
    space.write_text(SPACE.replace("rho: 0.1", "rho: 0.1, rho: 0.2"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"'rho' occurs twice"):
        load_space(space)


def test_text_in_another_encoding_is_refused(space: Path) -> None:
    space.write_bytes("name: é".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"must be UTF-8 text"):
        load_space(space)


def test_a_missing_file_names_the_ones_that_are_there(space: Path) -> None:
    with pytest.raises(ConfigError, match=r"none at .*sone\.yaml.* has some\.yaml"):
        load_space(space.with_name("sone.yaml"))


def _at(tree: Any, path: tuple[Any, ...]) -> Any:
    for part in path:
        tree = tree[part]
    return tree


def _without(tree: Any, path: tuple[Any, ...]) -> Any:
    """Return the tree without the place, and without mappings that held nothing else."""
    if isinstance(tree, list):
        return [_without(child, path[1:]) if i == path[0] else child for i, child in enumerate(tree)]
    rest = {key: value for key, value in tree.items() if key != path[0]}
    if len(path) > 1 and path[0] in tree:
        inner = _without(tree[path[0]], path[1:])
        return {**rest, path[0]: inner} if inner else rest
    return rest
