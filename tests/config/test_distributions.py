"""Free values: what the YAML tags make, what they draw, and what they refuse."""

import numpy as np
import pytest

from distributed_tuner.config.distributions import Choice, Grid, LogUniform, RandInt, Uniform
from distributed_tuner.config.load import parse
from distributed_tuner.errors import ConfigError


@pytest.mark.parametrize(
    ("yaml", "made"),
    [
        ("!loguniform [0.01, 3]", LogUniform(0.01, 3.0)),
        ("!loguniform [1e-3, 1e-1]", LogUniform(1e-3, 1e-1)),  # YAML reads a bare 1e-3 as text
        ("!uniform [-1, 1]", Uniform(-1.0, 1.0)),
        ("!randint [1, 4]", RandInt(1, 4)),
        ("!choice [a, 1, true]", Choice(("a", 1, True))),
        ("!grid [0, {kind: zot, rho: !uniform [0, 1]}]", Grid((0, {"kind": "zot", "rho": Uniform(0.0, 1.0)}))),
    ],
)
def test_a_tag_makes_its_distribution(yaml: str, made: object) -> None:
    assert parse(yaml) == made


def test_draws_stay_in_their_range_and_fill_it() -> None:
    stream = np.random.default_rng(0)
    logs = [LogUniform(1e-3, 1e1).draw(stream) for _ in range(400)]
    assert all(1e-3 <= value < 1e1 for value in logs)
    assert 0.3 < sum(value < 0.1 for value in logs) / 400 < 0.7  # half of the range in the logarithm, 1 % of it plainly
    assert {RandInt(2, 5).draw(stream) for _ in range(100)} == {2, 3, 4}
    plain = [Uniform(-1.0, 3.0).draw(stream) for _ in range(400)]
    assert all(-1 <= value < 3 for value in plain)
    assert 0.8 < np.mean(plain) < 1.2
    assert {Choice(("a", "b", "c")).draw(stream) for _ in range(100)} == {"a", "b", "c"}


def test_the_ends_of_an_integer_range_can_both_be_drawn() -> None:
    assert RandInt(2, 5).ends() == (2, 4)


@pytest.mark.parametrize(
    ("yaml", "holds"),
    [
        ("!uniform [1, 0.5]", ["low < high", "[1.0, 0.5]", "swap"]),
        ("!uniform [1, 1]", ["low < high"]),
        ("!loguniform [0, 1]", ["low > 0", "0.0", "!uniform"]),
        ("!randint [0.5, 4]", ["integers", "0.5", "!uniform"]),
        ("!uniform [1, 2, 3]", ["two numbers", "[1, 2, 3]"]),
        ("!uniform [low, high]", ["two numbers", "['low', 'high']"]),
        ("!randint [1, .inf]", ["finite", "inf"]),
        ("!uniform [.nan, 1]", ["finite", "nan"]),
        ("!choice []", ["at least one option", "none"]),
        ("!grid []", ["at least one option", "none"]),
        ("!uniform 3", ["needs a list"]),
        ("!choice [1, {kind: zot, rho: !grid [1, 2]}]", ["!choice cannot hold a !grid"]),
    ],
)
def test_a_wrong_distribution_is_refused_with_its_place(yaml: str, holds: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(f"seed: 0\nvalue: {yaml}\n", "space.yaml")
    for part in [*holds, "space.yaml, line 2, column 8"]:
        assert part in str(refused.value)


def test_an_unknown_tag_names_the_nearest_and_its_place() -> None:
    message = r"!loguniforn is not .* \(s\.yaml, line 2, column 6\); did you mean !loguniform"
    with pytest.raises(ConfigError, match=message):
        parse("a:\n  b: !loguniforn [1, 2]\n", "s.yaml")


def test_a_tag_unlike_any_lists_all() -> None:
    with pytest.raises(ConfigError, match=r"!zzz .* known: !loguniform, !uniform, !randint, !choice, !grid"):
        parse("a: !zzz [1]")
