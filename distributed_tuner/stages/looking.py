"""Looks: a prompt is scored on all of train and dev, and the dev set says whether it becomes the selected one."""

from typing import Any

import numpy as np

from distributed_tuner.ledger.rows import LookRow
from distributed_tuner.maths.losses import predictions
from distributed_tuner.oracles.budgeted import BudgetedOracle
from distributed_tuner.stages.books import Books
from distributed_tuner.stages.prompt_space import PromptSpace, words_of
from distributed_tuner.stages.selection import Rule, Selected, is_better
from distributed_tuner.tasks.base import Task
from distributed_tuner.tasks.metrics import score
from distributed_tuner.values import Batch, Candidate, Cost, Evaluation, Request


class Looks:
    """Looks on behalf of one stage. ``best``: the trial's selected prompt so far, until a look beats it."""

    def __init__(
        self,
        task: Task,
        space: PromptSpace,
        oracle: BudgetedOracle,
        books: Books,
        rule: Rule,
        best: Selected | None,
    ) -> None:
        self._task = task
        self._space = space
        self._oracle = oracle
        self._books = books
        self._rule = rule
        self.selected = best

    def look(self, candidate: Candidate, step: int) -> LookRow:
        """Score a prompt and say what it is worth.

        Raises:
            BudgetExhausted: the two queries cannot be paid.
        """
        train = self._oracle.evaluate(self._on("train", candidate), keep=self._oracle.cost(self._on("dev", candidate)))
        dev = self._oracle.evaluate(self._on("dev", candidate))
        scores = scores_of(self._task, dev, self._task.batch("dev"))
        metric, loss = scores[self._task.metric], float(dev.losses[0])
        better = is_better(metric, loss, self.selected, self._rule)
        if better:
            self.selected = Selected(candidate, metric, loss, float(train.losses[0]))
        return LookRow(
            **self._books.names,
            step=step,
            train_loss=float(train.losses[0]),
            dev_loss=loss,
            dev_metric=metric,
            dev_metrics=scores,
            selected=better,
            text=words_of(candidate),
            **self._books.of(train.cost + dev.cost),
        )

    def cost(self) -> Cost:
        """Return what a look costs."""
        candidate = self._space.sample
        return self._oracle.cost(self._on("train", candidate)) + self._oracle.cost(self._on("dev", candidate))

    def _on(self, split: Any, candidate: Candidate) -> Request:
        return Request((candidate,), self._task.batch(split), self._space.spec)


def scores_of(task: Task, answer: Evaluation, batch: Batch, candidate: int = 0) -> dict[str, float]:
    """Return the task's metrics of one candidate of an answer."""
    labels = np.array([example.label for example in batch.examples])
    return score(task.metrics, predictions(answer.logits[candidate]), labels)
