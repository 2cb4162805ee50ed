"""Kinds of faults, and how a real run is given each of them: most by a signal to a process.

Flaws are faults that no signal makes: actors of a class of their own answer wrongly, or the ledger's disk is full.
"""

import errno
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import numpy as np
import psutil  # type: ignore[import-untyped]
import ray
from ray._private.internal_api import memory_summary
from ray.cluster_utils import Cluster

import actors.pool.worker
from actors.pool.messages import Reply, Tiles
from actors.pool.supervisor import Supervisor
from actors.pool.worker import OracleWorker
from benchmarks import machines
from distributed_tuner.errors import OracleMemoryError, TunerError

ORACLE, DISPATCHER, SUPERVISOR = "ray::OracleWorker", "ray::Dispatcher", "ray::Supervisor"
TRIAL = "ray::ResourceTrainable.train"  # at work: one that has ended may be there still, to run another
SLOWER = 10
SLICE = 0.02  # seconds that a slowed process runs at a time
FIND_SECONDS = 120.0
WORKER_CPUS = 2
ROOM = 4000  # bytes of the ledger that a full disk still takes: some steps
FILLER = 25 * 2**20  # bytes of an object among those that fill the store
FILLERS = 8  # twice what a machine's store holds


@dataclass(slots=True)
class Scene:
    """Where a fault happens: a cluster whose workers hold the oracles, and a run on it.

    driver: the process that drives the run. over: the run has ended. held: objects that stay in the object store.
    lost: machines that are gone, or as good as.
    """

    cluster: Cluster
    driver: int
    over: threading.Event = field(default_factory=threading.Event)
    held: list[Any] = field(default_factory=list)
    lost: list[Any] = field(default_factory=list)

    def lose(self, node: Any, how: Callable[[Any], None]) -> None:
        """Lose a machine."""
        how(node)
        self.lost.append(node)

    def end(self) -> None:
        """Clear up behind a fault."""
        self.over.set()
        self.held.clear()
        for node in self.lost:
            machines.remove(self.cluster, node)

    def process(self, title: str | tuple[str, ...]) -> psutil.Process:
        """Return the first process of the cluster whose title begins so.

        Raises:
            LookupError: there is none within FIND_SECONDS.
        """
        until = time.monotonic() + FIND_SECONDS
        while time.monotonic() < until:
            if (found := self.find(title)) is not None:
                return found
            time.sleep(0.05)
        raise LookupError(f"no process {title} was found within {FIND_SECONDS:.0f} s")

    def find(self, title: str | tuple[str, ...]) -> psutil.Process | None:
        """Return such a process if there is one now."""
        for node in [self.cluster.head_node, *self.cluster.worker_nodes]:
            for process in machines.processes(node):
                with suppress(psutil.Error):
                    if " ".join(process.cmdline()).startswith(title):
                        return process
        return None

    def worker(self) -> Any:
        """Return the machine of an oracle."""
        oracle = self.process(ORACLE)
        return next(node for node in self.cluster.worker_nodes if oracle in machines.processes(node))


Happening = Callable[[Scene], None]


@dataclass(frozen=True, slots=True)
class Fault:
    """One row of the matrix.

    happen: called while the run is under way. flaw: holds from its start. resumed: the run ends of it, by the death of
    its driver if something happens, and is gone on with by ``--resume``. spare: there is a machine more, for what is
    lost. event: the kind of row that the ledger tells it by, if it does.
    """

    name: str
    expected: str
    happen: Happening | None = None
    flaw: Callable[[], AbstractContextManager[None]] = nullcontext
    resumed: bool = False
    spare: bool = False
    event: str | None = None


# ------------------------------------------------------------------------------------------------ by signals
def killed(title: str | tuple[str, ...]) -> Happening:
    """Return what kills the first process with that title."""
    return lambda scene: scene.process(title).send_signal(signal.SIGKILL)


def _kill_driver(scene: Scene) -> None:
    os.kill(scene.driver, signal.SIGKILL)


def _kill_raylet(scene: Scene) -> None:
    """Kill the raylet of a worker and its processes with it."""
    scene.lose(scene.worker(), machines.kill_raylet)


def _freeze_machine(scene: Scene) -> None:
    """Stop every process of a worker where it is, as of a spot machine that vanishes without a word."""
    scene.lose(scene.worker(), machines.freeze)


def _slow_down(scene: Scene) -> None:
    """Let an oracle's process run a tenth of the time, until the run is over."""
    process = scene.process(ORACLE)
    while not scene.over.is_set() and process.is_running():
        try:
            process.suspend()
            time.sleep((SLOWER - 1) * SLICE)
            process.resume()
            time.sleep(SLICE)
        except psutil.NoSuchProcess:
            return


def _fill_object_store(scene: Scene) -> None:
    """Put more into the object store than it holds, so that Ray spills to disk.

    Raises:
        RuntimeError: it does not.
    """
    scene.held.extend(ray.put(np.ones(FILLER, dtype=np.uint8)) for _ in range(FILLERS))
    said = memory_summary(address=scene.cluster.address, stats_only=True)
    if "Spilled" not in said:
        raise RuntimeError(f"nothing was spilled; Ray says:\n{said}")


# ------------------------------------------------------------------------------------------------ flaws
class NanHost(OracleWorker):
    """An oracle actor that answers its third call with losses that are no numbers."""

    calls = 0

    def evaluate(self, tiles: Tiles) -> list[Reply | TunerError]:
        self.calls += 1
        answers = super().evaluate(tiles)
        return [_spoilt(answer) for answer in answers] if self.calls == 3 else answers


class SmallHost(OracleWorker):
    """An oracle actor whose memory holds two candidates."""

    def evaluate(self, tiles: Tiles) -> list[Reply | TunerError]:
        full = OracleMemoryError("a tile must fit, but the device is out of memory")
        answers = super().evaluate(tiles)
        return [full if len(sent) > 2 else answer for (sent, _), answer in zip(tiles.tile_tasks, answers, strict=True)]


def _spoilt(answer: Reply | TunerError) -> Reply | TunerError:
    if isinstance(answer, TunerError):
        return answer
    shape, _, *rest = answer
    return (shape, np.full(shape, np.nan, dtype=np.float32).tobytes(), *rest)


def hosted_by(host: type[OracleWorker]) -> Callable[[], AbstractContextManager[None]]:
    """Return what has pools start such oracle actors."""

    class FlawedSupervisor(Supervisor):
        def start(self, count: int, avoid: Sequence[str] = ()) -> dict[str, Any]:
            actors.pool.worker.OracleActor = ray.remote(host)  # in the supervisor's process
            return super().start(count, avoid)

    return lambda: patch("actors.pool.pool.SupervisorActor", ray.remote(num_cpus=0)(FlawedSupervisor))


@contextmanager
def full_disk(room: int = ROOM) -> Iterator[None]:
    """Let the ledger's disk take so many bytes and no more."""
    write, written = os.write, 0

    def limited(file: int, data: memoryview) -> int:
        nonlocal written
        if written + len(data) > room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written += len(data)
        return write(file, data)

    with patch("distributed_tuner.ledger.writer.os.write", limited):
        yield


FAULTS = (
    Fault("oracle killed", "its tiles go to others, it is restarted", killed(ORACLE), event="oracle_restart"),
    Fault("dispatcher killed", "it is restarted, and asked again", killed(DISPATCHER), event="dispatcher_restart"),
    Fault("supervisor killed", "it is restarted with its oracles", killed(SUPERVISOR), event="oracle_lost"),
    Fault("trial killed", "it goes on from its last checkpoint", killed(TRIAL), event="trial_retry"),
    Fault(
        "raylet of a worker killed",
        "as oracle killed, on another machine",
        _kill_raylet,
        spare=True,
        event="oracle_restart",
    ),
    Fault(
        "machine silent (SIGSTOP)",
        "its tiles are given to others as well",
        _freeze_machine,
        spare=True,
        event="straggler",
    ),
    Fault("driver killed", "--resume goes on from the last reports", _kill_driver, resumed=True),
    Fault("oracle ten times slower", "other workers take over its tiles", _slow_down),
    Fault("NaN loss", "retried once", flaw=hosted_by(NanHost), event="not_a_number"),
    Fault("out of memory", "smaller tiles, for the whole pool", flaw=hosted_by(SmallHost), event="tile_halved"),
    Fault("ledger's disk full", "the run ends, --resume goes on", flaw=full_disk, resumed=True),
    Fault("object store full", "Ray spills to disk", _fill_object_store),
)
