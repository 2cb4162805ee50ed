"""The arithmetic of the loss oracle's table: tokens, rates, shares and ratios from what the workers measured."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.texts import TextsName
from benchmarks.worker import Dtype, Facts, Method
from distributed_tuner.oracles.checks.precision import LIMIT
from distributed_tuner.values import Array, Array64, Layout

GIB = 2**30


@dataclass(frozen=True, slots=True)
class Block:
    """What shares examples and prompt length, and is measured interleaved."""

    texts: TextsName
    length: int


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that is timed. The plain way evaluates one candidate after another: ``candidates`` is 1 there."""

    block: Block
    method: Method
    layout: Layout
    dtype: Dtype
    candidates: int

    @property
    def plain(self) -> "Case":
        """The plain way with the prompt in the same place: in front ("prefix", "add") or behind the text."""
        place: Layout = "suffix" if self.layout == "suffix" else "prefix"
        return Case(self.block, "plain", place, self.dtype, 1)

    @property
    def in_float32(self) -> "Case":
        """The same in float32."""
        return Case(self.block, self.method, self.layout, "float32", self.candidates)


@dataclass(frozen=True, eq=False, slots=True)
class Timing:
    """What was measured of a case.

    seconds: of a query, a sample each. asked: candidates of a measurement, fewer than the case's where all of them take
    too long. losses: example losses (asked, E). peak: bytes of the process.
    """

    seconds: tuple[float, ...]
    asked: int
    losses: Array
    peak: int

    @property
    def median(self) -> float:
        """Seconds a query."""
        return statistics.median(self.seconds)


@dataclass(frozen=True, eq=False, slots=True)
class Measured:
    """Everything from a run: timings, matrix-product rates by block and dtype, checks and facts by block.

    checks: plain example losses of a layout in a dtype (1 or more candidates, some examples). noise: of a difference of
    two losses in bfloat16.
    """

    timings: dict[Case, Timing]
    rates: dict[tuple[Block, Dtype], list[float]]
    checks: dict[tuple[Block, Layout, Dtype], Array]
    facts: dict[Block, Facts]
    noise: dict[tuple[Block, Layout], float]


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table. None: not measured in this run."""

    texts: TextsName
    length: int
    candidates: int
    dtype: Dtype
    method: Method
    layout: Layout
    asked: int
    samples: int
    seconds_per_query: float
    tokens_per_query: int
    useful_gflops: float
    share_of_matmul: float | None
    peak_gib: float
    times_plain: float | None
    times_plain_float32: float | None
    difference: float | None
    noise: float | None

    @property
    def within_noise(self) -> bool | None:
        """Is it a difference that calibration would not tell from rounding noise?"""
        return None if self.noise is None or self.difference is None else self.difference <= LIMIT * self.noise


def table(measured: Measured, candidates: Sequence[int]) -> list[Row]:
    """Return the rows; the plain way's cost a query is the same for every number of candidates."""
    rows = []
    for case, timing in measured.timings.items():
        counts = candidates if case.method == "plain" else [case.candidates]
        rows += [row(measured, case, timing, count) for count in counts]
    places = list(measured.facts)
    return sorted(rows, key=lambda r: (places.index(Block(r.texts, r.length)), r.candidates, r.dtype == "bfloat16"))


def row(measured: Measured, case: Case, timing: Timing, candidates: int) -> Row:
    """Return one row."""
    facts = measured.facts[case.block]
    rates = measured.rates.get((case.block, case.dtype))
    rate = 2 * facts.trunk * useful_tokens(case, facts) / timing.median
    return Row(
        texts=case.block.texts,
        length=case.block.length,
        candidates=candidates,
        dtype=case.dtype,
        method=case.method,
        layout=case.layout,
        asked=timing.asked,
        samples=len(timing.seconds),
        seconds_per_query=timing.median,
        tokens_per_query=computed_tokens(case, facts),
        useful_gflops=rate / 1e9,
        share_of_matmul=rate / statistics.median(rates) if rates else None,
        peak_gib=timing.peak / GIB,
        times_plain=ratio(measured, case.plain, timing),
        times_plain_float32=ratio(measured, case.plain.in_float32, timing),
        difference=difference(measured, case, timing),
        noise=measured.noise.get((case.block, case.layout)) if _rounded(case) else None,
    )


def useful_tokens(case: Case, facts: Facts) -> int:
    """Return the tokens that a query must compute, no padding counted.

    In front of the texts, the prompt is computed once a candidate; behind them, the texts are not computed at all. The
    plain way computes every row whole.
    """
    length, lengths = case.block.length, facts.lengths[case.layout]
    if case.method == "plain":
        return sum(length + text for text in lengths)
    if case.method == "suffix":
        return sum(length + cue for cue in facts.cues)
    return length + sum(lengths)


def computed_tokens(case: Case, facts: Facts) -> int:
    """Return the tokens that go through the model: the plain way pads every row to the longest."""
    if case.method == "plain":
        lengths = facts.lengths[case.layout]
        return len(lengths) * (case.block.length + max(lengths))
    return useful_tokens(case, facts)


def ratio(measured: Measured, plain: Case, timing: Timing) -> float | None:
    """Return how many times the queries a second of the plain way these are."""
    other = measured.timings.get(plain)
    return None if other is None else other.median / timing.median


def difference(measured: Measured, case: Case, timing: Timing) -> float | None:
    """Return how far losses are from their plain form in the same dtype.

    float32: the largest difference of an example's loss. bfloat16: the RMS difference of a candidate's loss, the mean
    over examples, which is what an optimizer sees and what calibration's noise is of.
    """
    plain = measured.checks.get((case.block, case.layout, case.dtype))
    if plain is None or case.method == "plain":
        return None
    if case.dtype == "float32":
        return float(np.abs(_gap(timing.losses, plain)).max())
    return float(np.sqrt(np.mean(np.square(_gap(timing.losses.mean(axis=1), plain.mean(axis=1))))))


def _gap(a: Array, b: Array) -> Array64:
    """Return the difference where both are there; NaN where one of them is."""
    both = tuple(slice(min(sizes)) for sizes in zip(a.shape, b.shape, strict=True))
    return a[both].astype(np.float64) - b[both]


def _rounded(case: Case) -> bool:
    return case.method != "plain" and case.dtype == "bfloat16"
