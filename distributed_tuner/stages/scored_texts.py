"""Losses of generated texts: 1 minus the metric that selects, over the set that was asked about.

They are computed in the process that asks, for a metric may be the user's own code."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np

from distributed_tuner.ledger.rows import EventRow
from distributed_tuner.oracles.base import LossOracle
from distributed_tuner.oracles.codec import PromptCodec, codec_of
from distributed_tuner.tasks.base import Task
from distributed_tuner.tasks.text_metrics import TextMetrics
from distributed_tuner.values import Cost, Evaluation, OracleInfo, Request


class TextScoringOracle:
    """Asks ``oracle``, and gives the texts that it generates their losses.

    A candidate with a failed answer has the loss NaN, and so has one whose metric raises or is no number; ``problem``
    names the first example of these.
    """

    def __init__(self, oracle: LossOracle, task: Task) -> None:
        self._oracle = oracle
        self._metrics = TextMetrics(task.text_metrics)
        self.problem = ""
        self._told = False

    @property
    def info(self) -> OracleInfo:
        return self._oracle.info

    @property
    def codec(self) -> PromptCodec:
        return codec_of(self._oracle)

    def cost(self, request: Request) -> Cost:
        return self._oracle.cost(request)

    def evaluate(self, request: Request, timeout: float = math.inf) -> Evaluation:
        answer = self._oracle.evaluate(request, timeout)
        if request.batch.question != "texts":
            return answer
        examples = request.batch.examples
        losses = np.full(len(request.candidates), np.nan)
        example_losses = np.full((len(losses), len(examples)), np.nan)
        failures = 0
        for i, texts in enumerate(answer.texts):
            if None in texts:
                continue
            found = self._metrics.first(texts, examples)
            losses[i] = 1.0 - found.value
            if found.problem:
                failures += 1
                self.problem = self.problem or found.problem
            elif self._metrics.first_is_of_rows:
                example_losses[i] = self._metrics.row_losses(texts, examples)
        counts = Counter(answer.counts) + Counter(failed_metrics=failures)
        return replace(answer, losses=losses, example_losses=example_losses, counts=counts)

    def news(self, trial_id: str | None = None) -> list[EventRow]:
        """Return the row of the first metric that could not be computed, once."""
        if self._told or not self.problem:
            return []
        self._told = True
        return [EventRow(trial_id=trial_id, kind="metric", message=f"{self.problem}; prompts that it scores fail")]
