"""Faults survived by a run: the same small run undisturbed and with each fault, compared to the last bit.

    python -m benchmarks.faults --json runs/faults.json           # every fault: about five minutes on 2 cores
    python -m benchmarks.faults --only "oracle killed"

A cluster of three machines on this one: a head with driver, trials and dispatcher, and two workers with an oracle each.
Oracles are emulated devices, whose tiles take a fixed time; the optimizers, pool, ledger and command are the real ones.
"""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from actors.cluster import lend_path
from actors.run.experiment import run
from benchmarks.fault_kinds import FAULTS, WORKER_CPUS, Fault, Scene
from benchmarks.machines import add_worker, by_hand
from benchmarks.sameness import numbers
from benchmarks.tables import table
from distributed_tuner.errors import StorageError
from distributed_tuner.ledger.reader import read
from distributed_tuner.ledger.rows import EvalRow, StepRow
from distributed_tuner.preflight.prepare import prepare, prepare_again
from distributed_tuner.runs.directory import RunDirectory

ROOT = Path(__file__).resolve().parent.parent
QUERIES = 240  # of each trial
STEPS = 30  # of about 90 in the ledger when a fault happens
RUN_SECONDS = 600.0  # in which a run must end
SPACE = """\
name: faults
seed: 3
task: {kind: demo, test_limit: 40}
oracle: {kind: analytic, width: 8, seconds: 0.04, actors: 2, threads: 2, tile: {candidates: 4, examples: 64}}
prompt: {length: 4, layout: prefix}
stages:
  - kind: search
    eval_every: 40
    optimizer: !grid
      - {kind: zot, points: 4, learning_rate: 0.5}
      - {kind: cma, intrinsic_dim: 8, popsize: 8}
      - {kind: nevergrad, optimizer: TwoPointsDE, intrinsic_dim: 8, num_workers: 8}
budget: {queries: 240}
"""
HEADINGS = ("fault", "expected", "same", "rows lost", "made again", "over budget", "s longer", "events")


@dataclass(frozen=True, slots=True)
class Row:
    """What came of a fault. same: all numbers of steps, evaluations and tests, and the best prompt, are to the bit
    those of the undisturbed run. lost: rows that are missing. again: steps that were made and written down twice;
    readers take one of them. over: queries beyond a trial's budget. longer: seconds beyond the undisturbed run's. told:
    the kinds of events in the ledger."""

    fault: str
    expected: str
    same: bool
    lost: int
    again: int
    over: int
    longer: float
    told: tuple[str, ...]
    event: str | None

    @property
    def held(self) -> bool:
        """Whether all that must hold does."""
        return self.same and not self.lost and not self.over and (self.event is None or self.event in self.told)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What can be compared of a run that is over."""

    numbers: dict[tuple[Any, ...], tuple[Any, ...]]
    prompt: bytes
    again: int
    most_queries: int
    seconds: float
    told: tuple[str, ...]


def main(
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the rows here as well.")] = None,
    only: Annotated[str, typer.Option(help="Names of faults, by comma.")] = "",
) -> None:
    """Print the matrix; exit with 1 if something did not hold."""
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        rows = measure(Path(folder), only.split(",") if only else None, lambda line: print(line, file=sys.stderr))
    print("\n".join(table(HEADINGS, [cells(row) for row in rows])))
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        found = [asdict(row) | {"held": row.held} for row in rows]
        json_file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    failed = [row.fault for row in rows if not row.held]
    print(f"\n{len(rows) - len(failed)} of {len(rows)} held" + (f"; not: {', '.join(failed)}" if failed else ""))
    raise typer.Exit(1 if failed else 0)


def cells(row: Row) -> list[str]:
    """Return a row of the printed table."""
    return [
        row.fault,
        row.expected,
        "yes" if row.same else "NO",
        str(row.lost),
        str(row.again),
        str(row.over),
        f"{row.longer:.1f}",
        ", ".join(row.told) or "-",
    ]


def measure(folder: Path, only: Sequence[str] | None, say: Callable[[str], None]) -> list[Row]:
    """Run everything and compare. ``only``: names of faults.

    Raises:
        ValueError: there is no fault of a name.
    """
    lend_path()
    unknown = set(only or ()) - {fault.name for fault in FAULTS}
    if unknown:
        raise ValueError(f"a fault is one of {[fault.name for fault in FAULTS]}, but got {sorted(unknown)}")
    space = folder / "faults.yaml"
    space.write_text(SPACE, encoding="utf-8")
    with by_hand(num_cpus=1) as cluster:
        for _ in range(2):
            add_worker(cluster, WORKER_CPUS)
        say("the undisturbed run")
        finish(space, folder / "first", resume=False)  # processes start, files are read: what no later run pays for
        whole = outcome(folder / "undisturbed", finish(space, folder / "undisturbed", resume=False))
        rows = []
        for fault in FAULTS:
            if only is None or fault.name in only:
                rows.append(suffer(fault, cluster, space, folder / fault.name.replace(" ", "-"), whole))
                say(f"{fault.name}: {'held' if rows[-1].held else 'FAILED'}, {rows[-1].longer:.1f} s longer")
        return rows


def suffer(fault: Fault, cluster: Any, space: Path, out: Path, whole: Outcome) -> Row:
    """Have a fault happen to a run, and compare it with the undisturbed one.

    Raises:
        RuntimeError: the fault did not happen, or did not end the run that it should have ended.
    """
    apart = fault.resumed and fault.happen is not None  # the driver itself dies
    if fault.spare:
        add_worker(cluster, WORKER_CPUS)
    process = drive(space, out, cluster.address) if apart else None
    scene = Scene(cluster, os.getpid() if process is None else process.pid)
    began = time.perf_counter()
    try:
        with happening(fault, scene, out), fault.flaw():
            ended = not finished(space, out) if process is None else process.wait(RUN_SECONDS) == -signal.SIGKILL
        if ended != fault.resumed:
            raise RuntimeError(f"the fault {fault.name!r} must {'' if fault.resumed else 'not '}end the run")
        if fault.resumed:
            finish(space, out, resume=True)
        seconds = time.perf_counter() - began
    finally:
        scene.end()
    got = outcome(out, seconds)
    return Row(
        fault=fault.name,
        expected=fault.expected,
        same=got.numbers == whole.numbers and got.prompt == whole.prompt,
        lost=len(whole.numbers.keys() - got.numbers.keys()),
        again=got.again,
        over=max(0, got.most_queries - QUERIES),
        longer=got.seconds - whole.seconds,
        told=got.told,
        event=fault.event,
    )


@contextlib.contextmanager
def happening(fault: Fault, scene: Scene, out: Path) -> Iterator[None]:
    """Have a fault happen from a thread, as soon as the run beside it is under way.

    Raises:
        RuntimeError: it did not happen.
    """
    if (happens := fault.happen) is None:
        yield
        return
    failed: list[BaseException] = []

    def happen() -> None:
        try:
            ledger = out / "ledger.jsonl"
            until = time.monotonic() + RUN_SECONDS
            while not ledger.exists() or ledger.read_text(encoding="utf-8").count('"type":"step"') < STEPS:
                if scene.over.is_set() or time.monotonic() > until:
                    raise TimeoutError(f"the run made no {STEPS} steps")
                time.sleep(0.02)
            happens(scene)
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=happen, daemon=True)
    thread.start()
    yield
    scene.over.set()
    thread.join(RUN_SECONDS)
    if failed:
        raise RuntimeError(f"the fault {fault.name!r} did not happen: {failed[0]}") from failed[0]


# ------------------------------------------------------------------------------------------------ runs
def drive(space: Path, out: Path, address: str, *, resume: bool = False) -> "subprocess.Popen[bytes]":
    """Start a run from the command line, with a driver of its own."""
    command = [sys.executable, str(ROOT / "tune.py"), "run", str(space), "--out", str(out), "--address", address]
    command += ["--resume"] if resume else []
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=space.parent)


def finished(space: Path, out: Path) -> bool:
    """Run here; tell whether it came to its end, or its storage took no more."""
    try:
        finish(space, out, resume=False)
    except StorageError:
        return False
    return True


def finish(space: Path, out: Path, *, resume: bool) -> float:
    """Run here to the end; return the seconds.

    Raises:
        RuntimeError: the run is not done then.
    """
    directory = RunDirectory(out)
    began = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        prepared = prepare_again(directory, space.parent) if resume else prepare(space, [])
        done = run(prepared, directory, address=None, resume=resume, command="python -m benchmarks.faults")
    if done.status != "done":
        raise RuntimeError(f"a run must end as done, but it ended as {done.status}")
    return time.perf_counter() - began


def outcome(out: Path, seconds: float) -> Outcome:
    """Read what can be compared of a run."""
    directory = RunDirectory(out)
    ledger = read(directory.ledger)
    rows: list[EvalRow | StepRow] = [*ledger.evaluations, *ledger.steps]
    raw = [json.loads(line) for line in directory.ledger.read_text(encoding="utf-8").splitlines()]
    steps = Counter((row["trial_id"], row["stage"], row["step"]) for row in raw if row["type"] == "step")
    return Outcome(
        numbers=numbers(ledger),
        prompt=(directory.best / "prompt.safetensors").read_bytes(),
        again=steps.total() - len(steps),
        most_queries=max(row.spent.queries for row in rows),
        seconds=seconds,
        told=tuple(sorted({event.kind for event in ledger.events})),
    )


if __name__ == "__main__":
    typer.run(main)
