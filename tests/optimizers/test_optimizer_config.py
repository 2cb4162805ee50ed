"""The settings as a discriminated union, and what ``build`` refuses."""

import ast
import inspect
import itertools

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from distributed_tuner.config.base import Config
from distributed_tuner.config.first_order import FirstOrderConfig
from distributed_tuner.config.optimizer import OptimizerConfig, TokenEditConfig, ZotConfig
from distributed_tuner.errors import ConfigError
from distributed_tuner.optimizers import build

ADAPTER: TypeAdapter[OptimizerConfig] = TypeAdapter(OptimizerConfig)
FIRST_ORDER: TypeAdapter[FirstOrderConfig] = TypeAdapter(FirstOrderConfig)
KINDS = [
    *((ADAPTER, kind) for kind in ("random_search", "zot", "cma", "nevergrad", "token_edit")),
    *((FIRST_ORDER, kind) for kind in ("adamw", "sgd")),
]


@pytest.mark.parametrize(("adapter", "kind"), KINDS)
def test_the_kind_alone_makes_a_config_and_its_label(adapter, kind):
    config = adapter.validate_python({"kind": kind})
    assert config.kind == config.label == kind
    assert adapter.validate_python({"kind": kind, "name": "mine"}).label == "mine"
    assert adapter.validate_json(adapter.dump_json(config)) == config


@pytest.mark.parametrize(
    "broken",
    [
        {"kind": "zot", "rho": 0},
        {"kind": "zot", "momentum": 1.0},
        {"kind": "zot", "clip": -1},
        {"kind": "zot", "learning_rate": float("nan")},
        {"kind": "zot", "intrinsic_dim": 10},
        {"kind": "cma", "intrinsic_dim": 1},
        {"kind": "cma", "popsize": 1},
        {"kind": "cma", "race_block": -1},
        {"kind": "nevergrad", "race_block": 8},
        {"kind": "random_search", "sigma": 0},
        {"kind": "nevergrad", "num_workers": 0},
        {"kind": "nevergrad", "space": "words", "words": 1},
        {"kind": "token_edit", "edits": 0.5},
        {"kind": "token_edit", "parents": 0},
        {"kind": "adam"},
    ],
)
def test_values_out_of_range_are_refused(broken):
    with pytest.raises(ValidationError):
        ADAPTER.validate_python(broken)


@pytest.mark.parametrize(
    "broken",
    [
        {"kind": "adamw", "beta1": 1.0},
        {"kind": "adamw", "eps": 0},
        {"kind": "adamw", "momentum": 0.9},
        {"kind": "sgd", "learning_rate": 0},
        {"kind": "sgd", "clip": -1},
        {"kind": "sgd", "batch_size": 0},
        {"kind": "zot"},
    ],
)
def test_first_order_values_out_of_range_are_refused(broken):
    with pytest.raises(ValidationError):
        FIRST_ORDER.validate_python(broken)


def described(config: type) -> set[str]:
    """Return the fields of a config that have a docstring below them, in its class or where it comes from."""
    found: set[str] = set()
    for one in config.__mro__[: config.__mro__.index(Config)]:
        (tree,) = ast.parse(inspect.getsource(one)).body
        for field, below in itertools.pairwise(tree.body):
            if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr) and ast.unparse(below).strip("'\""):
                found.add(ast.unparse(field.target))
    return found


def test_every_field_is_described():
    for adapter, kind in KINDS:
        config = type(adapter.validate_python({"kind": kind}))
        assert [name for name in config.model_fields if name not in described(config)] == []


@pytest.mark.parametrize("start", [np.zeros(4), np.zeros((5, 1)), np.full(5, np.nan)])
def test_a_start_that_does_not_fit_is_refused(start):
    with pytest.raises(ConfigError, match="start must be 5 finite coordinates"):
        build(ZotConfig(), dim=5, key=(1,), steps=3, start=start)


def test_a_search_in_words_needs_words_and_a_text_and_no_other_takes_one():
    for vocabulary in ((), ("good",), ("good", " good ", " ")):
        with pytest.raises(ConfigError, match="at least 2 different words"):
            build(TokenEditConfig(), dim=5, key=(1,), steps=3, vocabulary=vocabulary)
    with pytest.raises(ConfigError, match="starts from a text"):
        build(TokenEditConfig(), dim=5, key=(1,), steps=3, start=np.zeros(5), vocabulary=("good", "bad"))
    with pytest.raises(ConfigError, match="starts from coordinates"):
        build(ZotConfig(), dim=5, key=(1,), steps=3, start="good")


def test_dim_steps_and_key_are_checked():
    for arguments in ({"dim": 0}, {"steps": 0}, {"key": ()}):
        with pytest.raises(ConfigError, match="at least 1"):
            build(ZotConfig(), **{"dim": 5, "steps": 3, "key": (1,), **arguments})  # type: ignore[arg-type]
