"""The process that asks one tree's oracle: run by its path, with the package of whichever tree ``PYTHONPATH`` names.

The same file serves both sides of a comparison, so it uses only what every revision has, and nothing of ``benchmarks``.
It reads lines of JSON, the first one its setup, and answers each with one; it ends when its input does.
"""

import importlib
import importlib.util
import json
import math
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

from distributed_tuner.config.oracle import TransformersOracleConfig
from distributed_tuner.values import Batch, Candidate, Center, Example, Perturbation, Point, PromptSpec, Request

REQUESTS, CANDIDATES = 3, 16  # of the quickstart: trials, each with one request in flight, and candidates of a step
TILE = 4  # candidates of a tile on a CPU
RADIUS = 0.1
MATRIX = (1024, 1024, 2048)
MATRIX_SECONDS = 0.3
UP_SECONDS = 300.0  # in which all actors must have started


@dataclass(frozen=True, slots=True)
class Asked:
    """Whoever answers, once for each asker, and what is told of it."""

    oracles: Sequence[Any]
    facts: dict[str, Any]


class Server:
    """Answers commands with the oracle; texts and prompt are those that were set last."""

    def __init__(self, asked: Asked) -> None:
        self._oracles = asked.oracles
        self._width = int(asked.facts["width"])
        self._batch: Batch | None = None
        self._prompt: PromptSpec | None = None
        self._steps = 0

    def answer(self, command: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to a command."""
        match command.pop("do"):
            case "task":
                self._batch, self._prompt = _batch(command["batch"]), PromptSpec(**command["prompt"])
                self._steps = 0
                return {}
            case "rate":
                return self.rate(**command)
            case "losses":
                points = tuple(Point(np.asarray(vector, dtype=np.float32)) for vector in command["points"])
                answer = self._oracles[0].evaluate(self._request(points))
                return {"losses": np.asarray(answer.example_losses, dtype=np.float64).tolist()}
            case "matmul":
                return {"rate": matmul_rate(command["dtype"])}
            case unknown:
                raise ValueError(f"a command must be task, rate, losses or matmul, but is {unknown!r}")

    def rate(self, candidates: int, requests: int) -> dict[str, Any]:
        """Ask so many requests, one in flight for each asker; return the seconds, and this process's CPU seconds."""
        waiting: SimpleQueue[Request] = SimpleQueue()
        for _ in range(requests):
            waiting.put(self._request(self._pairs(candidates)))
        failures: list[BaseException] = []

        def ask(oracle: Any) -> None:
            try:
                while True:
                    oracle.evaluate(waiting.get_nowait())
            except Empty:
                return
            except BaseException as error:
                failures.append(error)

        began, worked = time.perf_counter(), time.process_time()
        if len(self._oracles) == 1:  # torch keeps its threads by the thread that asks
            ask(self._oracles[0])
        else:
            threads = [threading.Thread(target=ask, args=(oracle,), daemon=True) for oracle in self._oracles]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        seconds, cpu = time.perf_counter() - began, time.process_time() - worked
        if failures:
            raise failures[0]
        return {"seconds": seconds, "cpu": cpu}

    def _pairs(self, candidates: int) -> tuple[Candidate, ...]:
        """Pairs around a centre that is another one each step, as ZOT asks."""
        assert self._prompt is not None, "a task comes first"
        self._steps += 1
        vector = np.full(self._prompt.length * self._width, 0.01 * self._steps, dtype=np.float32)
        center = Center(f"against-{self._prompt.layout}-{self._steps}", vector)
        pairs = range(candidates // 2)
        return tuple(Perturbation(center, ("against", self._steps, i), sign, RADIUS) for i in pairs for sign in (1, -1))

    def _request(self, candidates: tuple[Candidate, ...]) -> Request:
        assert self._batch is not None and self._prompt is not None, "a task comes first"
        return Request(candidates, self._batch, self._prompt)


@contextmanager
def pool(config: TransformersOracleConfig) -> Iterator[Asked]:
    """Have a pool on a Ray of its own, as a run has it."""
    from actors.cluster import cluster
    from actors.pool.pool import Pool

    config = resolve(config)
    with cluster(config, None):
        started = Pool.start(config, f"against-{os.getpid()}")
        try:
            until = time.monotonic() + UP_SECONDS
            while started.statistics().up < config.first_actors:
                if time.monotonic() > until:
                    raise RuntimeError(f"all oracle actors must be up within {UP_SECONDS:.0f} s, but some are not")
                time.sleep(0.2)
            oracles = [started.oracle.for_client(f"trial-{i:04d}") for i in range(REQUESTS)]
            yield Asked(oracles, _facts(started.oracle, config))
        finally:
            started.stop()


@contextmanager
def in_process(config: TransformersOracleConfig) -> Iterator[Asked]:
    """Have an oracle in this process."""
    import torch

    from distributed_tuner import oracles

    torch.set_num_threads(threads_of(config))
    oracle = oracles.build(config)
    yield Asked([oracle], _facts(oracle, config))


def resolve(config: TransformersOracleConfig) -> TransformersOracleConfig:
    """Return the settings that a pool starts with."""
    name = "distributed_tuner.oracles.pool_size"  # older trees have numbers for defaults
    if importlib.util.find_spec(name) is None:
        return config
    pool_size: Any = importlib.import_module(name)
    tiles = REQUESTS * math.ceil(CANDIDATES / TILE)
    resolved: TransformersOracleConfig = pool_size.sized(config, slots=pool_size.usable_cores(), tiles=tiles)
    return resolved


def threads_of(config: TransformersOracleConfig) -> int:
    """Return an oracle's threads; older trees have no "auto"."""
    threads: int = getattr(config, "thread_count", None) or int(config.threads)
    return threads


def matmul_rate(dtype: str) -> float:
    """Return the operations a second of a large matrix product, with as many threads as torch has now."""
    import torch

    rows, inner, columns = MATRIX
    a, b = (torch.randn(shape).to(getattr(torch, dtype)) for shape in ((rows, inner), (inner, columns)))
    _ = a @ b
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < MATRIX_SECONDS:
        _ = a @ b
        count += 1
    return 2.0 * rows * inner * columns * count / (time.perf_counter() - began)


def main() -> None:
    """Serve until the input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever else is printed is no answer

    def send(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    setup = json.loads(sys.stdin.readline())
    config = TransformersOracleConfig(kind="transformers", **setup["config"])
    with (pool if setup["pool"] else in_process)(config) as asked:
        send(asked.facts)
        server = Server(asked)
        for line in sys.stdin:
            send(server.answer(json.loads(line)))


def _facts(oracle: Any, config: TransformersOracleConfig) -> dict[str, Any]:
    import distributed_tuner

    info = oracle.info
    return {
        "package": distributed_tuner.__file__,
        "width": info.width,
        "dtype": info.dtype,
        "threads": config.threads,
        "actors": config.first_actors,
    }


def _batch(told: dict[str, Any]) -> Batch:
    known = {field.name for field in fields(Example)}  # of this tree's: the other one may have more
    examples = tuple(
        Example(**{name: value for name, value in example.items() if name in known}) for example in told["examples"]
    )
    return Batch(examples, tuple(told["label_words"]), told["split"])


if __name__ == "__main__":
    main()
