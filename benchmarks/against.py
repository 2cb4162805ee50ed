"""The speed of this tree over that of another git revision, both measured by turns on this machine.

    python -m benchmarks.against HEAD~5 --json runs/against.json      # everything: some 20 minutes on 2 quiet cores
    python -m benchmarks.against main --quick                         # fewer rounds: some 8 minutes
    python -m benchmarks.against main --only check,first-step         # some rows

The other revision gets a working tree in a temporary folder. Each side has processes of its own, which get the same
requests from the same environment, once alone and once beside a busy process.
"""

import json
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, TypeAlias, get_args

import typer

from benchmarks import side_rates, side_runs
from benchmarks.busy import busy
from benchmarks.ratios import (
    CHECK,
    CHECK_DEBUG,
    FIRST_STEP,
    FIRST_STEP_DRIVER,
    HEADINGS,
    HELP,
    MEMORY,
    ONE_PREFIX,
    ONE_SUFFIX,
    POOL_PREFIX,
    POOL_QUICKSTART,
    RESIDENT,
    WALL,
    Pair,
    Row,
    cells,
    order,
    take_turns,
    verdicts,
)
from benchmarks.side_rates import Plan
from benchmarks.side_runs import DEBUG, QUICKSTART, FirstStep, Memory
from benchmarks.sides import ROOT, Name, RevisionError, Side, Sides, commit_of, worktree
from benchmarks.tables import table
from benchmarks.targets import Verdict
from distributed_tuner.oracles.local.loading import SMOLLM2

Part: TypeAlias = Literal[
    "pool-quickstart",
    "pool-prefix",
    "one-thread-prefix",
    "one-thread-suffix",
    "losses",
    "check",
    "first-step",
    "memory",
]
PARTS: tuple[Part, ...] = get_args(Part)
POOL_PARTS: dict[Part, str] = {"pool-quickstart": POOL_QUICKSTART, "pool-prefix": POOL_PREFIX}
ONE_PARTS: dict[Part, str] = {"one-thread-prefix": ONE_PREFIX, "one-thread-suffix": ONE_SUFFIX}
CHECKS = {CHECK: ("check", QUICKSTART), CHECK_DEBUG: ("check", DEBUG), HELP: ("--help",)}
QUICK_QUERIES = 100  # of each trial of the quickstart, whose memory and seconds are measured
ROUNDS, QUICK_ROUNDS = 4, 2
PATIENCE, QUICK_PATIENCE = 60.0, 6.0  # seconds of a row after which no round begins
TURN, QUICK_TURN = 30.0, 4.0  # seconds that a turn of rates should take at most
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Processor:
    """What decides how fast a machine multiplies: the processor's name, and which wide instructions it has."""

    name: str
    amx: bool
    avx512: bool
    avx512_bf16: bool

    def __str__(self) -> str:
        has = {"AMX": self.amx, "AVX-512": self.avx512, "AVX-512 BF16": self.avx512_bf16}
        return f"{self.name}, " + ", ".join(name if there else f"no {name}" for name, there in has.items())


def main(
    revision: Annotated[str, typer.Argument(metavar="REV", help="The git revision to compare this tree with.")],
    beside: Annotated[
        list[str] | None,
        typer.Option(help="Busy processes beside the rates, a table each; by comma or given again. 0,1 if left out."),
    ] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Most rounds of a row.")] = None,
    only: Annotated[str, typer.Option(metavar="ROWS", help=f"Which ones, by comma: {', '.join(PARTS)}.")] = "",
    quick: Annotated[bool, typer.Option(help="Fewer and shorter rounds, and a smaller run of the quickstart.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write rows and verdicts here as well.")] = None,
    dtype: Annotated[str, typer.Option(help="Of the oracles whose rate is measured.")] = "auto",
    model: Annotated[str, typer.Option(help="A hub id, a local directory, or smollm2-135m.")] = SMOLLM2,
) -> None:
    """Measure, print a table for each number of busy processes, and the verdict on every target."""
    began = time.perf_counter()
    chosen = _parts(only)
    plan = Plan(
        besides=_besides(beside or ["0,1"]),
        rounds=rounds or (QUICK_ROUNDS if quick else ROUNDS),
        patience=QUICK_PATIENCE if quick else PATIENCE,
        turn=QUICK_TURN if quick else TURN,
        model=model,
        dtype=dtype,
    )
    before = os.getloadavg()[0]
    try:
        with ended_by_signals(), worktree(revision) as tree:
            commit = commit_of(revision)
            sides = Sides(Side("here", ROOT), Side("there", tree))
            rows = measure(sides, plan, chosen, quick, _say)
    except RevisionError as error:
        print("error:", error, file=sys.stderr)
        raise typer.Exit(2) from None
    processor = processor_of(_cpuinfo())
    judged = verdicts(rows, processor.amx)
    taken = time.perf_counter() - began
    print("\n".join(report(rows, judged, plan.besides)))
    print(f"\nREV is {revision}, {commit[:12]}; {processor}; {os.cpu_count()} cores, torch {version('torch')}")
    print(f"{taken:.0f} s, load before: {before:.1f}")
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        found = as_json(rows, judged, processor) | {"seconds": taken, "load": before, "commit": commit}
        json_file.write_text(json.dumps(found | {"settings": asdict(plan)}, indent=1) + "\n", encoding="utf-8")


def measure(sides: Sides, plan: Plan, chosen: Sequence[Part], quick: bool, say: Callable[[str], None]) -> list[Row]:
    """Return the rows of the parts that were chosen.

    Rates are measured beside each number of busy processes, everything else beside the smallest alone.
    """
    rows: list[Row] = []
    if names := [name for part, name in POOL_PARTS.items() if part in chosen]:
        rows += side_rates.pools(sides, plan, names, say)
    if names := [name for part, name in ONE_PARTS.items() if part in chosen]:
        rows += side_rates.one_thread(sides, plan, names, say)
    with busy(plan.besides[0]):
        if "losses" in chosen:
            rows += side_rates.losses(sides, plan, say)
        if "check" in chosen:
            rows += checks(sides, plan, say)
        if "first-step" in chosen:
            rows += first_steps(sides, plan, say)
        if "memory" in chosen:
            rows += memories(sides, plan, quick, say)
    return rows


def checks(sides: Sides, plan: Plan, say: Callable[[str], None]) -> list[Row]:
    """Measure the CPU seconds of commands that start no Ray; the first time only makes what is kept."""
    rows = []
    for name, arguments in CHECKS.items():
        say(name)
        for side in sides:
            side_runs.cpu_of(side, arguments)
        pairs = take_turns(plan.rounds, plan.patience, partial(_cpu_of, sides, arguments))
        rows.append(Row(name, "CPU s", plan.besides[0], pairs, f"`tune.py {' '.join(arguments)}`"))
    return rows


def first_steps(sides: Sides, plan: Plan, say: Callable[[str], None]) -> list[Row]:
    """Measure the CPU seconds from the start of a run to its first step; the first time only makes what is kept."""
    say(FIRST_STEP)
    for side in sides:
        side_runs.first_step(side)
    drivers: dict[Name, list[float]] = {"here": [], "there": []}

    def everything(name: Name) -> float:
        found: FirstStep = side_runs.first_step(sides.named(name))
        drivers[name].append(found.driver)
        return found.all

    pairs = take_turns(plan.rounds, plan.patience, everything)
    driver = tuple(Pair(*both) for both in zip(drivers["here"], drivers["there"], strict=True))
    beside, how = plan.besides[0], "`tune.py run` of debug.yaml"
    return [Row(FIRST_STEP, "CPU s", beside, pairs, how), Row(FIRST_STEP_DRIVER, "CPU s", beside, driver, how)]


def memories(sides: Sides, plan: Plan, quick: bool, say: Callable[[str], None]) -> list[Row]:
    """Measure the memory and the seconds of a whole quickstart, once a side; nothing where memory is not told."""
    say(MEMORY)
    settings = [f"budget.queries={QUICK_QUERIES}"] if quick else []
    found: dict[Name, Memory] = {}
    for name in order(0):
        peak = side_runs.memory(sides.named(name), settings=settings)
        if peak is None:
            return []
        found[name] = peak
    here, there = found["here"], found["there"]
    beside, how = plan.besides[0], f"{QUICK_QUERIES} queries a trial" if quick else "whole run"
    return [
        Row(MEMORY, "MiB", beside, (Pair(here.pss / MIB, there.pss / MIB),), f"{how}; shared pages counted once"),
        Row(RESIDENT, "MiB", beside, (Pair(here.rss / MIB, there.rss / MIB),), f"{how}; in each process that has them"),
        Row(WALL, "s", beside, (Pair(here.seconds, there.seconds),), how),
    ]


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let a request to end be an exception in here, so that everything that was started is ended.

    A shell has what it starts in the background ignore interrupts, and runs that are started here would do so too.
    """

    def end(number: int, frame: object) -> NoReturn:
        raise SystemExit(128 + number)

    handlers = {signal.SIGTERM: end, signal.SIGINT: signal.default_int_handler}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def report(rows: Sequence[Row], judged: Sequence[Verdict], besides: Sequence[int]) -> list[str]:
    """Return the lines to print: a table for each number of busy processes, then the targets."""
    lines = []
    for beside in besides:
        if mine := [row for row in rows if row.beside == beside]:
            lines += [f"beside {beside} busy processes", *table(HEADINGS, [cells(row) for row in mine]), ""]
    return [*lines, "targets", *(str(verdict) for verdict in judged)]


def as_json(rows: Sequence[Row], judged: Sequence[Verdict], processor: Processor) -> dict[str, Any]:
    """Return the run for machines."""
    medians = [{"here": row.here, "there": row.there, "ratio": row.ratio} for row in rows]
    return {
        "cores": os.cpu_count(),
        "processor": asdict(processor),
        "versions": {name: version(name) for name in ("torch", "transformers", "ray")},
        "rows": [asdict(row) | median for row, median in zip(rows, medians, strict=True)],
        "targets": [asdict(verdict) for verdict in judged],
    }


def processor_of(cpuinfo: str) -> Processor:
    """Return what Linux tells of the first core; where it tells nothing, a name alone."""
    told: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        told.setdefault(name.strip(), value.strip())
    flags = set(told.get("flags", "").split())
    name = told.get("model name") or platform.processor() or platform.machine()
    return Processor(name, "amx_tile" in flags, "avx512f" in flags, "avx512_bf16" in flags)


def _cpu_of(sides: Sides, arguments: Sequence[str], name: Name) -> float:
    return side_runs.cpu_of(sides.named(name), arguments)


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return ""


def _parts(given: str) -> tuple[Part, ...]:
    names = [name.strip() for name in given.split(",") if name.strip()]
    for name in names:
        if name not in PARTS:
            raise typer.BadParameter(f"a row must be one of {', '.join(PARTS)}, but got {name!r}", param_hint="--only")
    return tuple(part for part in PARTS if part in names) or PARTS


def _besides(given: Sequence[str]) -> tuple[int, ...]:
    names = [name.strip() for one in given for name in one.split(",")]
    for name in names:
        if not name.isdecimal():
            message = f"it must be numbers from 0 with commas between, like 0,1, but got {name!r}"
            raise typer.BadParameter(message, param_hint="--beside")
    return tuple(sorted({int(name) for name in names}))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    typer.run(main)
