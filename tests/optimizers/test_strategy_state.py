"""States of a pycma strategy: every number is restored, and nothing but numbers, since pycma evaluates strings."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distributed_tuner.config.optimizer import CmaConfig
from distributed_tuner.errors import StateError
from distributed_tuner.optimizers.cma import Cma
from distributed_tuner.storage.serialization import decode, encode

CASES = [
    pytest.param(CmaConfig(intrinsic_dim=6, popsize=8, bound=5.0), id="bounded"),
    pytest.param(CmaConfig(intrinsic_dim=6, popsize=0), id="pycma's popsize"),
    pytest.param(CmaConfig(intrinsic_dim=4, popsize=5), id="small, with mirrored samples"),
    pytest.param(CmaConfig(intrinsic_dim=2, popsize=2), id="smallest"),
    pytest.param(CmaConfig(intrinsic_dim=300, step_size="tpa"), id="large, two-point adaptation"),
]


def make(config: CmaConfig) -> Cma:
    return Cma(config, dim=40, key=(1, "a", 0), start=np.ones(40, dtype=np.float32))


def advance(optimizer: Cma, steps: int) -> list[np.ndarray]:
    asked = []
    for _ in range(steps):
        candidates = optimizer.ask()
        asked += [candidate.z for candidate in candidates]  # type: ignore[union-attr]
        optimizer.tell([float(np.sum((candidate.z - 1) ** 2)) for candidate in candidates])  # type: ignore[union-attr]
    return asked


def content(value: Any, place: str, seen: set[int]) -> dict[str, Any]:
    """Return every number in pycma's objects with its type, by where it is; without clocks and reasons to stop."""
    if isinstance(value, np.ndarray):
        return {place: (value.dtype, value.shape, value.tobytes())}
    if isinstance(value, int | float | str | np.generic | None):
        return {place: (type(value), repr(value))}
    if isinstance(value, range):
        value = tuple(value)
    if id(value) in seen or type(value).__name__ in ("ElapsedWCTime", "_CMAStopDict"):
        return {}
    seen.add(id(value))
    found: dict[str, Any] = {}
    items: list[tuple[Any, Any]] = list(value.items()) if isinstance(value, dict) else []
    items += list(enumerate(value)) if isinstance(value, list | tuple) else []
    items += list(vars(value).items()) if type(value).__module__.startswith("cma") else []
    for name, inner in items:
        found |= content(inner, f"{place}/{name!r}", seen)
    return found


@pytest.mark.parametrize("before", [0, 1, 12])
@pytest.mark.parametrize("config", CASES)
def test_a_strategy_is_the_same_all_the_way_down(config: CmaConfig, before: int) -> None:
    original, other = make(config), make(config)
    advance(original, before)
    original.inject(np.full(40, 0.5, dtype=np.float32), 1.0, 1.0)
    other.load_state_dict(decode(encode(original.state_dict()), "the state"))
    assert content(other._es, "", set()) == content(original._es, "", set())
    for left, right in zip(advance(original, 4), advance(other, 4), strict=True):
        np.testing.assert_array_equal(left, right)


def test_the_options_are_those_that_the_strategy_was_made_with() -> None:
    original = make(CmaConfig(intrinsic_dim=6, popsize=8, bound=2.0, sigma=0.3))
    advance(original, 3)
    other = make(CmaConfig(intrinsic_dim=6, popsize=12, bound=0.0, sigma=1.0))
    other.load_state_dict(original.state_dict())
    assert other.queries_per_step == 8
    for left, right in zip(advance(original, 3), advance(other, 3), strict=True):
        np.testing.assert_array_equal(left, right)


def test_nothing_but_numbers_is_put_into_a_strategy(tmp_path: Path) -> None:
    """Each of these would have pycma evaluate a string, or call something, in the next step."""
    witness = tmp_path / "witness"
    code = f"open({str(witness)!r}, 'w')"
    for name, value in (
        ("opts", {"tolfun": code, "signals_filename": code}),
        ("inopts", {"popsize": 4}),
        ("sigma", code),
        ("countiter", [code]),
        ("tell", 3),
        ("integer_centering", None),
        ("sm", 3),
        ("mean", np.array([code])),
        ("mean", {"deep": (1, code)}),
    ):
        optimizer = make(CmaConfig(intrinsic_dim=6))
        advance(optimizer, 2)
        state = optimizer.state_dict()
        state["strategy"]["numbers"][name] = value
        with pytest.raises(StateError, match=f"numbers alone, but CMAEvolutionStrategy.{name} is none"):
            make(CmaConfig(intrinsic_dim=6)).load_state_dict(state)
    for name in ("opts", "logger", "timer", "__class__", "__dict__", "sp.weights"):
        state = make(CmaConfig(intrinsic_dim=6)).state_dict()
        state["strategy"]["parts"][name] = {"numbers": {"verbose": 1}, "parts": {}}
        with pytest.raises(StateError, match="has no part"):
            make(CmaConfig(intrinsic_dim=6)).load_state_dict(state)
    assert not witness.exists()


def test_a_state_holds_no_strings_and_no_bytes() -> None:
    optimizer = make(CmaConfig(intrinsic_dim=6, bound=1.0))
    advance(optimizer, 3)

    def strings(value: Any) -> list[Any]:
        if isinstance(value, dict):
            return [one for inner in value.values() for one in strings(inner)]
        if isinstance(value, list | tuple):
            return [one for inner in value for one in strings(inner)]
        return [value] if isinstance(value, str | bytes) else []

    assert strings(optimizer.state_dict()["strategy"]) == []
