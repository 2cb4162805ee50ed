"""Targets of the loss oracle, and whether a run reached them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.rows import Block, Case, Row

HEADLINE = Case(Block("SST-2", 50), "prefix", "prefix", "bfloat16", 20)
LONG_TEXTS = Case(Block("150 tokens", 10), "suffix", "suffix", "bfloat16", 20)
QUICKSTART = Case(Block("quickstart", 3), "suffix", "suffix", "bfloat16", 20)
EQUALITY = 1e-4
PEAK_GIB = 2.5
MANY = 20  # candidates at which memory is claimed


@dataclass(frozen=True, slots=True)
class Verdict:
    """A target, what was measured, and whether that meets it. None: not measured."""

    target: str
    measured: str
    met: bool | None

    def __str__(self) -> str:
        word = {True: "met", False: "MISSED", None: "not measured"}[self.met]
        return f"{word:<12}  {self.target}: {self.measured}"


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """Return the verdict on every target, met or not."""
    head, long, quick = (find(rows, case) for case in (HEADLINE, LONG_TEXTS, QUICKSTART))
    prefix = "prefix, bfloat16, P = 20, L = 50, SST-2-like"
    suffix = "suffix, bfloat16, P = 20, L = 10, 150-token texts"
    return [
        at_least(f"{prefix}: queries/s over plain bfloat16", head, "times_plain", 5.0, _times),
        at_least(f"{prefix}: the same, as aimed at", head, "times_plain", 7.0, _times),
        at_least(f"{prefix}: queries/s over plain float32", head, "times_plain_float32", 12.0, _times),
        at_least(f"{prefix}: useful rate over the matrix product's", head, "share_of_matmul", 0.5, _percent),
        at_least(f"{suffix}: queries/s over plain bfloat16", long, "times_plain", 10.0, _times),
        at_least("a request of the quickstart: queries/s over plain bfloat16", quick, "times_plain", 3.0, _times),
        equality(rows),
        noise(rows),
        memory(rows),
    ]


def at_least(what: str, row: Row | None, column: str, target: float, show: Callable[[float], str]) -> Verdict:
    """Return the verdict on a row's value that must not be smaller."""
    value = None if row is None else getattr(row, column)
    return Verdict(
        f"{what} >= {show(target)}",
        "-" if value is None else show(value),
        None if value is None else value >= target,
    )


def equality(rows: Sequence[Row]) -> Verdict:
    """float32 losses are those of the plain form. NaN is a miss."""
    checked = [row.difference for row in rows if row.dtype == "float32" and row.difference is not None]
    most = max(checked, default=None, key=_nan_is_most)
    measured = "-" if most is None else f"{most:.1e} in {len(checked)} rows"
    target = f"float32 losses of every layout are the plain form's within {EQUALITY:.0e}"
    return Verdict(target, measured, None if most is None else most <= EQUALITY)


def noise(rows: Sequence[Row]) -> Verdict:
    """bfloat16 differs from the plain form in bfloat16 by rounding alone."""
    known = [row for row in rows if row.within_noise is not None]
    outside = [row for row in known if not row.within_noise]
    measured = f"{len(known) - len(outside)} of {len(known)} rows" if known else "-"
    target = "bfloat16 losses of every layout are the plain form's within calibration's rounding noise"
    return Verdict(target, measured, not outside if known else None)


def memory(rows: Sequence[Row]) -> Verdict:
    """The process stays small with all candidates of a request at once; rows that asked for fewer are left out."""
    full = [row for row in rows if row.method != "plain" and row.asked >= MANY]
    most = max((row.peak_gib for row in full), default=None)
    measured = "-" if most is None else f"{most:.2f} GiB at most in {len(full)} rows"
    target = f"peak memory of the process at P = {MANY} < {PEAK_GIB} GiB"
    return Verdict(target, measured, None if most is None else most < PEAK_GIB)


def find(rows: Sequence[Row], case: Case) -> Row | None:
    """Return the row of a case."""
    wanted = (case.block.texts, case.block.length, case.candidates, case.dtype, case.method)
    return next((r for r in rows if (r.texts, r.length, r.candidates, r.dtype, r.method) == wanted), None)


def _nan_is_most(value: float) -> float:
    return value if value == value else float("inf")


def _times(value: float) -> str:
    return f"{value:.1f}x"


def _percent(value: float) -> str:
    return f"{value:.0%}"
