"""One cell: a peer's search on a task and split, and what the prompt that it ships is worth. A JSON file each."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.peers.job import Job, Row, Shipped, read_shipped, write_job
from benchmarks.peers.meter import Caps, Meter, Spent
from benchmarks.peers.model import Speaker
from benchmarks.peers.reading import accuracies
from benchmarks.peers.server import CountingServer
from distributed_tuner.config.stage import ScreenStageConfig
from distributed_tuner.errors import TunerError
from distributed_tuner.oracles.base import LossOracle
from distributed_tuner.stages.screen_prompts import instructions
from distributed_tuner.tasks.base import Task

ROOT = Path(__file__).resolve().parents[2]
SERVED = "smollm2"
UNTUNED = "untuned"
TEXT_PEERS = {
    "capo": ("benchmarks.peers.promptolution_peer", "capo"),
    "evoprompt": ("benchmarks.peers.promptolution_peer", "evoprompt"),
    "gepa": ("benchmarks.peers.gepa_peer",),
    "mipro": ("benchmarks.peers.mipro_peer",),
}
PEERS = (UNTUNED, "peft", *TEXT_PEERS)
GRACE = 120.0  # seconds that a peer may take to start and to end
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it asks the network for prices when it is imported
    "TOKENIZERS_PARALLELISM": "false",
}


@dataclass(frozen=True, slots=True)
class Budget:
    """Caps of a search. queries: of all train rows, which cap the example forwards. write_tokens: of each proposal."""

    queries: int
    proposals: int
    seconds: float
    write_tokens: int


@dataclass(frozen=True, slots=True)
class Cell:
    """What a peer did on one split. own, head: test accuracy of its prompt read by the label words, and by the head.

    None: there is no prompt, and ``ended`` says why. refused: requests beyond the caps.
    """

    task: str
    split: int
    peer: str
    queries: int
    own: float | None
    head: float | None
    test_rows: int
    spent: Spent
    seconds: float
    ended: str
    words: str | None = None
    refused: int = 0
    told: Mapping[str, Any] = field(default_factory=dict)


def write_cell(cell: Cell, path: Path) -> None:
    """Write a cell, whole."""
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(asdict(cell), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    draft.replace(path)


def read_cell(path: Path) -> Cell:
    """Read a cell."""
    told = json.loads(path.read_text(encoding="utf-8"))
    return Cell(**{**told, "spent": Spent(**told["spent"])})


def rows_of(task: Task, split: str) -> tuple[Row, ...]:
    """Return the rows of a split as peers are given them."""
    examples = task.train if split == "train" else task.dev
    return tuple(Row(e.text, e.cue, task.label_words[e.label].strip()) for e in examples)


@dataclass(frozen=True, slots=True)
class Bench:
    """What all cells share: the oracle that reads prompts, the same model as the server speaks it, the peers' Python.

    weights: where the model lies.
    """

    oracle: LossOracle
    speaker: Speaker
    weights: str
    budget: Budget
    python: str
    threads: int = 1

    def cell(self, peer: str, task: Task, split: int, folder: Path) -> Cell:
        """Have a peer search, in a process of its own, and read what it ships. Its files go to ``folder``."""
        if peer == UNTUNED:
            found = Searched(Shipped(task.manual_prompt), Spent(), 0, 0.0, "")
        else:
            found = self.search(peer, task, folder)
        own = head = None
        ended = found.ended
        shipped = Shipped() if found.shipped is None else found.shipped
        if found.shipped is not None:
            try:
                own, head = accuracies(task, shipped, self.oracle)
            except TunerError as error:
                ended = f"its prompt cannot be read: {error}"
        return Cell(
            task=task.name,
            split=split,
            peer=peer,
            queries=0 if peer == UNTUNED else self.budget.queries,
            own=own,
            head=head,
            test_rows=len(task.test),
            spent=found.spent,
            seconds=found.seconds,
            ended=ended,
            words=shipped.words,
            refused=found.refused,
            told=shipped.told,
        )

    def search(self, peer: str, task: Task, folder: Path) -> "Searched":
        """Have a peer search, its requests counted and capped."""
        folder.mkdir(parents=True, exist_ok=True)
        budget = self.budget
        meter = Meter(Caps(budget.queries * len(task.train), budget.proposals, budget.seconds))
        began = time.monotonic()
        with CountingServer(self.speaker, meter, SERVED) as server:
            shipped, ended = run_peer(peer, self.job(task, server.url, folder), self.python)
        spent, ended = meter.spent, ended or meter.reached
        if shipped is not None and shipped.adapter is not None:  # trained beside the server
            spent = Spent(**shipped.told["spent"])
        return Searched(shipped, spent, meter.refused, time.monotonic() - began, ended)

    def job(self, task: Task, url: str, folder: Path) -> Job:
        """Return a task as a job. Its instructions are those that this project's own screen begins with."""
        budget = self.budget
        return Job(
            url=url,
            model=SERVED,
            weights=self.weights,
            instructions=tuple(text for text in instructions(ScreenStageConfig(), task) if text),
            description=task.description,
            label_words=task.label_words,
            train=rows_of(task, "train"),
            dev=rows_of(task, "dev"),
            forwards=budget.queries * len(task.train),
            proposals=budget.proposals,
            seconds=budget.seconds,
            write_tokens=budget.write_tokens,
            seed=0,
            threads=self.threads,
            folder=str(folder),
        )


@dataclass(frozen=True, slots=True)
class Searched:
    """What came of a search: what is shipped, if anything, and what ended it."""

    shipped: Shipped | None
    spent: Spent
    refused: int
    seconds: float
    ended: str


def command_of(peer: str, python: str) -> list[str]:
    """Return how a peer is called, without the two paths."""
    if peer == "peft":
        return [sys.executable, "-m", "benchmarks.peers.peft_peer"]
    return [python, "-m", TEXT_PEERS[peer][0]]


def run_peer(peer: str, job: Job, python: str) -> tuple[Shipped | None, str]:
    """Run a peer's search in a process of its own; return what it ships, if anything, and what ended it."""
    folder = Path(job.folder)
    asked, answer, log = folder / "job.json", folder / "shipped.json", folder / "log.txt"
    answer.unlink(missing_ok=True)
    write_job(job, asked)
    extra = TEXT_PEERS[peer][1:] if peer in TEXT_PEERS else ()
    command = [*command_of(peer, python), str(asked), str(answer), *extra]
    environment = {**os.environ, **QUIET, "DSPY_CACHEDIR": str(folder / "cache"), "OMP_NUM_THREADS": str(job.threads)}
    with log.open("wb") as output:
        try:
            code = subprocess.run(
                command,
                cwd=ROOT,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=job.seconds + GRACE,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            return None, f"it did not end {GRACE:g} seconds after its time"
    if code == 0 and answer.exists():
        shipped = read_shipped(answer)
        return shipped, shipped.ended
    said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["nothing"]
    return None, f"it failed with exit status {code}: {said[-1][:200]}"
