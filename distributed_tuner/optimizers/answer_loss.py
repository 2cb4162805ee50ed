"""Losses of answers that no model gave: what an optimizer that predicts answers takes the loss from."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from distributed_tuner.errors import ConfigError
from distributed_tuner.heads.objective import has_slope, loss_and_slope
from distributed_tuner.values import Array64, Batch, LossName, Objective


@dataclass(frozen=True, slots=True)
class AnswerLoss:
    """The loss of a candidate by its answers to some examples: label-word scores (Q,), Q = E x W."""

    labels: tuple[int, ...]
    words: int
    loss: LossName
    objective: Objective

    @classmethod
    def of(cls, batch: Batch) -> "AnswerLoss":
        """Return the loss of a batch.

        Raises:
            ConfigError: it has no slope by the answers.
        """
        if not has_slope(batch.loss, batch.objective):
            raise ConfigError(
                "a surrogate of answers needs a loss with a slope, but task.loss is"
                f" {batch.loss}, objective.head {batch.objective.head} and objective.score {batch.objective.score}; set"
                " task.loss: cross_entropy and objective: {head: bias, score: train}, or the optimizer's of: losses"
            )
        labels = tuple(example.label for example in batch.examples)
        return cls(labels, len(batch.label_words), batch.loss, batch.objective)

    def __call__(self, outputs_Q: Array64) -> tuple[float, Array64]:
        """Return the loss of answers, and its slope by them, (Q,)."""
        m_E_W = outputs_Q.reshape(len(self.labels), self.words)
        loss, slope_E_W = loss_and_slope(m_E_W, np.array(self.labels), self.loss, self.objective)
        return loss, slope_E_W.reshape(-1)

    def save(self) -> dict[str, Any]:
        """Return the state."""
        return {**asdict(self), "labels": list(self.labels)}

    @classmethod
    def restored(cls, state: dict[str, Any]) -> "AnswerLoss":
        """Return the loss that ``save`` wrote."""
        return cls(tuple(state["labels"]), state["words"], state["loss"], Objective(**state["objective"]))
