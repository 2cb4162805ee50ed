"""Limits of one dispatcher: throughput with emulated GPUs, overhead of a query, memory.

    python -m benchmarks.scaling --json runs/scaling.json       # everything: about ten minutes on 2 quiet cores
    python -m benchmarks.scaling --quick                        # a few rows: under a minute

Emulated GPUs are real oracle actors behind the real dispatcher whose tiles take 50 ms, slept; trials are processes of
their own. All of them share this machine's cores, which is why the CPU time that each takes stands beside the rates.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, get_args

import typer

from actors.cluster import lend_path
from benchmarks import emulated, node_growth, round_trips, split_threads, wire_bytes
from benchmarks.emulated import Crowd, Load
from benchmarks.populations import INTRINSIC, Asks
from benchmarks.tables import table
from benchmarks.targets import Verdict

Part: TypeAlias = Literal["devices", "limit", "queries", "bytes", "threads", "nodes"]
PARTS: tuple[Part, ...] = get_args(Part)
QUICK_PARTS: tuple[Part, ...] = ("devices", "queries", "bytes")
SERVICE = 0.05  # seconds of a tile on an emulated GPU
ACTORS, QUICK_ACTORS = (1, 2, 4, 8, 16, 32, 64), (1, 4)
TRIALS, QUICK_TRIALS = (1, 16), (1, 4)
ASKS: tuple[Asks, ...] = get_args(Asks)
LIMIT_ACTORS = 4  # devices that take no time: enough to keep a dispatcher busy
THREAD_ROUNDS = 5  # requests of each pool of real oracles
TARGETS = {16: 0.95, 64: 0.90}  # throughput over ideal, by emulated devices
ZOT_BYTES, CMA_BYTES = 200, 8192  # a candidate


@dataclass(slots=True)
class Results:
    """What the parts that were asked for found."""

    devices: list[emulated.Row] = field(default_factory=list)
    limit: list[emulated.Row] = field(default_factory=list)
    queries: list[round_trips.Row] = field(default_factory=list)
    bytes: list[wire_bytes.Row] = field(default_factory=list)
    threads: split_threads.Found | None = None
    nodes: node_growth.Found | None = None


def main(
    json_file: Annotated[Path | None, typer.Option("--json", help="Write rows and verdicts here as well.")] = None,
    quick: Annotated[bool, typer.Option(help="A few rows, in short windows.")] = False,
    parts: Annotated[str, typer.Option(help=f"Which ones, by comma: {', '.join(PARTS)}.")] = "",
    actors: Annotated[str, typer.Option(help="Numbers of emulated devices, by comma.")] = "",
    trials: Annotated[str, typer.Option(help="Numbers of trials, by comma.")] = "",
    window: Annotated[float | None, typer.Option(help="Seconds that a row of the devices is measured.")] = None,
    depth: Annotated[int, typer.Option(help="Tiles an emulated device that trials have asked for at a time.")] = 16,
    rounds: Annotated[int | None, typer.Option(help="Requests of a kind that are timed one by one.")] = None,
) -> None:
    """Measure, print the tables and the verdict on every target."""
    began = time.perf_counter()
    chosen = _parts(parts, QUICK_PARTS if quick else PARTS)
    counts = _numbers("actors", actors, QUICK_ACTORS if quick else ACTORS)
    several = _numbers("trials", trials, QUICK_TRIALS if quick else TRIALS)
    seconds = window or (1.5 if quick else 8.0)
    load = Load(SERVICE, depth, seconds, 0.5 if quick else 2.0)
    turns = rounds or (50 if quick else 300)
    before = os.getloadavg()[0]
    results = Results()
    with cluster(max(*counts, LIMIT_ACTORS) + 1):
        if "bytes" in chosen:
            results.bytes = wire_bytes.measure()
        if "queries" in chosen:
            results.queries = round_trips.measure(turns)
        if "devices" in chosen:
            results.devices = emulated.measure(counts, crowds(several), ASKS, load, _say)
        if "limit" in chosen:
            busy = Load(0.0, 4 * depth, seconds)
            results.limit = emulated.measure((LIMIT_ACTORS,), crowds(several)[-1:], ASKS, busy, _say)
        if "threads" in chosen:
            _say("two oracles with one thread each, and one with two")
            results.threads = split_threads.measure(THREAD_ROUNDS)
    if "nodes" in chosen:
        _say("growing a pool on a cluster that brings nodes")
        results.nodes = node_growth.measure()
    judged = verdicts(results)
    taken = time.perf_counter() - began
    print("\n".join(report(results, judged)))
    print(f"\n{taken:.0f} s on {os.cpu_count()} cores, Ray {version('ray')}, load before: {before:.1f}")
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        found = as_json(results, judged) | {"seconds": taken, "load": before, "settings": asdict(load)}
        json_file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def crowds(trials: Sequence[int]) -> list[Crowd]:
    """Return who asks: a trial that is alone with one request at a time, and with a second one in flight."""
    return [Crowd(count, ahead) for count in trials for ahead in ((1, 2) if count == 1 else (1,))]


@contextmanager
def cluster(cpus: int) -> Iterator[None]:
    """Have a Ray of so many logical CPUs on this machine alone; one that is there already is used."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    joined = ray.is_initialized()
    if not joined:
        lend_path()
        ray.init(
            address="local",
            num_cpus=cpus,
            include_dashboard=False,
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    try:
        yield
    finally:
        if not joined:
            ray.shutdown()


def report(results: Results, judged: Sequence[Verdict]) -> list[str]:
    """Return the lines to print: a table a part, then the targets."""
    lines = []
    if results.devices:
        lines += [f"emulated devices, {1e3 * results.devices[0].service:.0f} ms a tile of 2 candidates"]
        lines += [*table(DEVICES, [device_cells(row) for row in results.devices]), ""]
    if results.limit:
        lines += ["devices that take no time: what the machine carries"]
        lines += [*table(DEVICES, [device_cells(row) for row in results.limit]), ""]
    if results.queries:
        lines += ["one request at a time, directly and through dispatcher and Ray, medians"]
        lines += [*table(QUERIES, [query_cells(row) for row in results.queries]), ""]
    if results.bytes:
        lines += [f"bytes as sent, {wire_bytes.CANDIDATES} candidates of {wire_bytes.LENGTH} rows, 32 messages"]
        lines += [*table(BYTES, [byte_cells(row) for row in results.bytes]), ""]
    if results.threads is not None:
        one, two = results.threads.rates()
        lines += [
            f"{results.threads.model} on the demo task: one oracle with two threads {one:.2f} queries/s, two oracles"
            f" with one thread each {two:.2f}, {results.threads.ratio:.2f} times as many by the median of the turns",
            "",
        ]
    if results.nodes is not None:
        lines.append(
            f"an elastic pool whose nodes have to come: first actor up {results.nodes.first:.1f} s after its start"
        )
        for i, (node, actor) in enumerate(results.nodes.growth, 2):
            lines.append(f"  queue grown: node {i} listed after {node:.1f} s, its oracle at work after {actor:.1f} s")
        lines.append("")
    return [*lines, "targets", *(str(verdict) for verdict in judged)]


DEVICES = (
    *("devices", "trials x requests", "asks", "candidates a request", "tiles/s", "of ideal"),
    *("dispatcher: ms CPU a tile", "cores", "oracle: ms CPU a tile", "MiB", "all: ms CPU a tile", "cores"),
)
QUERIES = ("asks", "candidates", "tiles", "directly, ms", "through the pool, ms", "added a query, ms", "samples")
BYTES = (
    *("asks", "request", "a candidate, to the dispatcher", "a candidate, to an oracle"),
    *("one candidate more", "put once a step"),
)


def device_cells(row: emulated.Row) -> list[str]:
    """Return a row of the emulated devices as text."""
    return [
        str(row.actors),
        f"{row.trials} x {row.ahead}",
        row.asks,
        str(row.population),
        f"{row.rate:.1f}",
        "-" if row.share is None else f"{row.share:.1%}",
        f"{1e3 * row.cpu_a_tile('dispatcher'):.2f}",
        f"{row.dispatcher_share:.2f}",
        f"{1e3 * row.cpu_a_tile('oracles'):.2f}",
        "-" if row.memory is None else f"{row.memory / 2**20:.0f}",
        f"{1e3 * row.cpu_a_tile():.2f}",
        f"{row.cpu_share:.2f}",
    ]


def query_cells(row: round_trips.Row) -> list[str]:
    """Return a row of the single requests as text."""
    from statistics import median

    times = [f"{1e3 * seconds:.2f}" for seconds in (median(row.direct), median(row.pooled), row.overhead_a_query)]
    return [row.asks, str(row.candidates), str(row.tiles), *times, str(len(row.pooled))]


def byte_cells(row: wire_bytes.Row) -> list[str]:
    """Return a row of the bytes as text."""
    values = (row.request, row.to_dispatcher, row.to_oracle, row.each, row.once)
    return [row.asks, *(f"{value:,.0f}" for value in values)]


def verdicts(results: Results) -> list[Verdict]:
    """Return the verdict on every target, met or not."""
    judged = [throughput(results.devices, actors, target) for actors, target in TARGETS.items()]
    for name, most in (("ZOT", ZOT_BYTES), (f"CMA-ES, {INTRINSIC} dimensions", CMA_BYTES)):
        judged.append(weight(results.bytes, name, most))
    return judged


def throughput(rows: Sequence[emulated.Row], actors: int, target: float) -> Verdict:
    """The rate of so many devices over that of devices which never wait, whoever asks.

    A single request in flight does not keep devices busy at its end, so that row says nothing of the dispatcher.
    """
    enough = [row for row in rows if row.actors == actors and row.trials * row.ahead > 1]
    found = {f"{row.trials} x {row.ahead}, {row.asks}": row.share for row in enough}
    shares = {name: share for name, share in found.items() if share is not None}
    measured = "; ".join(f"{name} {share:.1%}" for name, share in shares.items()) or "-"
    met = min(shares.values()) >= target if shares else None
    return Verdict(f"{actors} emulated devices: throughput over ideal >= {target:.0%}", measured, met)


def weight(rows: Sequence[wire_bytes.Row], name: str, most: int) -> Verdict:
    """Bytes of a candidate on either way, with its share of all that goes with it; what is put once stands apart."""
    row = next((row for row in rows if row.asks == name), None)
    target = f"{name}: bytes a candidate as sent <= {most:,}"
    if row is None:
        return Verdict(target, "-", None)
    measured = f"{row.to_dispatcher:,.0f} to the dispatcher, {row.to_oracle:,.0f} to an oracle"
    return Verdict(target, measured, max(row.to_dispatcher, row.to_oracle) <= most)


def as_json(results: Results, judged: Sequence[Verdict]) -> dict[str, Any]:
    """Return the run for machines."""
    devices, limit = (
        [asdict(row) | {"rate": row.rate, "share": row.share} for row in rows]
        for rows in (results.devices, results.limit)
    )
    return {
        "cores": os.cpu_count(),
        "versions": {"ray": version("ray"), "python": sys.version.split()[0]},
        "devices": devices,
        "limit": limit,
        "queries": [asdict(row) | {"overhead_a_query": row.overhead_a_query} for row in results.queries],
        "bytes": [asdict(row) for row in results.bytes],
        "threads": None if results.threads is None else asdict(results.threads) | {"ratio": results.threads.ratio},
        "nodes": None if results.nodes is None else asdict(results.nodes),
        "targets": [asdict(verdict) for verdict in judged],
    }


def _parts(given: str, default: tuple[Part, ...]) -> tuple[Part, ...]:
    names = [name.strip() for name in given.split(",") if name.strip()]
    for name in names:
        if name not in PARTS:
            raise typer.BadParameter(
                f"a part must be one of {', '.join(PARTS)}, but got {name!r}", param_hint="--parts"
            )
    return tuple(part for part in PARTS if part in names) or default


def _numbers(option: str, given: str, default: tuple[int, ...]) -> tuple[int, ...]:
    names = [name.strip() for name in given.split(",") if name.strip()]
    for name in names:
        if not name.isdecimal() or int(name) < 1:
            message = f"it must be numbers from 1 with commas between, like 1,2,4, but got {given!r}"
            raise typer.BadParameter(message, param_hint=f"--{option}")
    return tuple(sorted({int(name) for name in names})) or default


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    typer.run(main)
