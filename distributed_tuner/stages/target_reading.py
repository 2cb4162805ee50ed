"""Reading of tasks with targets: what a prompt's likelihoods and generated texts come to. Nothing is fitted."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from distributed_tuner.stages.reading import BOTH, Read, TrainScore
from distributed_tuner.tasks.base import Task
from distributed_tuner.tasks.text_metrics import TextMetrics
from distributed_tuner.values import Array64, Batch, Evaluation, Split


class TargetReader:
    """Reads answers for a task with targets, as a ``Reader`` those for labels.

    Train steers, so that dev alone selects: ``Read.score`` is the loss on dev.
    """

    on: tuple[Split, ...] = BOTH

    def __init__(self, task: Task) -> None:
        self.task = task
        self._metrics = TextMetrics(task.text_metrics)

    @property
    def further(self) -> Batch | None:
        """What an evaluation asks for after train and dev: texts on dev where the likelihood steers."""
        return self.task.generated_batch("dev") if self.task.steers == "likelihood" else None

    def batch(self, split: Split) -> Batch:
        """Return a split as it is asked for."""
        return self.task.batch(split)

    def measured(self, split: Split) -> list[Batch]:
        """Return what the final scores on a split ask for: texts, and likelihoods where these steer."""
        likelihoods = [self.task.likelihood_batch(split)] if self.task.steers == "likelihood" else []
        return [self.task.generated_batch(split), *likelihoods]

    def of(self, task: Task) -> "TargetReader":
        """Return the like reader of another task."""
        return TargetReader(task)

    def left_on_train(self, train: Evaluation, shown: Sequence[int] = ()) -> TrainScore:
        """Return the scores on the rows of train that do not stand in the prompt."""
        rows = [row for row in range(len(self.task.train)) if row not in shown]
        if not train.texts:
            return TrainScore(float(train.example_losses[0][rows].mean()), math.nan)
        found = self._metrics.first([train.texts[0][row] for row in rows], [self.task.train[row] for row in rows])
        return TrainScore(1.0 - found.value, found.value)

    def read(
        self, train: Evaluation, dev: Evaluation, further: Evaluation | None = None, shown: Sequence[int] = ()
    ) -> Read:
        """Read one prompt's answers to train and dev. ``shown``: places in train of rows that stand in the prompt."""
        texts = dev.texts if further is None else further.texts
        metrics = self._metrics.scores(texts[0], self.task.dev)
        losses = np.concatenate([self._losses(train, "train"), self._losses(dev, "dev")])
        losses[list(shown)] = np.nan
        left = self.left_on_train(train, shown)
        dev_loss = float(dev.losses[0])
        train_metrics = {} if math.isnan(left.metric) else {self.task.metric: left.metric}
        nothing = np.zeros((len(losses), 0))
        return Read(losses, dev_loss, dev_loss, metrics, left.loss, train_metrics, {}, nothing)

    def measure(
        self, state: Mapping[str, Array64], answers: Sequence[Evaluation], split: Split
    ) -> tuple[float, dict[str, float]]:
        """Return loss and metrics of the answers to ``measured``."""
        texts, *likelihoods = answers
        scores = self._metrics.scores(texts.texts[0], self.task.examples(split))
        loss = float(likelihoods[0].losses[0]) if likelihoods else 1.0 - scores[self.task.metric]
        return loss, scores

    def _losses(self, answer: Evaluation, split: Split) -> Array64:
        if answer.texts:
            return self._metrics.row_losses(answer.texts[0], self.task.examples(split))
        return np.asarray(answer.example_losses[0])
