"""Runner of all contests: problems by name, their methods spread over processes of one thread each."""

import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from multiprocessing import get_context

from benchmarks.reproductions.trainable_optimizer.convex import logistic
from benchmarks.reproductions.trainable_optimizer.methods import Method, methods
from benchmarks.reproductions.trainable_optimizer.networks import Convolutional, Perceptron, digits
from benchmarks.reproductions.trainable_optimizer.problems import Problem
from benchmarks.reproductions.trainable_optimizer.prompts import prompt_tuning
from benchmarks.reproductions.trainable_optimizer.tuning import About, Contest, Entry, Plan, about, enter

PENALTY, BATCH = 0.01, 16
PROMPT_ROWS, PROMPT_SHOTS, PROMPT_BATCH = 4, 8, 4

PROBLEMS: dict[str, Callable[[int], Problem]] = {
    "logistic-breast-cancer-plain": partial(logistic, "breast_cancer", 0.0, BATCH),
    "logistic-breast-cancer-penalty": partial(logistic, "breast_cancer", PENALTY, BATCH),
    "logistic-digits-plain": partial(logistic, "digits", 0.0, BATCH),
    "logistic-digits-penalty": partial(logistic, "digits", PENALTY, BATCH),
    "perceptron": lambda seed: Perceptron(digits(seed), BATCH),
    "convolutional": lambda seed: Convolutional(digits(seed), BATCH),
    "prompt": partial(prompt_tuning, PROMPT_ROWS, PROMPT_SHOTS, PROMPT_BATCH),
}
"""What makes each problem from the comparison's seed; cheap ones first."""


@dataclass(frozen=True, slots=True)
class Job:
    """One method on one problem."""

    problem: str
    method: Method
    plan: Plan
    seed: int


@dataclass(frozen=True, eq=False, slots=True)
class Done:
    """A job's outcome: what the method did, or why it was left out."""

    job: Job
    about: About
    outcome: Entry | str


def hold(plans: Mapping[str, Plan], seed: int, note: Callable[[str], None], workers: int) -> list[Contest]:
    """Hold a contest for each of ``plans``, keyed as ``PROBLEMS``, in so many processes; one: in this process.

    The numbers, times aside, do not depend on ``workers``. ``note`` is told a line a job.

    Raises:
        ModelError: a problem's model cannot be had.
    """
    names = [name for name in PROBLEMS if name in plans]
    jobs = [Job(name, method, plans[name], seed) for name in reversed(names) for method in methods()]  # long ones first
    found: dict[tuple[str, str], Done] = {}
    for done in _in_processes(jobs, workers) if workers > 1 else _here(jobs):
        found[done.job.problem, done.job.method.name] = done
        outcome = done.outcome
        said = outcome.is_discrete() if isinstance(outcome, Entry) else f"{done.job.method.label} left out: {outcome}"
        note(f"{done.about.title}: {said}")
    return [_contest([found[name, method.name] for method in methods()]) for name in names]


def _contest(done: Sequence[Done]) -> Contest:
    """Return what the jobs of one problem, in the order of their methods, come to."""
    return Contest(
        done[0].about,
        done[0].job.plan,
        {one.job.method.name: one.outcome for one in done if isinstance(one.outcome, Entry)},
        {one.job.method.label: one.outcome for one in done if isinstance(one.outcome, str)},
    )


def _do(job: Job) -> Done:
    problem = _problem(job.problem, job.seed)
    reason = job.method.left_out(problem)
    return Done(job, about(problem), reason or enter(problem, job.method, job.plan, job.seed))


@lru_cache(maxsize=1)  # a problem's jobs follow each other, and one may hold a language model
def _problem(name: str, seed: int) -> Problem:
    return PROBLEMS[name](seed)


def _in_processes(jobs: Sequence[Job], workers: int) -> Iterator[Done]:
    """Yield jobs as they are done. Processes that are spawned share no threads or locks with this one."""
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _alone)
    try:
        for future in as_completed([pool.submit(_do, job) for job in jobs]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _alone() -> None:
    """Limit a process to one thread, because several processes share the cores."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the waiting process reports an interrupt
    torch.set_num_threads(1)


def _here(jobs: Sequence[Job]) -> Iterator[Done]:
    try:
        with _one_thread():
            yield from map(_do, jobs)
    finally:
        _problem.cache_clear()


@contextmanager
def _one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
