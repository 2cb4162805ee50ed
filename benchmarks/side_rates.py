"""Queries a second of both sides, of pools and of oracles with one thread, and the exactness of their losses."""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from benchmarks.busy import busy
from benchmarks.plain import candidate_rows
from benchmarks.ratios import LOSSES, ONE_PREFIX, ONE_SUFFIX, POOL_PREFIX, POOL_QUICKSTART, Pair, Row, take_turns
from benchmarks.rows import Block, Case, useful_tokens
from benchmarks.sides import Asker, Name, Sides, Taken
from benchmarks.texts import TextsName, batch
from benchmarks.worker import Ask, Facts, Setup, Worker
from distributed_tuner.values import Layout, PromptSpec

WARM_CANDIDATES = 2  # of each request of the first turn of all
LOSS_LENGTH, LOSS_CANDIDATES, LOSS_EXAMPLES = 8, 2, 8
LAYOUTS: tuple[Layout, ...] = ("prefix", "suffix", "add")
QUICKSTART_PROMPT = PromptSpec(3, "text", "\nIssue type.", "suffix", "embedding")

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Size:
    """What is asked in a turn: so many requests of so many candidates."""

    candidates: int
    requests: int


POOL_SIZES = (Size(16, 3), Size(8, 3), Size(4, 4), Size(2, 4))  # the largest affordable one; 3 requests are in flight
ONE_SIZES = (Size(16, 1), Size(8, 1), Size(4, 1), Size(2, 1))


@dataclass(frozen=True, slots=True)
class Plan:
    """How rates are measured: busy processes beside them, most rounds, seconds after which no round begins.

    turn: seconds that a turn should take at most. model, dtype: of the oracles.
    """

    besides: tuple[int, ...]
    rounds: int
    patience: float
    turn: float
    model: str
    dtype: str


@dataclass(frozen=True, slots=True)
class Work:
    """What a row asks for."""

    name: str
    texts: TextsName
    prompt: PromptSpec


@dataclass(frozen=True, slots=True)
class Turn:
    """What a turn found: queries, what they took, and operations a second of the matrix product before (0: none)."""

    queries: int
    taken: Taken
    product: float

    @property
    def rate(self) -> float:
        """Queries a second."""
        return self.queries / self.taken.seconds

    @property
    def rate_by_cpu(self) -> float:
        """Queries a second that the processor gave to it."""
        return self.queries / self.taken.cpu


POOL_WORK = (
    Work(POOL_QUICKSTART, "quickstart", QUICKSTART_PROMPT),
    Work(POOL_PREFIX, "SST-2", PromptSpec(16, "zeros", "", "prefix", "embedding")),
)
ONE_WORK = (
    Work(ONE_PREFIX, "SST-2", PromptSpec(16, "zeros", "", "prefix", "embedding")),
    Work(ONE_SUFFIX, "SST-2", PromptSpec(8, "zeros", "", "suffix", "embedding")),
)


def pools(sides: Sides, plan: Plan, names: Sequence[str], say: Say) -> list[Row]:
    """Measure the rows of pools: both live at once, and one is idle while the other has its turn."""
    rows = []
    with askers(sides, {"model": plan.model, "dtype": plan.dtype}, pool=True) as both:
        settings = "; ".join(_settings(asker) for asker in both.values())
        for work in POOL_WORK:
            if work.name in names:
                say(f"{work.name}: warming up")
                size = _warmed_up(work, both, POOL_SIZES, plan.turn)
                how = f"{size.requests} x {size.candidates} candidates; {settings}"
                for beside in plan.besides:
                    say(f"{work.name}, beside {beside}")
                    turns = _turns(both, plan, beside, size)
                    rows.append(Row(work.name, "queries/s", beside, _pairs(turns, lambda turn: turn.rate), how))
    return rows


def one_thread(sides: Sides, plan: Plan, names: Sequence[str], say: Say) -> list[Row]:
    """Measure the rows of oracles with one thread, a matrix product before each turn."""
    rows = []
    facts = _facts(plan.model)
    settings = {"model": plan.model, "dtype": plan.dtype, "device": "cpu", "threads": 1}
    with askers(sides, settings, pool=False) as both:
        dtypes = "; ".join(f"{name} {asker.facts['dtype']}" for name, asker in both.items())
        for work in ONE_WORK:
            if work.name in names:
                say(f"{work.name}: warming up")
                size = _warmed_up(work, both, ONE_SIZES, plan.turn)
                how = f"{size.requests} x {size.candidates} candidates; {dtypes}"
                for beside in plan.besides:
                    say(f"{work.name}, beside {beside}")
                    turns = _turns(both, plan, beside, size, products=True)
                    row = Row(work.name, "queries/s", beside, _pairs(turns, lambda turn: turn.rate), how)
                    rows.append(with_useful_rate(row, work.prompt, facts, _pairs(turns, lambda turn: turn.product)))
                    by_cpu = _pairs(turns, lambda turn: turn.rate_by_cpu)
                    rows.append(Row(f"{work.name}, by CPU time", "queries/CPU s", beside, by_cpu, how))
    return rows


def losses(sides: Sides, plan: Plan, say: Say) -> list[Row]:
    """Compare float32 losses of few candidates with the plain form's, of every layout."""
    say(LOSSES)
    worker = Worker(Setup("plain", "float32", LOSS_LENGTH, "SST-2", plan.model, 1))
    try:
        worker.facts()
        plain = {layout: worker.measure(Ask(layout, LOSS_CANDIDATES, LOSS_EXAMPLES)).losses for layout in LAYOUTS}
    finally:
        worker.stop()
    settings = {"model": plan.model, "dtype": "float32", "device": "cpu", "threads": 1}
    gaps: dict[Name, dict[Layout, float]] = {}
    with askers(sides, settings, pool=False) as both:
        for name, asker in both.items():
            width = asker.facts["width"]
            points = [candidate_rows(i, LOSS_LENGTH, width).reshape(-1).tolist() for i in range(LOSS_CANDIDATES)]
            gaps[name] = {}
            for layout in LAYOUTS:
                asker.set_task(batch("SST-2"), PromptSpec(LOSS_LENGTH, "zeros", "", layout, "paper"))
                found = np.asarray(asker.losses(points))[:, :LOSS_EXAMPLES]
                gaps[name][layout] = float(np.abs(found - plain[layout]).max())
    most = {name: float(np.max(list(each.values()))) for name, each in gaps.items()}  # NaN stays NaN
    how = ", ".join(f"{layout} {gaps['here'][layout]:.1e}" for layout in LAYOUTS)
    return [Row(LOSSES, "loss", plan.besides[0], (Pair(most["here"], most["there"]),), f"here: {how}")]


@contextmanager
def askers(sides: Sides, config: Mapping[str, object], *, pool: bool) -> Iterator[dict[Name, Asker]]:
    """Have a process of each side, whose oracle answers."""
    started: dict[Name, Asker] = {}
    try:
        for side in sides:
            started[side.name] = Asker(side, config, pool)
        for asker in started.values():
            asker.wait()
        yield started
    finally:
        for asker in started.values():
            asker.stop()


def affordable(seconds: float, sizes: Sequence[Size], turn: float) -> Size:
    """Return the largest of the sizes that takes at most a turn at so many seconds a candidate, else the smallest."""
    return next((size for size in sizes if size.candidates * size.requests * seconds <= turn), sizes[-1])


def with_useful_rate(row: Row, prompt: PromptSpec, facts: Facts, products: Sequence[Pair]) -> Row:
    """Return the row with operations a second on tokens that must be computed, over those of a matrix product."""
    layout = prompt.layout
    case = Case(Block("SST-2", prompt.length), layout, layout, "float32", 1)
    operations = 2 * facts.trunk * useful_tokens(case, facts)
    useful = Pair(row.here * operations, row.there * operations)
    here, there = (statistics.median(rates) for rates in zip(*((p.here, p.there) for p in products), strict=True))
    share = Pair(useful.here / here, useful.there / there)
    how = (
        f"{row.how}; useful {useful.here / 1e9:.0f} and {useful.there / 1e9:.0f} GFLOP/s, {share.here:.0%} and"
        f" {share.there:.0%} of a matrix product's"
    )
    return Row(row.name, row.unit, row.beside, row.pairs, how, share)


def _warmed_up(work: Work, both: Mapping[Name, Asker], sizes: Sequence[Size], turn: float) -> Size:
    """Let both sides make what is made once, and return what to ask for, the same for both."""
    requests = sizes[0].requests
    slowest = 0.0
    for asker in both.values():
        asker.set_task(batch(work.texts), work.prompt)
        seconds = asker.ask(WARM_CANDIDATES, requests).seconds
        if seconds < turn:  # the first time is slower
            seconds = asker.ask(WARM_CANDIDATES, requests).seconds
        slowest = max(slowest, seconds / (WARM_CANDIDATES * requests))
    return affordable(slowest, sizes, turn)


def _turns(
    both: Mapping[Name, Asker], plan: Plan, beside: int, size: Size, *, products: bool = False
) -> dict[Name, list[Turn]]:
    """Let both sides take turns, a matrix product before each if asked."""
    turns: dict[Name, list[Turn]] = {name: [] for name in both}

    def measure(name: Name) -> float:
        product = both[name].matmul_rate() if products else 0.0
        taken = both[name].ask(size.candidates, size.requests)
        turns[name].append(Turn(size.candidates * size.requests, taken, product))
        return turns[name][-1].rate

    with busy(beside):
        take_turns(plan.rounds, plan.patience, measure)
    return turns


def _pairs(turns: Mapping[Name, Sequence[Turn]], value: Callable[[Turn], float]) -> tuple[Pair, ...]:
    """Return a value of both sides' turns by round."""
    return tuple(Pair(value(here), value(there)) for here, there in zip(turns["here"], turns["there"], strict=True))


def _settings(asker: Asker) -> str:
    facts = asker.facts
    return f"{asker.side.name} {facts['actors']} x {facts['threads']} threads, {facts['dtype']}"


def _facts(model: str) -> Facts:
    """Return what the arithmetic needs, found by a process that ends: this one stays small."""
    worker = Worker(Setup("plain", "float32", LOSS_LENGTH, "SST-2", model, 1))
    try:
        return worker.facts()
    finally:
        worker.stop()
