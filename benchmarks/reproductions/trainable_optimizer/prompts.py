"""Prompt tuning of SmolLM2-135M on the shipped task, by gradients of this project's own oracle."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.reproductions.trainable_optimizer.problems import Picks
from distributed_tuner.maths.losses import predictions
from distributed_tuner.oracles.base import LossOracle, value_and_grad
from distributed_tuner.seeds import Key
from distributed_tuner.tasks.base import Task
from distributed_tuner.tasks.metrics import accuracy
from distributed_tuner.values import Array, Array64, Batch, Point, PromptSpec, Request

START = "\nIssue type."


@dataclass(frozen=True, eq=False, slots=True)
class PromptTuning:
    """Mean loss of a frozen model on the task's training examples, by the coordinates of a soft prompt.

    Held out is the task's dev set: nothing is selected by it here. Runs begin at the prompt's base rows, w = 0. A run
    that is not finite is not asked for; its loss and gradient are NaN.
    """

    oracle: LossOracle
    task: Task
    spec: PromptSpec
    batch_size: int
    name: str = "prompt"
    title: str = "Prompt tuning of SmolLM2-135M"
    optimum: float | None = None

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        return ((self.spec.length, self.oracle.info.width),)

    @property
    def examples(self) -> int:
        return len(self.task.train)

    def start(self, key: Key) -> Array:
        return np.zeros(self.spec.length * self.oracle.info.width, dtype=np.float32)

    def gradients(self, w_R_d: Array, picks_R_B: Picks) -> Array:
        batches = [self.task.batch("train", picks.tolist()) for picks in picks_R_B]
        return np.stack([self._asked(w, batch)[1] for w, batch in zip(w_R_d, batches, strict=True)])

    def losses(self, w_R_d: Array) -> Array64:
        found, finite = np.full(len(w_R_d), np.nan), np.isfinite(w_R_d).all(axis=1)
        if finite.any():
            found[finite] = self.oracle.evaluate(self._request(w_R_d[finite], self.task.batch("train"))).losses
        return found

    def losses_and_gradients(self, w_R_d: Array) -> tuple[Array64, Array]:
        batch = self.task.batch("train")
        found = [self._asked(w, batch) for w in w_R_d]
        return np.array([loss for loss, _ in found]), np.stack([gradient for _, gradient in found])

    def accuracy(self, w_R_d: Array) -> Array64 | None:
        batch = self.task.batch("dev")
        found, finite = np.full(len(w_R_d), np.nan), np.isfinite(w_R_d).all(axis=1)
        if finite.any():
            logits_C_E_W = self.oracle.evaluate(self._request(w_R_d[finite], batch)).logits
            labels = [example.label for example in batch.examples]
            found[finite] = [accuracy(predictions(logits), labels) for logits in logits_C_E_W]
        return found

    def _asked(self, w: Array, batch: Batch) -> tuple[float, Array]:
        if not np.isfinite(w).all():
            return np.nan, np.full_like(w, np.nan)
        answer = value_and_grad(self.oracle, self._request(w[None], batch))
        assert answer.gradients is not None
        return float(answer.losses[0]), answer.gradients[0]

    def _request(self, w_R_d: Array, batch: Batch) -> Request:
        return Request(tuple(Point(w.copy()) for w in w_R_d), batch, self.spec)


def prompt_tuning(length: int, shots: int, batch_size: int, seed: int) -> PromptTuning:
    """Return the problem with the model loaded: a prompt of ``length`` rows, ``shots`` examples a class.

    seed: draws these few examples.

    Raises:
        ModelError: the model cannot be had.
    """
    from distributed_tuner import oracles, tasks
    from distributed_tuner.config.oracle import TransformersOracleConfig
    from distributed_tuner.config.task import DemoTaskConfig

    config = TransformersOracleConfig(kind="transformers", dtype="float32", device="cpu", threads=1, gradients=True)
    task = tasks.build(DemoTaskConfig(kind="demo", shots=shots, split_seed=seed, loss="cross_entropy"), Path())
    return PromptTuning(
        oracle=oracles.build(config),
        task=task,
        spec=PromptSpec(length, "text", START, "suffix", "embedding"),
        batch_size=batch_size,
    )
