"""Trials in this process: a small task, the analytic oracle, and a clock that only oracles move."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from distributed_tuner import oracles
from distributed_tuner.config.experiment import Experiment
from distributed_tuner.config.validation import experiment_of
from distributed_tuner.errors import OracleTimeout
from distributed_tuner.ledger.rows import EvalRow, FeedbackRow, MeasureRow, RestartRow, Row, ScreenRow, StepRow
from distributed_tuner.oracles.base import evaluation, priced
from distributed_tuner.oracles.codec import PromptCodec, codec_of
from distributed_tuner.oracles.tiling import tile_count
from distributed_tuner.proposers.base import Ask, Proposer
from distributed_tuner.stages.state_classes import STATE_CLASSES
from distributed_tuner.stages.trial import Trial
from distributed_tuner.storage.serialization import decode, encode
from distributed_tuner.tasks.base import Task
from distributed_tuner.values import (
    Answer,
    Array,
    Cost,
    Evaluation,
    Example,
    OracleInfo,
    Request,
)

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "random_search": {"kind": "random_search", "popsize": 3},
    "zot": {"kind": "zot", "points": 2, "batch_size": 5, "learning_rate": 0.1, "momentum": 0.8},
    "cma": {"kind": "cma", "intrinsic_dim": 4, "popsize": 5},
    "nevergrad": {"kind": "nevergrad", "optimizer": "OnePlusOne", "intrinsic_dim": 4, "num_workers": 3},
}
WORDS = (("bad", "poor", "awful", "dull", "film"), ("good", "fine", "great", "bright", "film"))


def make_task(sizes: tuple[int, ...] = (3,), shots: int = 6) -> Task:
    """Return a task of two classes; texts take their numbers of words from ``sizes`` in turn."""
    stream = np.random.default_rng(0)

    def split(name: str, count: int) -> tuple[Example, ...]:
        return tuple(
            Example(f"{name}-{i}", " ".join(stream.choice(WORDS[i % 2], sizes[i % len(sizes)])), " It was", i % 2)
            for i in range(count)
        )

    return Task(
        name="words",
        label_words=(" bad", " good"),
        label_names=("0", "1"),
        loss="cross_entropy",
        label_rule="single",
        metrics=("accuracy",),
        manual_prompt="Judge.",
        description="words",
        train=split("train", 2 * shots),
        dev=split("dev", 2 * shots - 1),
        test=split("test", 15),
        feedback=split("feedback", 6),
    )


def make_experiment(*optimizers: dict[str, Any], budget: dict[str, Any], **more: Any) -> Experiment:
    """Return an experiment with one search stage for each optimizer; ``more`` replaces parts, ``stage`` adds to all."""
    stage = {"eval_every": 10, **more.pop("stage", {})}
    first = more.pop("first", {})
    stages = [{"kind": "search", "optimizer": optimizer, **stage} for optimizer in optimizers]
    stages[0] |= first
    return experiment_of(
        {
            "name": "some",
            "task": {"kind": "demo"},
            "oracle": {"kind": "analytic", "width": 3, "features": 16, "tile": {"candidates": 2, "examples": 8}},
            "prompt": {"length": 2, "init": "zeros", "layout": "prefix"},
            "stages": stages,
            "budget": budget,
        }
        | more
    )


@dataclass
class Clock:
    """Seconds that pass when someone says so."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class TimedOracle:
    """The analytic oracle on as many devices as there are tiles: a request takes ``seconds``, or is given up in time.

    ``spoil`` may return the logits that a request is answered with instead.
    """

    experiment: Experiment
    clock: Clock = field(default_factory=Clock)
    seconds: float = 0.125
    spoil: Callable[[Request, Array], Array] = field(default=lambda request, logits: logits)
    asked: list[Request] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._oracle = oracles.build(self.experiment.oracle)

    @property
    def info(self) -> OracleInfo:
        return self._oracle.info

    def cost(self, request: Request) -> Cost:
        return self._oracle.cost(request)

    def evaluate(self, request: Request, timeout: float = math.inf) -> Evaluation:
        self.asked.append(request)
        self.clock.now += min(self.seconds, timeout)
        if self.seconds > timeout:
            raise OracleTimeout("too late")
        tiles = tile_count(request, self.experiment.oracle.tile)
        cost = priced(replace(self.cost(request), seconds=self.seconds * tiles), self.experiment.oracle.price)
        answer = self._oracle.evaluate(request)
        return evaluation(self.spoil(request, answer.logits.copy()), request.batch, cost, answer.gradients)

    @property
    def codec(self) -> PromptCodec:
        return codec_of(self._oracle)


@dataclass
class Scripted:
    """A proposer that answers from a list, one answer a request, the last for ever; an exception is raised."""

    answers: Sequence[str | Exception]
    asked: list[Ask] = field(default_factory=list)
    label: str = "scripted"

    def answer(self, ask: Ask) -> Answer:
        self.asked.append(ask)
        answer = self.answers[min(len(self.asked), len(self.answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return Answer(answer, input_tokens=10, output_tokens=3, seconds=0.5, usd=0.001)


def make_trial(
    experiment: Experiment,
    task: Task | None = None,
    oracle: TimedOracle | None = None,
    proposer: Proposer | None = None,
) -> Trial:
    oracle = oracle or TimedOracle(experiment)
    proposers = None if proposer is None else lambda settings: proposer
    return Trial("some-0000", experiment, task or make_task(), oracle, clock=oracle.clock, proposers=proposers)


def run(trial: Trial) -> list[Row]:
    """Advance to the end; return all rows."""
    rows: list[Row] = []
    for _ in range(20_000):
        if trial.done:
            return rows
        rows.extend(trial.advance())
    raise AssertionError("the trial does not end")


def steps_of(rows: list[Row]) -> list[StepRow]:
    return [row for row in rows if isinstance(row, StepRow)]


def evals_of(rows: list[Row]) -> list[EvalRow]:
    return [row for row in rows if isinstance(row, EvalRow)]


def measures_of(rows: list[Row]) -> list[MeasureRow]:
    return [row for row in rows if isinstance(row, MeasureRow)]


def paid(rows: list[Row]) -> Cost:
    """Return the sum of what everything on the trial's budget cost."""
    bought = StepRow | EvalRow | FeedbackRow | RestartRow | ScreenRow
    return sum((row.cost.value() for row in rows if isinstance(row, bought)), Cost())


def travelled(state: dict[str, Any]) -> dict[str, Any]:
    """Return a state as a checkpoint gives it back."""
    back: dict[str, Any] = decode(encode(state, STATE_CLASSES), "the state", STATE_CLASSES)
    return back
