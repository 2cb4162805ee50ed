"""Turn-taking of measured cases, round by round, each in the process of its method and dtype."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.rows import Block, Case, Measured, Timing
from benchmarks.worker import Ask, Dtype, Method, Sample, Setup, Worker

PATIENCE = 5.0  # seconds of measurements after which a case that nothing is claimed of gets no more
SLOW = 5.0  # seconds that one measurement of such a case should not exceed
CHECKED = 8  # examples whose plain losses are computed where a layout's plain form is not timed
COMPARED = 4  # candidates whose losses in bfloat16 are compared with the plain form's
WARM_UP = 2  # candidates and examples of the first request


@dataclass(frozen=True, slots=True)
class Turns:
    """Settings of a run. ``claimed`` cases are measured in full and in every round; ``every`` case with all P."""

    model: str
    threads: int
    rounds: int
    claimed: frozenset[Case] = frozenset()
    every: bool = False


@dataclass(eq=False, slots=True)
class Task:
    """A case with the process that measures it and the samples so far."""

    case: Case
    worker: Worker
    asked: int
    steady: bool
    samples: list[Sample] = field(default_factory=list)

    def wanted(self, rounds: int) -> bool:
        """Is there to be another sample?"""
        spent = sum(sample.seconds for sample in self.samples)
        return len(self.samples) < rounds and (self.steady or spent < PATIENCE)

    def measure(self) -> None:
        """Take a sample."""
        self.samples.append(self.worker.measure(Ask(self.case.layout, self.asked)))

    def timing(self) -> Timing:
        """Return what was found; the first of three samples or more only warmed up."""
        timed = self.samples[1:] if len(self.samples) > 2 else self.samples
        seconds = tuple(sample.seconds / self.asked for sample in timed)
        return Timing(seconds, self.asked, self.samples[0].losses, self.samples[0].peak)


Key = tuple[Method, Dtype]


def measure(cases: Sequence[Case], turns: Turns, say: Callable[[str], None] = lambda line: None) -> Measured:
    """Measure the cases, one block after another."""
    began = time.perf_counter()
    measured = Measured({}, {}, {}, {}, {})
    for block in dict.fromkeys(case.block for case in cases):
        mine = [case for case in cases if case.block == block]
        workers = _start(block, mine, turns)
        try:
            measured.facts[block] = [worker.facts() for worker in workers.values()].pop()
            for worker in workers.values():
                _warm_up(worker)
            tasks = [_task(case, workers[case.method, case.dtype], turns) for case in mine]
            for number in range(turns.rounds):
                say(f"{time.perf_counter() - began:4.0f} s  {block.texts}, L = {block.length}: round {number + 1}")
                _round(tasks, turns, measured.rates)
            measured.timings.update(_timings(tasks))
            say(f"{time.perf_counter() - began:4.0f} s  {block.texts}, L = {block.length}: exactness")
            _exactness(block, mine, workers, measured)
        finally:
            for worker in workers.values():
                worker.stop()
    return measured


def _start(block: Block, cases: Sequence[Case], turns: Turns) -> dict[Key, Worker]:
    """Start a process for each method and dtype; one of the plain way in float32 is always there to compare with."""
    keys: dict[Key, None] = dict.fromkeys([("plain", "float32"), *((case.method, case.dtype) for case in cases)])
    return {
        (method, dtype): Worker(Setup(method, dtype, block.length, block.texts, turns.model, turns.threads))
        for method, dtype in keys
    }


def _warm_up(worker: Worker) -> None:
    """Make what is made once: kernels everywhere, and the keys and values of the texts for the suffix layout."""
    match worker.setup.method:
        case "plain":
            worker.measure(Ask("prefix", 1, WARM_UP))
        case "suffix":
            worker.measure(Ask("suffix", WARM_UP))
        case layout:
            worker.measure(Ask(layout, WARM_UP, WARM_UP))


def _task(case: Case, worker: Worker, turns: Turns) -> Task:
    return Task(case, worker, case.candidates, case in turns.claimed)


def _round(tasks: Sequence[Task], turns: Turns, rates: dict[tuple[Block, Dtype], list[float]]) -> None:
    """Let every case that wants it have its turn, a matrix product before each."""
    for task in tasks:
        if not task.samples and not turns.every and not task.steady:
            task.asked = affordable(task, tasks)
        if task.wanted(turns.rounds) and _smaller(task, tasks) is None:
            rates.setdefault((task.case.block, task.case.dtype), []).append(task.worker.matmul_rate())
            task.measure()


def affordable(task: Task, tasks: Sequence[Task]) -> int:
    """Return how many candidates to ask for at once, an even number, going by what fewer of them took."""
    fewer = [t for t in tasks if t.worker is task.worker and t.samples and t.case.candidates < task.case.candidates]
    if not fewer or task.case.method == "plain":
        return task.case.candidates
    each = fewer[0].samples[-1].seconds / fewer[0].asked
    return int(np.clip(SLOW / each // 2 * 2, 2, task.case.candidates))


def _smaller(task: Task, tasks: Sequence[Task]) -> Task | None:
    """Return the case that measures the same with the same number of candidates already."""
    same = [t for t in tasks if t.worker is task.worker and t.case.layout == task.case.layout and t is not task]
    return next((t for t in same if t.samples and not task.samples and t.asked == task.asked), None)


def _timings(tasks: Sequence[Task]) -> dict[Case, Timing]:
    return {task.case: (_smaller(task, tasks) or task).timing() for task in tasks}


def _exactness(block: Block, cases: Sequence[Case], workers: dict[Key, Worker], measured: Measured) -> None:
    """Add what losses are compared with: plain ones, and the rounding noise of bfloat16.

    The plain losses in float32 are those that were timed, where they were, else those of the first examples.
    """
    for layout in dict.fromkeys(case.layout for case in cases if case.dtype == "float32"):
        timed = measured.timings.get(Case(block, "plain", layout, "float32", 1))
        asked = Ask(layout, 1, CHECKED)
        losses = workers["plain", "float32"].measure(asked).losses if timed is None else timed.losses
        measured.checks[block, layout, "float32"] = losses
    for layout in dict.fromkeys(case.layout for case in cases if case.dtype == "bfloat16" and case.method != "plain"):
        if rounded := workers.get(("plain", "bfloat16")):
            measured.checks[block, layout, "bfloat16"] = rounded.measure(Ask(layout, COMPARED)).losses
    for method, dtype in workers:
        if method != "plain" and dtype == "bfloat16":
            measured.noise[block, method] = workers[method, dtype].loss_noise()
