"""Evaluation: a prompt is scored on all of train and dev and read by the head; that says whether it is the selected
one."""

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from distributed_tuner.config.head import HeadConfig
from distributed_tuner.ledger.rows import EvalRow
from distributed_tuner.oracles.wrappers.budgeted import BudgetedOracle
from distributed_tuner.stages.accounting import Accounting
from distributed_tuner.stages.ensemble import Archive
from distributed_tuner.stages.prompt_space import PromptSpace, words_of
from distributed_tuner.stages.reading import BOTH, Reader, predicted
from distributed_tuner.stages.selection import Rule, Selected, is_better
from distributed_tuner.stages.target_reading import TargetReader
from distributed_tuner.tasks.base import Task
from distributed_tuner.tasks.metrics import score
from distributed_tuner.tasks.text_metrics import TextMetrics
from distributed_tuner.values import Batch, Candidate, Cost, Evaluation, Request, Split

AnyReader: TypeAlias = Reader | TargetReader


class Validator:
    """Evaluations on behalf of one stage. ``best``: the trial's selected prompt so far, until an evaluation beats it.

    ``screen``: the stage is a screen. ``archive``: takes in what is evaluated.
    """

    def __init__(
        self,
        reader: AnyReader,
        space: PromptSpace,
        oracle: BudgetedOracle,
        accounting: Accounting,
        rule: Rule,
        best: Selected | None,
        screen: bool = False,
        archive: Archive | None = None,
    ) -> None:
        self._archive = archive
        self._screen = screen
        self._reader = reader
        self._space = space
        self._oracle = oracle
        self._accounting = accounting
        self._rule = rule
        self.selected = best

    def evaluate(self, candidate: Candidate, step: int, shown: Sequence[int] = ()) -> EvalRow:
        """Score a prompt and say what it is worth. ``shown``: places in train of rows that stand in the prompt.

        Raises:
            BudgetExhausted: the queries cannot be paid.
        """
        asked = [Request((candidate,), batch, self._space.spec) for batch in batches(self._reader)]
        costs = [self._oracle.cost(request) for request in asked]
        answers = []
        for index, request in enumerate(asked):
            answers.append(self._oracle.evaluate(request, keep=sum(costs[index + 1 :], Cost())))
        train, dev, *further = answers
        read = self._reader.read(train, dev, further[0] if further else None, shown)
        metric = read.dev_metrics.get(self._reader.task.metric, float("nan"))
        better = is_better(metric, read.dev_loss, read.score, self.selected, self._rule)
        train_loss = float(train.losses[0])
        if self._archive is not None:
            self._archive.offer(candidate, self._reader.task, read)
        if better:
            self.selected = Selected(candidate, metric, read.dev_loss, train_loss, read.score, read.state)
        return EvalRow(
            **self._accounting.names,
            step=step,
            train_loss=train_loss,
            dev_loss=read.dev_loss,
            dev_metric=metric,
            dev_metrics=read.dev_metrics,
            score=read.score,
            losses=[round(float(loss), 5) for loss in read.losses] if better else [],
            selected=better,
            screen=self._screen,
            text=words_of(candidate),
            **self._accounting.of(sum((answer.cost for answer in answers), Cost())),
        )

    def cost(self) -> Cost:
        """Return what an evaluation costs."""
        return eval_cost(self._reader, self._space, self._oracle.cost)


def reader_of(task: Task, head: HeadConfig, on: tuple[Split, ...] = BOTH) -> AnyReader:
    """Return what reads a task's answers. ``on``: what the head that goes with a prompt is fitted to."""
    return TargetReader(task) if task.has_targets else Reader(task, head, on)


def batches(reader: AnyReader) -> list[Batch]:
    """Return what an evaluation asks of a prompt: train, dev, and what the reader needs further."""
    further = reader.further
    return [reader.batch("train"), reader.batch("dev"), *([] if further is None else [further])]


def eval_cost(reader: AnyReader, space: PromptSpace, cost: Any) -> Cost:
    """Return what an evaluation costs, by the costs of a request."""
    return sum((cost(Request((space.sample,), batch, space.spec)) for batch in batches(reader)), Cost())


def scores_of(task: Task, answer: Evaluation, batch: Batch, candidate: int = 0) -> dict[str, float]:
    """Return the task's metrics of one candidate of an answer, read by the label words as they are, or of its texts.

    NaN of likelihoods, which no metric is of.
    """
    if task.has_targets:
        if not answer.texts:
            return dict.fromkeys(task.metrics, math.nan)
        return TextMetrics(task.text_metrics).scores(answer.texts[candidate], batch.examples)
    labels = np.array([example.label for example in batch.examples])
    return score(task.metrics, predicted(answer.logits[candidate], labels), labels)
