"""A soak: one long run whose processes and machines are killed at random, and the memory of those that live on.

    python -m benchmarks.chaos --minutes 30 --seed 0 --json runs/chaos.json

Every 20 to 60 seconds something is killed: an oracle, the dispatcher, the supervisor, a trial, the raylet of a worker,
whose place another machine takes, or the driver, which is started again with --resume. Which, and when, follows from
the seed. In the end all numbers must be those of the same run without Ray and without faults.
"""

import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import numpy as np
import psutil  # type: ignore[import-untyped]
import typer

from actors.cluster import lend_path
from benchmarks import machines
from benchmarks.fault_kinds import DISPATCHER, ORACLE, SUPERVISOR, TRIAL, WORKER_CPUS, Scene
from benchmarks.faults import drive
from benchmarks.sameness import numbers, run_without_ray
from distributed_tuner.ledger.reader import read

Victim: TypeAlias = Literal["oracle", "dispatcher", "supervisor", "trial", "raylet", "driver"]
WEIGHTS: dict[Victim, float] = {"oracle": 4, "dispatcher": 2, "supervisor": 1, "trial": 1, "raylet": 2, "driver": 1}
TRIAL_KILLS = 3  # Tune gives a trial up that fails more often
SETTLE_SECONDS = 60.0  # of a process's life, in which its memory may grow
SAMPLE_SECONDS = 5.0
FLAT = 60.0  # MiB an hour
SERVICE = 0.2  # seconds of a tile
ACTORS = 2
TILE = 4  # candidates
TRIALS = 3
SHOWN = 5  # differing numbers that are printed
OVERTIME = 3.0  # times the planned minutes, after which the soak is given up
SPACE = """\
name: chaos
seed: 3
task: {{kind: demo, test_limit: 40}}
oracle: {{kind: analytic, width: 8, seconds: {seconds}, actors: 2, threads: 2, tile: {{candidates: 4, examples: 64}}}}
prompt: {{length: 4, layout: prefix}}
stages:
  - kind: search
    eval_every: 200
    optimizer: !grid
      - {{kind: zot, points: 4, learning_rate: 0.5}}
      - {{kind: cma, intrinsic_dim: 8, popsize: 8}}
      - {{kind: nevergrad, optimizer: TwoPointsDE, intrinsic_dim: 8, num_workers: 8}}
budget: {{queries: {queries}}}
"""


@dataclass(frozen=True, slots=True)
class Sample:
    """Memory of a process: resident MiB, at a second of the soak and of its life."""

    role: str
    pid: int
    second: float
    age: float
    mib: float


@dataclass(slots=True)
class Soak:
    """What happened: kills by second and victim, and samples of memory."""

    kills: list[tuple[float, Victim]] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)


def main(
    minutes: Annotated[float, typer.Option(help="How long the run would take undisturbed.")] = 30.0,
    seed: Annotated[int, typer.Option(help="Of what is killed when.")] = 0,
    every: Annotated[str, typer.Option(help="Fewest and most seconds between two kills.")] = "20,60",
    json_file: Annotated[Path | None, typer.Option("--json", help="Write kills and memory here as well.")] = None,
) -> None:
    """Soak, compare, and exit with 1 if a number differs or memory grows."""
    low, high = map(float, every.split(","))
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        folder = Path(name)
        soak = run(folder, minutes, np.random.default_rng(seed), (low, high), lambda line: print(line, flush=True))
        took = time.perf_counter() - began
        differing, rows = compare(folder, minutes)
        for line in differing[:SHOWN]:
            print(line)
    slopes = {role: slope(soak.samples, role) for role in ("driver", "dispatcher")}
    counts = Counter(victim for _, victim in soak.kills)
    print(
        f"\n{took / 60:.1f} min, {len(soak.kills)} kills: " + ", ".join(f"{n} {victim}" for victim, n in counts.items())
    )
    print(f"{rows - len(differing)} of {rows} steps and evaluations are those of the undisturbed run, to the bit")
    flat = True
    for role, found in slopes.items():
        flat &= found is None or found < FLAT
        told = "lived too briefly to tell" if found is None else f"{found:+.1f} MiB an hour"
        print(f"{role}: {told} after its first {SETTLE_SECONDS:.0f} s (flat: below {FLAT:.0f})")
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        found_all = asdict(soak) | {"seconds": took, "rows": rows, "differing": differing, "slopes": slopes}
        json_file.write_text(json.dumps(found_all, indent=1) + "\n", encoding="utf-8")
    raise typer.Exit(0 if not differing and flat else 1)


def queries(minutes: float) -> int:
    """Return the queries of each trial that keep the oracles busy for so long."""
    return max(80, round(60 * minutes * ACTORS / SERVICE * TILE / TRIALS / 8) * 8)


def run(
    folder: Path, minutes: float, draw: np.random.Generator, every: tuple[float, float], say: Callable[[str], None]
) -> Soak:
    """Run to the end, whatever is killed meanwhile.

    Raises:
        RuntimeError: it failed, or did not end.
    """
    lend_path()
    space, out = folder / "chaos.yaml", folder / "run"
    space.write_text(SPACE.format(seconds=SERVICE, queries=queries(minutes)), encoding="utf-8")
    soak = Soak()
    with machines.by_hand(num_cpus=1) as cluster:
        for _ in range(ACTORS):
            machines.add_worker(cluster, WORKER_CPUS)
        driver = drive(space, out, cluster.address)
        began = time.monotonic()
        next_kill, next_sample = began + draw.uniform(*every), began
        while (status := driver.poll()) is None or status == -9:
            now = time.monotonic()
            if now - began > 60 * minutes * OVERTIME + 120:
                driver.kill()
                raise RuntimeError("the run does not end")
            if status == -9:
                driver = drive(space, out, cluster.address, resume=True)
            if now >= next_sample:
                next_sample = now + SAMPLE_SECONDS
                soak.samples += sample(Scene(cluster, driver.pid), now - began)
            if now >= next_kill and _begun(out):
                next_kill = now + draw.uniform(*every)
                victim = _choose(draw, soak)
                if _strike(victim, Scene(cluster, driver.pid), draw):
                    soak.kills.append((now - began, victim))
                    say(f"{now - began:6.0f} s: {victim} killed; {_memory(soak.samples)}")
            time.sleep(0.2)
        if status:
            raise RuntimeError(f"the run must end with 0, but it ended with {status}")
    return soak


def _begun(out: Path) -> bool:
    """Tell whether there is something to go on from."""
    ledger = out / "ledger.jsonl"
    return ledger.exists() and '"type":"step"' in ledger.read_text(encoding="utf-8")


def _choose(draw: np.random.Generator, soak: Soak) -> Victim:
    weights = dict(WEIGHTS)
    if sum(victim == "trial" for _, victim in soak.kills) >= TRIAL_KILLS:
        weights["trial"] = 0.0
    names: list[Victim] = list(weights)
    shares = np.array([weights[name] for name in names])
    return names[int(draw.choice(len(names), p=shares / shares.sum()))]


def _strike(victim: Victim, scene: Scene, draw: np.random.Generator) -> bool:
    """Kill something; False: it was not there, as right after another kill."""
    titles: dict[Victim, str | tuple[str, ...]] = {
        "oracle": ORACLE,
        "dispatcher": DISPATCHER,
        "supervisor": SUPERVISOR,
        "trial": TRIAL,
    }
    try:
        match victim:
            case "driver":
                psutil.Process(scene.driver).kill()
            case "raylet":
                node = list(scene.cluster.worker_nodes)[int(draw.integers(len(scene.cluster.worker_nodes)))]
                machines.kill_raylet(node)
                machines.remove(scene.cluster, node)
                machines.add_worker(scene.cluster, WORKER_CPUS)
            case _:
                scene.process(titles[victim]).kill()
    except (LookupError, psutil.Error):
        return False
    return True


# ------------------------------------------------------------------------------------------------ what is seen
def sample(scene: Scene, second: float) -> list[Sample]:
    """Return the memory of driver and dispatcher, those that are there."""
    found = []
    for role in ("driver", "dispatcher"):
        try:
            one = psutil.Process(scene.driver) if role == "driver" else scene.find(DISPATCHER)
            if one is not None:
                mib = one.memory_info().rss / 2**20
                found.append(Sample(role, one.pid, second, time.time() - one.create_time(), mib))
        except psutil.Error:
            continue
    return found


def slope(samples: list[Sample], role: str) -> float | None:
    """Return the MiB that a role's processes gained an hour after their first minutes, one slope for all lives.

    None: none lived long enough to tell.
    """
    lives: dict[int, list[Sample]] = {}
    for one in samples:
        if one.role == role and one.age > SETTLE_SECONDS:
            lives.setdefault(one.pid, []).append(one)
    ages, mibs = [], []
    for life in lives.values():
        if len(life) > 2:
            middle, level = statistics.mean(one.age for one in life), statistics.mean(one.mib for one in life)
            ages += [one.age - middle for one in life]
            mibs += [one.mib - level for one in life]
    square = float(np.square(ages).sum())
    return None if square == 0.0 else 3600.0 * float(np.dot(ages, mibs)) / square


def _memory(samples: list[Sample]) -> str:
    latest = {one.role: one.mib for one in samples}
    return ", ".join(f"{role} {mib:.0f} MiB" for role, mib in latest.items())


def compare(folder: Path, minutes: float) -> tuple[list[str], int]:
    """Return a line for each number that differs from that of the run without Ray, and how many there are."""
    space = folder / "alone.yaml"
    space.write_text(SPACE.format(seconds=0.0, queries=queries(minutes)), encoding="utf-8")
    both = (run_without_ray(space), read(folder / "run" / "ledger.jsonl"))
    whole, got = ({name: row for name, row in numbers(one).items() if name[0] != "test"} for one in both)
    names = sorted({name for name in whole.keys() | got.keys() if whole.get(name) != got.get(name)}, key=str)
    return [f"{name}: {got.get(name)} instead of {whole.get(name)}" for name in names], len(whole)


if __name__ == "__main__":
    typer.run(main)
