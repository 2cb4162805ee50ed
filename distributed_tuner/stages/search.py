"""The search stage: ask, evaluate, tell, and now and then a look at what the optimizer recommends.

Owns the order of things and the ledger rows that tell of it. The optimizer proposes, the budgeted oracle answers and
pays; a look scores the recommended prompt on train and dev, and the dev set selects.
"""

import contextlib
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from distributed_tuner import optimizers
from distributed_tuner.config.stage import SearchStageConfig
from distributed_tuner.errors import BudgetExhausted
from distributed_tuner.ledger.rows import CostRow, EventRow, LookRow, Row, StepRow
from distributed_tuner.maths.losses import predictions
from distributed_tuner.oracles.budgeted import BudgetedOracle
from distributed_tuner.seeds import Key, generator
from distributed_tuner.stages.plan import StagePlan
from distributed_tuner.stages.racing import run_race
from distributed_tuner.stages.selection import Selected, is_better
from distributed_tuner.tasks.base import Task
from distributed_tuner.tasks.metrics import score
from distributed_tuner.values import Array, Array64, Batch, Candidate, Cost, Evaluation, Point, PromptSpec, Request


class SearchStage:
    """One search stage of one trial. ``advance`` does one step or one look and returns the rows that tell of it."""

    def __init__(
        self,
        config: SearchStageConfig,
        *,
        trial_id: str,
        stage: int,
        key: Key,
        task: Task,
        prompt: PromptSpec,
        oracle: BudgetedOracle,
        spent: Callable[[], Cost],
        elapsed: Callable[[], float],
        dim: int,
        plan: StagePlan,
        start: Array | None = None,
    ) -> None:
        self._config = config
        self._trial_id = trial_id
        self._names: dict[str, Any] = {"trial_id": trial_id, "stage": stage}
        self._key = (*key, stage)
        self._task = task
        self._prompt = prompt
        self._oracle = oracle
        self._spent = spent
        self._elapsed = elapsed
        self._plan = plan
        self._dim = dim
        self._optimizer = optimizers.build(
            config.optimizer, dim=dim, key=self._key, steps=max(1, plan.steps), start=start
        )
        self.selected: Selected | None = None
        self.done = False
        self.reason = ""
        self._step = 0
        self._since_look = 0
        self._looked = -1

    def advance(self) -> list[Row]:
        """Do the next step or look. Sets ``done`` and ``reason`` when the stage has ended."""
        before = self._spent()
        rows = self._advance()
        return [*rows, *self._given_up(before, rows)]

    def _advance(self) -> list[Row]:
        stopped = self._optimizer.stop_reason
        if self._looked < 0 or (self._since_look >= self._config.look_every and stopped is None):
            return self._try(self._look)
        if stopped is not None:
            return self._end(stopped, [EventRow(trial_id=self._trial_id, kind="optimizer_stop", message=stopped)])
        if self._step >= (self._plan.most if self._optimizer.race else self._plan.steps):  # what races save buys steps
            return self._end(f"all {self._step} planned steps done", [])
        return self._try(self._one_step)

    def state_dict(self) -> dict[str, Any]:
        """Return the stage between two calls of ``advance``."""
        return {
            "optimizer": self._optimizer.state_dict(),
            "selected": self.selected,
            "counters": (self._step, self._since_look, self._looked, self.done, self.reason),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the stage, to go on with the same bits."""
        self._optimizer.load_state_dict(state["optimizer"])
        self.selected = state["selected"]
        self._step, self._since_look, self._looked, self.done, self.reason = state["counters"]

    # ------------------------------------------------------------------------------------------------ parts
    def _try(self, part: Callable[[], list[Row]]) -> list[Row]:
        try:
            return part()
        except BudgetExhausted as exhausted:
            return self._end(f"budget spent ({exhausted})", [])

    def _end(self, reason: str, rows: list[Row]) -> list[Row]:
        """End the stage; what was learnt since the last look is looked at first, if it can still be paid."""
        if 0 <= self._looked < self._step:
            with contextlib.suppress(BudgetExhausted):
                rows = [*self._look(), *rows]
        self.done, self.reason = True, reason
        return rows

    def _given_up(self, before: Cost, rows: list[Row]) -> list[Row]:
        """Return a row for what was paid without an answer, so that the ledger tells of all that was spent."""
        told = sum((row.cost.value() for row in rows if isinstance(row, StepRow | LookRow)), before)
        lost = self._spent() - told
        if lost.queries == 0:
            return []
        lost = replace(lost, seconds=max(0.0, lost.seconds), usd=max(0.0, lost.usd))  # no -1e-17 from rounding
        names, books = self._names, self._books(lost)
        return [StepRow(**names, step=self._step + 1, loss=None, best_loss=None, failed=lost.queries, **books)]

    def _one_step(self) -> list[Row]:
        candidates = self._optimizer.ask()
        request = Request(tuple(candidates), self._train_batch(), self._prompt)
        try:
            losses, cost, saved = self._score(request)
        except BudgetExhausted:
            self._optimizer.tell([math.nan] * len(candidates))  # closes the step: a no-op by the optimizers' contract
            raise
        self._optimizer.tell([float(loss) for loss in losses])
        self._step += 1
        self._since_look += cost.queries
        finite = losses[np.isfinite(losses)]
        return [
            StepRow(
                **self._names,
                step=self._step,
                loss=float(finite.mean()) if finite.size else None,
                best_loss=float(finite.min()) if finite.size else None,
                failed=len(candidates) - int(finite.size),
                metrics={**self._optimizer.metrics(), **saved},
                **self._books(cost),
            )
        ]

    def _score(self, request: Request) -> tuple[Array64, Cost, dict[str, float]]:
        """Return the losses of a step's candidates, what they cost, and what racing them saved, where they are raced.

        A race begins only where the full evaluation can be paid.
        """
        keep, race = self._look_cost(), self._optimizer.race
        if race is None:
            answer = self._oracle.evaluate(request, keep=keep)
            return answer.losses, answer.cost, {}
        full = self._oracle.cost(request)
        self._oracle.require(full + keep)
        raced = run_race(request, race, lambda heat, queries: self._oracle.evaluate(heat, keep, queries))
        saved = {
            "queries_saved": float(full.queries - raced.cost.queries),
            "forwards_saved": float(full.forwards - raced.cost.forwards),
            "stopped_early": float(raced.stopped),
        }
        return raced.losses, raced.cost, saved

    def _look(self) -> list[Row]:
        candidate = self._optimizer.recommend()
        train = self._oracle.evaluate(
            self._request(candidate, self._task.batch("train")), keep=self._dev_cost(candidate)
        )
        dev = self._oracle.evaluate(self._request(candidate, self._task.batch("dev")))
        scores = scores_of(self._task, dev, self._task.batch("dev"))
        metric, loss = scores[self._task.metric], float(dev.losses[0])
        better = is_better(metric, loss, self.selected, self._config.select)
        if better:
            self.selected = Selected(candidate, metric, loss, float(train.losses[0]))
        self._looked, self._since_look = self._step, 0
        return [
            LookRow(
                **self._names,
                step=self._step,
                train_loss=float(train.losses[0]),
                dev_loss=loss,
                dev_metric=metric,
                dev_metrics=scores,
                selected=better,
                **self._books(train.cost + dev.cost),
            )
        ]

    def _books(self, cost: Cost) -> dict[str, Any]:
        return {"cost": CostRow.of(cost), "spent": CostRow.of(self._spent()), "elapsed": self._elapsed()}

    def _train_batch(self) -> Batch:
        size = self._optimizer.batch_size
        if size is None or size >= len(self._task.train):
            return self._task.batch("train")
        stream = generator((*self._key, "batch", self._step))
        return self._task.batch(
            "train", sorted(stream.choice(len(self._task.train), size=size, replace=False).tolist())
        )

    def _request(self, candidate: Candidate, batch: Batch) -> Request:
        return Request((candidate,), batch, self._prompt)

    def _look_cost(self) -> Cost:
        candidate = Point(np.zeros(self._dim, dtype=np.float32))  # every soft prompt costs the same
        return self._oracle.cost(self._request(candidate, self._task.batch("train"))) + self._dev_cost(candidate)

    def _dev_cost(self, candidate: Candidate) -> Cost:
        return self._oracle.cost(self._request(candidate, self._task.batch("dev")))


def scores_of(task: Task, answer: Evaluation, batch: Batch) -> dict[str, float]:
    """Return the task's metrics of the first candidate of an answer."""
    labels = np.array([example.label for example in batch.examples])
    return score(task.metrics, predictions(answer.logits[0]), labels)
