"""Free values of a search space, and the YAML tags that write them.

``!loguniform [low, high]``, ``!uniform [low, high]``, ``!randint [low, high]`` (high excluded) and ``!choice [...]``
are drawn; ``!grid [...]`` is enumerated. A distribution stands wherever a constant could; options of !choice and !grid
may hold distributions themselves.
"""

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from distributed_tuner.errors import ConfigError


@dataclass(frozen=True, slots=True)
class LogUniform:
    """Uniform in the logarithm over [low, high)."""

    low: float
    high: float

    def draw(self, stream: np.random.Generator) -> float:
        return float(math.exp(stream.uniform(math.log(self.low), math.log(self.high))))

    def ends(self) -> tuple[Any, ...]:
        return (self.low, self.high)


@dataclass(frozen=True, slots=True)
class Uniform:
    """Uniform over [low, high)."""

    low: float
    high: float

    def draw(self, stream: np.random.Generator) -> float:
        return float(stream.uniform(self.low, self.high))

    def ends(self) -> tuple[Any, ...]:
        return (self.low, self.high)


@dataclass(frozen=True, slots=True)
class RandInt:
    """An integer in [low, high)."""

    low: int
    high: int

    def draw(self, stream: np.random.Generator) -> int:
        return int(stream.integers(self.low, self.high))

    def ends(self) -> tuple[Any, ...]:
        return (self.low, self.high - 1)


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the options, each as likely."""

    options: tuple[Any, ...]

    def draw(self, stream: np.random.Generator) -> Any:
        return self.options[int(stream.integers(len(self.options)))]

    def ends(self) -> tuple[Any, ...]:
        return self.options


@dataclass(frozen=True, slots=True)
class Grid:
    """Every option, each in trials of its own."""

    options: tuple[Any, ...]

    def ends(self) -> tuple[Any, ...]:
        return self.options


Distribution: TypeAlias = LogUniform | Uniform | RandInt | Choice | Grid

TAGS = ("loguniform", "uniform", "randint", "choice", "grid")


def from_tag(tag: str, values: list[Any], where: str) -> Distribution:
    """Make the distribution of a YAML tag.

    Raises:
        ConfigError: wrong number or order of values, named with ``where``.
    """
    if tag in ("choice", "grid"):
        if not values:
            raise ConfigError(f"!{tag} needs at least one option, but got none ({where}); list the options")
        if tag == "choice" and any(map(_holds_grid, values)):
            raise ConfigError(
                f"!choice cannot hold a !grid, but got one in {values} ({where}); write the grid's options out,"
                " or make the outer one a !grid"
            )
        return (Choice if tag == "choice" else Grid)(tuple(values))
    numbers = _numbers(tag, values, where)
    low, high = numbers
    if low >= high:
        raise ConfigError(f"!{tag} needs low < high, but got [{low}, {high}] ({where}); swap or widen them")
    if tag == "randint":
        if low != int(low) or high != int(high):
            raise ConfigError(f"!randint needs integers, but got [{low}, {high}] ({where}); use !uniform for reals")
        return RandInt(int(low), int(high))
    if tag == "loguniform":
        if low <= 0:
            raise ConfigError(f"!loguniform needs low > 0, but got {low} ({where}); use !uniform, or a positive low")
        return LogUniform(low, high)
    return Uniform(low, high)


def _numbers(tag: str, values: list[Any], where: str) -> tuple[float, float]:
    try:
        low, high = (float(value) for value in values)  # YAML reads a bare 1e-3 as text
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"!{tag} needs [low, high], two numbers, but got {values} ({where}); write !{tag} [0.01, 1.0]"
        ) from error
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ConfigError(f"!{tag} needs finite numbers, but got {values} ({where}); write !{tag} [0.01, 1.0]")
    return low, high


def _holds_grid(tree: Any) -> bool:
    if isinstance(tree, Grid):
        return True
    inner = tree.values() if isinstance(tree, dict) else tree.options if isinstance(tree, Choice) else tree
    return isinstance(tree, dict | list | Choice) and any(map(_holds_grid, inner))
