"""The state of a pycma strategy as numbers: taken from one, put into another that was made with the same options.

pycma evaluates strings among its options as Python, and keeps functions beside them. So a state holds numbers and
arrays alone: options, functions and clocks are those of the strategy that it is put into.
"""

import copy
from typing import Any

import numpy as np

from distributed_tuner.errors import StateError

LEFT = frozenset(
    {
        *("inputargs", "inopts", "opts", "_es_opts", "params"),  # options
        *("randn", "eigenmethod", "integer_centering"),  # functions
        *("logger", "timer"),
        "_stopdict",  # made anew by every question for it
    }
)
"""Names of attributes that a strategy never changes."""


def taken(strategy: Any) -> dict[str, Any]:
    """Return a copy of all numbers in ``strategy`` and the objects of pycma's that it is made of, by name.

    Raises:
        TypeError: it holds something that this version of ours does not know.
    """
    tree: dict[str, Any] = copy.deepcopy(_tree(strategy, set()))  # at once: arrays that are shared stay so
    return tree


def put(strategy: Any, state: dict[str, Any]) -> None:
    """Put what ``taken`` returned into a strategy that was made with the same options.

    Raises:
        StateError: the state holds something else than numbers, or is of another kind of strategy.
    """
    _put(strategy, copy.deepcopy(state), type(strategy).__name__)


def _tree(part: Any, seen: set[int]) -> dict[str, Any]:
    seen.add(id(part))
    numbers, parts = {}, {}
    for name, value in vars(part).items():
        if name in LEFT:
            continue
        if _is_part(value):
            if id(value) not in seen:
                parts[name] = _tree(value, seen)
        elif _is_numbers(value):
            numbers[name] = value
        elif type(value) is range:
            numbers[name] = tuple(value)
        else:
            raise TypeError(f"pycma's {type(part).__name__}.{name} is no number: {value!r}")
    return {"numbers": numbers, "parts": parts}


def _put(part: Any, state: dict[str, Any], where: str) -> None:
    mine = vars(part)
    for name, value in state["numbers"].items():
        fits = name not in LEFT and not callable(getattr(type(part), name, None))
        if not (fits and _is_numbers(value) and _is_numbers(mine.get(name))):
            raise StateError(f"a strategy's state holds numbers alone, but {where}.{name} is none; start a new run")
        mine[name] = value
    for name, inner in state["parts"].items():
        if name in LEFT or not _is_part(mine.get(name)):
            raise StateError(f"a strategy has no part {where}.{name}, but the state does; start a new run")
        _put(mine[name], inner, f"{where}.{name}")


def _is_part(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] == "cma"


def _is_numbers(value: Any) -> bool:
    """Tell whether a value is a number, an array of numbers, None, or made of them; names may stand as keys only."""
    if type(value) in (list, tuple):
        return all(map(_is_numbers, value))
    if type(value) is dict:
        return all(map(_is_numbers, value.values()))
    if isinstance(value, np.ndarray | np.generic):
        return value.dtype.kind in "biuf"
    return value is None or type(value) in (bool, int, float)
