"""Costs of a tree's commands: CPU seconds to their end or to a run's first step, and memory."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil  # type: ignore[import-untyped]

from benchmarks.sides import END_SECONDS, Side, below, kill

POLL_SECONDS = 0.05
SAMPLE_SECONDS = 0.5
QUICKSTART, DEBUG = "search_spaces/quickstart.yaml", "search_spaces/debug.yaml"


@dataclass(frozen=True, slots=True)
class FirstStep:
    """CPU seconds until the first row of a search step was written: of the driver, and of all processes of the run."""

    driver: float
    all: float


@dataclass(frozen=True, slots=True)
class Memory:
    """Peaks of a run's processes together, in bytes, and its wall-clock seconds."""

    pss: float
    rss: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Run:
    """A command of a side that was started, and the file of what it prints."""

    side: Side
    arguments: Sequence[str]
    process: "subprocess.Popen[bytes]"
    printed: IO[bytes]

    def failure(self) -> RuntimeError:
        """Return the error that says that it ended, with the last line of what it printed."""
        self.printed.seek(0)
        lines = self.printed.read().decode(errors="replace").strip().splitlines() or ["nothing"]
        command = " ".join(["python", "tune.py", *self.arguments])
        return RuntimeError(
            f"`{command}` in the tree of {self.side.name} must not end early or fail, but ended with status"
            f" {self.process.returncode} and said last: {lines[-1]}"
        )


def cpu_of(side: Side, arguments: Sequence[str]) -> float:
    """Return the CPU seconds of ``tune.py`` with these arguments, children that it waited for included.

    Raises:
        RuntimeError: it failed.
    """
    with running(side, arguments) as run:
        _, status, usage = os.wait4(run.process.pid, 0)
        run.process.returncode = os.waitstatus_to_exitcode(status)
        if run.process.returncode:
            raise run.failure()
    return usage.ru_utime + usage.ru_stime


def first_step(side: Side, space: str = DEBUG) -> FirstStep:
    """Start a run, wait for its first step, and end it.

    Raises:
        RuntimeError: it ended without one.
    """
    with tempfile.TemporaryDirectory(prefix="against-") as folder:
        arguments = ["run", space, "--out", str(Path(folder) / "run")]
        ledger = Path(folder) / "run" / "ledger.jsonl"
        with running(side, arguments) as run:
            while not has_step(ledger):
                if run.process.poll() is not None:
                    raise run.failure()
                time.sleep(POLL_SECONDS)
            return spent(run.process.pid)


def has_step(ledger: Path) -> bool:
    """Tell whether a whole row of a search step is in a ledger; one that is not there yet has none."""
    try:
        whole, newline, _ = ledger.read_bytes().rpartition(b"\n")
    except FileNotFoundError:
        return False
    return bool(newline) and any(json.loads(line).get("type") == "step" for line in whole.splitlines() if line)


def spent(pid: int) -> FirstStep:
    """Return the CPU seconds so far of a process alone, and of all below it as well.

    Of processes that have ended, as much is known as their parents waited for.
    """
    driver, total = 0.0, 0.0
    for process in below(pid):
        try:
            times = process.cpu_times()
        except psutil.Error:  # it has just ended
            continue
        own = times.user + times.system
        total += own + getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
        if process.pid == pid:
            driver = own
    return FirstStep(driver, total)


def memory(side: Side, space: str = QUICKSTART, settings: Sequence[str] = ()) -> Memory | None:
    """Run a search space to its end; None where the system does not tell how memory is shared.

    Raises:
        RuntimeError: it failed.
    """
    if not Path("/proc/self/smaps_rollup").exists():
        return None
    with tempfile.TemporaryDirectory(prefix="against-") as folder:
        arguments = ["run", space, "--out", str(Path(folder) / "run")]
        for setting in settings:
            arguments += ["--set", setting]
        pss = rss = 0
        began = time.perf_counter()
        with running(side, arguments) as run:
            while run.process.poll() is None:
                sample = [_sizes(each) for each in below(run.process.pid)]
                pss, rss = max(pss, sum(size[0] for size in sample)), max(rss, sum(size[1] for size in sample))
                try:
                    run.process.wait(SAMPLE_SECONDS)
                except subprocess.TimeoutExpired:
                    continue
            if run.process.returncode:
                raise run.failure()
        return Memory(pss, rss, time.perf_counter() - began)


def sizes(rollup: str) -> tuple[int, int]:
    """Return proportional and resident bytes of a process by its ``smaps_rollup``."""
    found = {"Pss": 0, "Rss": 0}
    for line in rollup.splitlines():
        name, _, rest = line.partition(":")
        if name in found:
            found[name] = int(rest.split()[0]) * 1024
    return found["Pss"], found["Rss"]


def _sizes(process: psutil.Process) -> tuple[int, int]:
    try:
        return sizes(Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="ascii"))
    except OSError:  # it has just ended
        return 0, 0


@contextmanager
def running(side: Side, arguments: Sequence[str]) -> Iterator[Run]:
    """Have ``tune.py`` of a side run with these arguments; it is interrupted at the end of the block if need be."""
    with tempfile.TemporaryFile() as printed:
        process = subprocess.Popen(
            [sys.executable, "tune.py", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=printed,
            cwd=side.tree,
            env=side.environment(),
            process_group=0,
        )
        try:
            yield Run(side, arguments, process, printed)
        finally:
            if process.poll() is None:
                _interrupt(process)


def _interrupt(process: "subprocess.Popen[bytes]") -> None:
    """End a run as Ctrl-C does; what is left after a while is killed."""
    there = below(process.pid)
    process.send_signal(signal.SIGINT)
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    finally:
        kill(there)
