"""CPU seconds and memory of the processes that a run on Ray has on this machine, by what they do."""

import os
import re
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import psutil  # type: ignore[import-untyped]

KINDS = {"OracleWorker": "oracles", "OracleHost": "oracles", "Dispatcher": "dispatcher", "Asker": "trials"}
TITLE = re.compile(r"ray::(\w+)")  # Ray names a worker's process after its actor


@dataclass(frozen=True, slots=True)
class Snapshot:
    """CPU seconds since each process began, by kind and process id, at ``time`` of ``time.perf_counter``."""

    time: float
    seconds: dict[tuple[str, int], float]


def snapshot() -> Snapshot:
    """Look at this process and all below it. Kinds: oracles, dispatcher, trials, driver, and ray for its own."""
    seconds = {}
    for kind, process in _processes():
        try:
            spent = process.cpu_times()
        except psutil.Error:  # it has just ended
            continue
        seconds[kind, process.pid] = spent.user + spent.system
    return Snapshot(time.perf_counter(), seconds)


def spent(before: Snapshot, after: Snapshot) -> dict[str, float]:
    """Return the CPU seconds between two looks by kind, of the processes that were there all the time."""
    found: dict[str, float] = defaultdict(float)
    for (kind, pid), seconds in after.seconds.items():
        if (kind, pid) in before.seconds:
            found[kind] += seconds - before.seconds[kind, pid]
    return dict(found)


def private_bytes(kind: str) -> float | None:
    """Return the median memory that a process of a kind shares with no other; None where that is not told."""
    found = []
    for its, process in _processes():
        if its != kind:
            continue
        try:
            found.append(process.memory_full_info().uss)
        except (psutil.Error, AttributeError):
            continue
    return statistics.median(found) if found else None


def _processes() -> Iterator[tuple[str, psutil.Process]]:
    here = psutil.Process(os.getpid())
    yield "driver", here
    for process in here.children(recursive=True):
        try:
            title = TITLE.match(" ".join(process.cmdline()))
        except psutil.Error:
            continue
        yield KINDS.get(title[1], "ray") if title else "ray", process
