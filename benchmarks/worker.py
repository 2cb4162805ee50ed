"""A process that measures one way of computing losses, once at each command, so that its peak memory is its own.

Its parent starts several and lets them take turns: what is compared is measured within seconds of each other, since a
machine's speed drifts. torch is imported in the worker alone, and the parent stays small.
"""

import multiprocessing
import resource
import sys
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from benchmarks.asking import plain_model, request
from benchmarks.plain import Plain, candidate_rows
from benchmarks.texts import ROWS, TextsName, batch
from distributed_tuner.config.oracle import TransformersOracleConfig
from distributed_tuner.oracles.checks.precision import calibrate
from distributed_tuner.oracles.local.loading import locate
from distributed_tuner.oracles.local.speed import matmul_rate, trunk_parameters
from distributed_tuner.values import Array, Batch, Layout

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

Method: TypeAlias = Literal["plain", "prefix", "suffix", "add"]
Dtype: TypeAlias = Literal["float32", "bfloat16"]


@dataclass(frozen=True, slots=True)
class Setup:
    """What a worker is: the plain way or the oracle in one layout, a dtype, L prompt rows, the texts."""

    method: Method
    dtype: Dtype
    length: int
    texts: TextsName
    model: str
    threads: int
    rows: int = ROWS


@dataclass(frozen=True, slots=True)
class Ask:
    """The first ``candidates`` candidates on the first ``examples`` examples (None: on all)."""

    layout: Layout
    candidates: int
    examples: int | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What the arithmetic needs of model and texts.

    trunk: weights that every token is multiplied with. lengths: tokens of each example beside the prompt's rows, by
    layout. cues: tokens of each example's cue.
    """

    trunk: int
    lengths: dict[Layout, tuple[int, ...]]
    cues: tuple[int, ...]


@dataclass(frozen=True, eq=False, slots=True)
class Sample:
    """One measurement: seconds for all the candidates, their example losses (C, E), the process's peak so far."""

    seconds: float
    losses: Array
    peak: int


class Worker:
    """The parent's end: starts the process; ``facts`` must be awaited before the first command."""

    def __init__(self, setup: Setup) -> None:
        context = multiprocessing.get_context("spawn")
        self.setup = setup
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, setup), daemon=True)
        self._process.start()
        theirs.close()

    def facts(self) -> Facts:
        """Wait until the model is loaded."""
        facts: Facts = self._receive()
        return facts

    def measure(self, ask: Ask) -> Sample:
        """Let the worker compute once."""
        self._pipe.send(ask)
        sample: Sample = self._receive()
        return sample

    def matmul_rate(self) -> float:
        """Return the operations a second of a large matrix product in the worker's dtype and threads, now."""
        self._pipe.send("rate")
        rate: float = self._receive()
        return rate

    def loss_noise(self) -> float:
        """Return the rounding noise of a loss difference as the oracle's calibration finds it; not of the plain way."""
        self._pipe.send("noise")
        noise: float = self._receive()
        return noise

    def stop(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join()

    def _receive(self) -> Any:
        try:
            return self._pipe.recv()
        except EOFError:
            raise RuntimeError(f"the worker of {self.setup} died; its error stands above") from None


def serve(pipe: "Connection", setup: Setup) -> None:
    """Answer commands until the parent closes the pipe."""
    import torch

    torch.set_num_threads(setup.threads)
    examples = batch(setup.texts, setup.rows)
    way = PlainWay(setup, examples) if setup.method == "plain" else OracleWay(setup, examples)
    pipe.send(facts_of(setup, examples))
    while True:
        try:
            command = pipe.recv()
        except EOFError:
            return
        if command == "rate":
            pipe.send(matmul_rate("cpu", getattr(torch, setup.dtype), setup.threads))
        elif command == "noise":
            assert isinstance(way, OracleWay), "only the oracle has a calibration"
            assert setup.method != "plain"
            pipe.send(way.loss_noise(setup.method))
        else:
            began = time.perf_counter()
            losses = way.losses(command)
            pipe.send(Sample(time.perf_counter() - began, losses, peak_memory()))


class PlainWay:
    """Computes example losses one candidate at a time, with transformers alone."""

    def __init__(self, setup: Setup, examples: Batch) -> None:
        model, tokenizer = plain_model(setup.model, setup.dtype)
        self._plain = Plain(model, tokenizer, examples)
        self._size = setup.length, model.get_input_embeddings().weight.shape[1]

    def losses(self, ask: Ask) -> Array:
        """Return the example losses (C, E)."""
        rows = [candidate_rows(i, *self._size) for i in range(ask.candidates)]
        return np.stack([self._plain.example_losses(each, ask.layout, ask.examples) for each in rows])


class OracleWay:
    """Asks the loss oracle for all candidates at once."""

    def __init__(self, setup: Setup, examples: Batch) -> None:
        from distributed_tuner.oracles.local.oracle import TransformersOracle

        config = TransformersOracleConfig(
            kind="transformers", model=setup.model, dtype=setup.dtype, device="cpu", threads=setup.threads
        )
        self._oracle = TransformersOracle(config)
        self._size = setup.length, self._oracle.info.width
        self._examples = examples

    def losses(self, ask: Ask) -> Array:
        """Return the example losses (C, E)."""
        chosen = replace(self._examples, examples=self._examples.examples[: ask.examples])
        answer = self._oracle.evaluate(request(ask.layout, ask.candidates, *self._size, chosen))
        return np.asarray(answer.example_losses, dtype=np.float32)

    def loss_noise(self, layout: Layout) -> float:
        """Return the rounding noise of a difference of two losses, found on four candidates."""
        asked = request(layout, 4, *self._size, self._examples)
        pairs = [asked.candidates[:2], asked.candidates[2:]]
        return calibrate(self._oracle, asked.batch, asked.prompt, pairs).noise


def facts_of(setup: Setup, examples: Batch) -> Facts:
    """Return the numbers of model and texts, from its configuration and its tokenizer."""
    from transformers import AutoConfig, AutoTokenizer

    where = locate(setup.model)
    plain = Plain(None, AutoTokenizer.from_pretrained(where), examples)
    layouts: tuple[Layout, ...] = ("prefix", "suffix", "add")
    lengths = {layout: plain.lengths(layout) for layout in layouts}
    return Facts(trunk_parameters(AutoConfig.from_pretrained(where)), lengths, plain.cue_tokens())


def peak_memory() -> int:
    """Return the most bytes that this process has had in memory."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
