"""Untuned baselines: the manual prompt as it is and with a head, and a bag of words without a model."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks.study.plan import Job
from benchmarks.study.rows import Row
from distributed_tuner.baselines import bag_of_words_scores
from distributed_tuner.oracles.base import LossOracle
from distributed_tuner.prompts.spec import NO_ROWS
from distributed_tuner.stages.reading import Read, Reader, fitted_on
from distributed_tuner.stages.validation import batches, scores_of
from distributed_tuner.values import Cost, Request, Text


@dataclass(frozen=True, eq=False, slots=True)
class Untuned:
    """The manual prompt, read by a head. test_metric, test_label_words: on test, by the head and as it is; None by the
    head where it could not be fitted. cost: of what fitted the head."""

    read: Read
    test_metric: float | None
    test_label_words: float
    cost: Cost

    def dev_losses(self, rows: int) -> Sequence[float | None]:
        """Return the losses of the rows of dev, as an evaluation of a tuned prompt tells them."""
        return [round(float(loss), 5) for loss in self.read.losses[-rows:]]


def ask_untuned(job: Job, oracle: LossOracle) -> Untuned:
    """Ask the manual prompt, and read it by the job's head. ``oracle`` may have its answers already."""
    task, metric = job.prepared.baselines()[0][1], job.plain_task.metric
    reader = Reader(task, job.experiment.head, fitted_on(job.experiment))

    def request(of: str) -> list[Request]:
        asked = [reader.batch("test")] if of == "test" else batches(reader)
        return [Request((Text(task.manual_prompt),), batch, NO_ROWS) for batch in asked]

    train, dev, *references = map(oracle.evaluate, request("fit"))
    read = reader.read(train, dev, references[0] if references else None)
    test = oracle.evaluate(request("test")[0])
    found = None
    if math.isfinite(read.score):
        found = reader.measure(read.state, [test], "test")[1][metric]
    cost = sum(map(oracle.cost, request("fit")), Cost())
    return Untuned(read, found, scores_of(task, test, reader.batch("test"))[metric], cost)


def untuned_rows(job: Job, oracle: LossOracle) -> list[Row]:
    """Return the rows of what is below all methods."""
    untuned, dtype = ask_untuned(job, oracle), oracle.info.dtype
    read, plain = untuned.read, untuned.test_label_words
    by_head = replace(
        _row(job, "manual_head", untuned.test_metric, dtype),
        queries=untuned.cost.queries,
        forwards=untuned.cost.forwards,
        tokens=untuned.cost.tokens,
        train_loss=_finite(read.train_loss),
        score=_finite(read.score),
        dev_metric=read.dev_metrics.get(job.plain_task.metric),
        test_label_words=plain,
    )
    bag = bag_of_words_scores(job.plain_task, "test", fitted_on(job.experiment))[job.plain_task.metric]
    return [
        replace(_row(job, "manual", plain, dtype), test_label_words=plain),
        by_head,
        _row(job, "bag_of_words", bag, ""),
    ]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _row(job: Job, method: str, metric: float | None, dtype: str) -> Row:
    task = job.plain_task
    return Row(
        task=job.task,
        method=method,
        shots=job.shots,
        split=job.split,
        budget=0,
        queries=0,
        forwards=0,
        tokens=0,
        seconds=None,
        train_loss=None,
        score=None,
        dev_metric=None,
        test_metric=metric,
        test_label_words=None,
        p_value=None,
        returned="manual",
        returned_metric=metric,
        test_rows=len(task.test),
        metric=task.metric,
        dtype=dtype,
    )
