"""Ratios of what two trees measure: rows, turns, targets and verdicts."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from benchmarks.sides import Name
from benchmarks.targets import Verdict

Unit: TypeAlias = Literal["queries/s", "queries/CPU s", "CPU s", "MiB", "s", "loss"]

HEADINGS = ("row", "unit", "here", "REV", "here / REV", "of the rounds", "rounds", "how")


@dataclass(frozen=True, slots=True)
class Pair:
    """What one round found: in this tree, and in the other revision's."""

    here: float
    there: float

    @property
    def ratio(self) -> float | None:
        """This tree's over the other's; None where the other's is nothing."""
        return self.here / self.there if self.there else None


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table, beside so many busy processes. share: of a matrix product's rate, by each tree."""

    name: str
    unit: Unit
    beside: int
    pairs: tuple[Pair, ...]
    how: str = ""
    share: Pair | None = None

    @property
    def here(self) -> float:
        """The median of this tree's."""
        return statistics.median(pair.here for pair in self.pairs)

    @property
    def there(self) -> float:
        """The median of the other's."""
        return statistics.median(pair.there for pair in self.pairs)

    @property
    def ratios(self) -> tuple[float, ...]:
        """Those of the rounds; none of losses' differences, which are rounding."""
        found = () if self.unit == "loss" else tuple(pair.ratio for pair in self.pairs)
        return tuple(ratio for ratio in found if ratio is not None)

    @property
    def ratio(self) -> float | None:
        """The median of the rounds': a machine that slows down meanwhile slows both sides of a round."""
        return statistics.median(self.ratios) if self.ratios else None


def order(number: int) -> tuple[Name, Name]:
    """Return who measures first in a round, and who second: here, there, there, here, and so on."""
    return ("here", "there") if number % 2 == 0 else ("there", "here")


def take_turns(rounds: int, patience: float, measure: Callable[[Name], float]) -> tuple[Pair, ...]:
    """Return what so many rounds found; no other one begins after ``patience`` seconds."""
    pairs: list[Pair] = []
    began = time.perf_counter()
    while len(pairs) < rounds and (not pairs or time.perf_counter() - began < patience):
        found = {name: measure(name) for name in order(len(pairs))}
        pairs.append(Pair(found["here"], found["there"]))
    return tuple(pairs)


def cells(row: Row) -> list[str]:
    """Return a row as text."""
    style = ".1e" if row.unit == "loss" else ".0f" if row.unit == "MiB" else ".2f"
    ratio = "-" if row.ratio is None else f"{row.ratio:.2f}"
    span = f"{min(row.ratios):.2f} to {max(row.ratios):.2f}" if row.ratios else "-"
    numbers = [format(row.here, style), format(row.there, style)]
    return [row.name, row.unit, *numbers, ratio, span, str(len(row.pairs)), row.how]


# ------------------------------------------------------------------------------------------------------ targets
@dataclass(frozen=True, slots=True)
class Target:
    """What a row must reach beside so many busy processes: at least (or ``most``) a bound.

    of: the ratio here / REV, this tree's share of a matrix product's rate, or this tree's own value. amx: only on a
    processor with AMX, or without (None: on any).
    """

    row: str
    beside: int
    bound: float
    most: bool = False
    of: Literal["ratio", "share", "value"] = "ratio"
    amx: bool | None = None

    def __str__(self) -> str:
        what = {"ratio": "here / REV", "share": "share of a matrix product", "value": "here"}[self.of]
        where = {None: "", True: ", with AMX", False: ", without AMX"}[self.amx]
        return f"{self.row}, beside {self.beside}{where}: {what} {'<=' if self.most else '>='} {self.show(self.bound)}"

    def show(self, value: float) -> str:
        """Return a value of this target's kind as text."""
        return {"ratio": f"{value:.2f}x", "share": f"{value:.0%}", "value": f"{value:.1e}"}[self.of]

    def found(self, row: Row) -> float | None:
        """Return what the row has of this target's kind."""
        match self.of:
            case "ratio":
                return row.ratio
            case "share":
                return None if row.share is None else row.share.here
            case "value":
                return max((pair.here for pair in row.pairs), key=lambda value: (value != value, value))


POOL_QUICKSTART, POOL_PREFIX = "pool quickstart", "pool prefix"
ONE_PREFIX, ONE_SUFFIX = "one thread prefix 16", "one thread suffix 8"
LOSSES = "float32 losses"
CHECK, CHECK_DEBUG, HELP = "start-up check quickstart", "start-up check debug", "start-up --help"
FIRST_STEP, FIRST_STEP_DRIVER = "start-up first step debug, all", "start-up first step debug, driver"
MEMORY, RESIDENT, WALL = "memory quickstart", "resident memory quickstart", "wall clock quickstart"

TARGETS = (
    Target(POOL_QUICKSTART, 1, 3.0),
    Target(POOL_PREFIX, 1, 3.0),
    Target(POOL_QUICKSTART, 0, 1.2),
    Target(POOL_PREFIX, 0, 1.2),
    *(Target(row, 0, 2.0, amx=True) for row in (ONE_PREFIX, ONE_SUFFIX)),
    *(Target(row, 0, 0.5, of="share", amx=True) for row in (ONE_PREFIX, ONE_SUFFIX)),
    *(Target(row, 0, 1.2, amx=False) for row in (ONE_PREFIX, ONE_SUFFIX)),
    Target(LOSSES, 0, 1e-4, most=True, of="value"),
    Target(CHECK, 0, 0.5, most=True),
    Target(FIRST_STEP, 0, 0.5, most=True),
    Target(MEMORY, 0, 1.2, most=True),
)


def verdicts(rows: Sequence[Row], amx: bool) -> list[Verdict]:
    """Return the verdict on every target, on a processor with or without AMX."""
    return [verdict(target, rows, amx) for target in TARGETS]


def verdict(target: Target, rows: Sequence[Row], amx: bool) -> Verdict:
    """Return the verdict on one target. NaN is a miss."""
    if target.amx is not None and target.amx != amx:
        return Verdict(str(target), "not on this processor", None)
    row = next((row for row in rows if (row.name, row.beside) == (target.row, target.beside)), None)
    found = None if row is None else target.found(row)
    if row is None or found is None:
        return Verdict(str(target), "-", None)
    met = found <= target.bound if target.most else found >= target.bound
    return Verdict(str(target), target.show(found), met)
