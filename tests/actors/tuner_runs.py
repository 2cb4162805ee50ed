"""Small runs and what can be compared of them: a task of made-up reviews, a tiny random LLaMA, the analytic oracle."""

import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from click.testing import Result
from patience import PATIENCE
from tuned_models import OracleModel
from typer.testing import CliRunner

from benchmarks.sameness import numbers as numbers
from benchmarks.sameness import run_without_ray
from distributed_tuner import proposers
from distributed_tuner.ledger.reader import Ledger, read
from distributed_tuner.preflight.prepare import prepare
from distributed_tuner.runs.directory import RunDirectory

ROOT = Path(__file__).resolve().parents[2]
GOOD = ["good", "great", "bright", "liked", "positive"]
BAD = ["bad", "terrible", "dull", "slow", "hated", "negative"]
FILLER = ["a", "the", "film", "movie", "plot", "story", "it", "was", "really", "something", "I", "this"]


def write_reviews(directory: Path) -> None:
    """Write train.jsonl and test.jsonl: reviews whose words tell the label, most of the time."""
    draw = random.Random(5)
    for split, count in (("train", 48), ("test", 30)):
        rows = []
        for i in range(count):
            label = i % 2
            words = (
                draw.choices(FILLER, k=4) + draw.choices(GOOD if label else BAD, k=2) + draw.choices(GOOD + BAD, k=1)
            )
            rows.append({"text": f"{' '.join(draw.sample(words, len(words)))} {i}", "label": label})
        (directory / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def space(oracle: dict[str, Any], optimizers: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """Return a space of one trial for each optimizer. ``more`` replaces whole parts of it."""
    stage = {"kind": "search", "optimizer": Grid(optimizers), "eval_every": more.pop("eval_every", 20)}
    return {
        "name": "small",
        "seed": 3,
        "task": {
            "kind": "file",
            "train": "train.jsonl",
            "test": "test.jsonl",
            "text": "text",
            "label": "label",
            "template": "{text} It was{label_word}",
            "label_words": {"0": " terrible", "1": " great"},
            "manual_prompt": "Classify the movie review",
            "shots": 8,
        },
        "oracle": {"threads": 1, "tile": {"candidates": 2, "examples": 8}, **oracle},
        "prompt": {"length": 4, "layout": "prefix"},
        "stages": [stage],
        "budget": {"queries": 60},
        **more,
    }


class Grid(list[Any]):
    """Written as ``!grid``."""


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(Grid, lambda dumper, options: dumper.represent_sequence("!grid", options))

ZOT = {"kind": "zot", "points": 2, "learning_rate": 0.5}
CMA = {"kind": "cma", "intrinsic_dim": 6, "popsize": 6}
RANDOM = {"kind": "random_search", "popsize": 4}


def write_space(tree: dict[str, Any], directory: Path, name: str = "space.yaml") -> Path:
    """Write a space beside its data."""
    path = directory / name
    path.write_text(yaml.dump(tree, Dumper=_Dumper))
    return path


@dataclass(frozen=True)
class Done:
    """A run that is over."""

    directory: RunDirectory
    status: str
    ledger: Ledger

    @property
    def summary(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads(self.directory.summary.read_text())
        return loaded

    @property
    def best(self) -> bytes:
        """The best prompt as it was written: its rows, or the description that holds its words."""
        rows = self.directory.best / "prompt.safetensors"
        return (rows if rows.exists() else self.directory.best / "prompt.json").read_bytes()


def run_space(path: Path, out: Path, *overrides: str, resume: bool = False) -> Done:
    """Run a space on the cluster that this process has joined."""
    from actors.run.experiment import run

    directory = RunDirectory(out)
    finished = run(prepare(path, list(overrides)), directory, address=None, resume=resume, command="test")
    return Done(directory, finished.status, read(directory.ledger))


def say_to_tune(*arguments: object) -> Result:
    """Give tune.py a command in this process, on the cluster that it has joined."""
    import tune

    return CliRunner().invoke(tune.app, [*map(str, arguments)])


def run_alone(path: Path) -> Ledger:
    """Run a space's trials one after the other in this process, without Ray."""
    return run_without_ray(
        path,
        lambda oracle: lambda settings: proposers.build(settings, root=path.parent, tuned=OracleModel(oracle)),
    )


def raw_rows(directory: RunDirectory, kind: str) -> list[dict[str, Any]]:
    """Return the rows of one type as they were written, nothing left out."""
    rows = [json.loads(line) for line in directory.ledger.read_text().splitlines()]
    return [row for row in rows if row["type"] == kind]


# ------------------------------------------------------------------------------------------------ processes
def processes(title: str | tuple[str, ...], root: int | None = None) -> list[int]:
    """Return the pids below ``root`` (this process) whose title begins so, by /proc."""
    parents: dict[int, int] = {}
    titles: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                titles[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
            except (OSError, IndexError):
                continue
    return [
        pid for pid in parents if titles.get(pid, "").startswith(title) and _below(pid, root or os.getpid(), parents)
    ]


def _below(pid: int, root: int, parents: dict[int, int]) -> bool:
    while pid in parents:
        pid = parents[pid]
        if pid == root:
            return True
    return False


def wait_for(condition: Callable[[], Any], seconds: float = PATIENCE, every: float = 0.02) -> Any:
    """Return what the condition gives once it is true. ``every``: seconds between two evaluations."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        value = condition()
        if value:
            return value
        time.sleep(every)
    raise AssertionError(f"not within {seconds} s: {condition}")


def steps_written(out: Path, count: int) -> Callable[[], bool]:
    """Return a condition: so many steps are in the ledger."""
    ledger = out / "ledger.jsonl"
    return lambda: ledger.exists() and ledger.read_text().count('"type":"step"') >= count


@contextmanager
def killing(
    title: str | tuple[str, ...], when: Callable[[], bool], killed: list[int], seconds: float = PATIENCE
) -> Iterator[None]:
    """SIGKILL the first process with that title as soon as the condition holds, from a thread beside the run.

    ``seconds``: how long to wait for the condition.
    """

    def kill() -> None:
        wait_for(when, seconds)
        pid = wait_for(lambda: processes(title))[0]
        os.kill(pid, signal.SIGKILL)
        killed.append(pid)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    yield
    thread.join(timeout=60)  # the run is over
