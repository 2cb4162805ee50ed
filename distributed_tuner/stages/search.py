"""The stages with an optimizer: ask, evaluate, tell, and now and then an evaluation of what it recommends.

Black box or white box, the loop is the same: a gradient stage asks for gradients along with losses. Owns the order of
things and the ledger rows that tell of it. The optimizer proposes, the budgeted oracle answers and pays, evaluations
select."""

import contextlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from distributed_tuner.config.stage import GradientStageConfig, SearchStageConfig
from distributed_tuner.errors import BudgetExhausted
from distributed_tuner.ledger.rows import EventRow, Row, StepRow
from distributed_tuner.optimizers.base import Optimizer
from distributed_tuner.oracles.base import counted, evened
from distributed_tuner.oracles.wrappers.budgeted import BudgetedOracle
from distributed_tuner.seeds import Key, generator
from distributed_tuner.stages.accounting import Accounting
from distributed_tuner.stages.ensemble import Archive
from distributed_tuner.stages.prompt_space import PromptSpace
from distributed_tuner.stages.racing import run_race
from distributed_tuner.stages.selection import Selected
from distributed_tuner.stages.stage import Stage
from distributed_tuner.stages.step_plan import StagePlan
from distributed_tuner.stages.trajectory import Trajectory
from distributed_tuner.stages.trial_state import Left, TrialState
from distributed_tuner.stages.validation import AnyReader, Validator
from distributed_tuner.tasks.base import Task
from distributed_tuner.values import Answers, Array, Array64, Batch, Candidate, Cost, Request


class SearchStage(Stage):
    """One search or gradient stage of one trial. ``advance`` does one step or one evaluation and returns their rows.

    ``optimizer`` is ready for its next ask; ``trajectory``, if there is one, is filled with the prompts of its way.
    ``best``: what the stages before selected. ``archive``: takes in what is evaluated.
    """

    def __init__(
        self,
        config: SearchStageConfig | GradientStageConfig,
        *,
        key: Key,
        reader: AnyReader,
        space: PromptSpace,
        oracle: BudgetedOracle,
        accounting: Accounting,
        plan: StagePlan,
        optimizer: Optimizer,
        trajectory: Trajectory | None,
        best: Selected | None,
        archive: Archive | None = None,
    ) -> None:
        self._config = config
        self._key = key
        self._task = reader.task
        self._space = space
        self._oracle = oracle
        self._accounting = accounting
        self._plan = plan
        self.optimizer = optimizer
        self.trajectory = trajectory
        self._validator = Validator(reader, space, oracle, accounting, config.select, best, archive=archive)
        self._step = 0
        self._since_eval = 0
        self._evaluated = -1

    @property
    def selected(self) -> Selected | None:
        """The trial's best prompt so far."""
        return self._validator.selected

    @property
    def steps(self) -> int:
        """The steps that are done."""
        return self._step

    @property
    def current(self) -> Candidate:
        """The optimizer's current recommendation."""
        return self.optimizer.recommend()

    def hand_over(self, state: TrialState, place: int) -> None:
        """Leave the optimizer to the next round, and its way to a restart stage."""
        state.current, state.trajectory = self.current, self.trajectory or Trajectory()
        state.left[place] = Left(self.optimizer.state_dict(), state.horizon)
        state.memory.incumbent_loss = None

    def advance(self) -> list[Row]:
        """Do the next step or evaluation. Sets ``done`` and ``reason`` when the stage has ended."""
        before = self._accounting.spent()
        rows = self._advance()
        return [*rows, *self._given_up(before, rows)]

    def _advance(self) -> list[Row]:
        stopped = self.optimizer.stop_reason
        if self._evaluated < 0 or (self._since_eval >= self._config.eval_every and stopped is None):
            return self._try(self._validate)
        if stopped is not None:
            row = EventRow(trial_id=self._accounting.trial_id, kind="optimizer_stop", message=stopped)
            return self._end(stopped, [row])
        if self._step >= (self._plan.most if self.optimizer.race else self._plan.steps):  # what races save buys steps
            return self._end(f"all {self._step} planned steps done", [])
        return self._try(self._one_step)

    def state_dict(self) -> dict[str, Any]:
        """Return the stage between two calls of ``advance``."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "trajectory": None if self.trajectory is None else self.trajectory.state_dict(),
            "selected": self.selected,
            "counters": (self._step, self._since_eval, self._evaluated, self.done, self.reason),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the stage, to go on with the same bits."""
        self.optimizer.load_state_dict(state["optimizer"])
        if self.trajectory is not None:
            self.trajectory.load_state_dict(state["trajectory"])
        self._validator.selected = state["selected"]
        self._step, self._since_eval, self._evaluated, self.done, self.reason = state["counters"]

    # ------------------------------------------------------------------------------------------------ parts
    def _try(self, part: Callable[[], list[Row]]) -> list[Row]:
        try:
            return part()
        except BudgetExhausted as exhausted:
            return self._end(f"budget spent ({exhausted})", [])

    def _end(self, reason: str, rows: list[Row]) -> list[Row]:
        """End the stage; what was learnt since the last evaluation is evaluated first, if it can still be paid."""
        if 0 <= self._evaluated < self._step:
            with contextlib.suppress(BudgetExhausted):
                rows = [*self._validate(), *rows]
        if self.trajectory is not None and self.optimizer.losses_are_of_the_start:
            self.trajectory.record(self._step, self.current, math.nan)  # where the last step led; never scored
        self.done, self.reason = True, reason
        return rows

    def _given_up(self, before: Cost, rows: list[Row]) -> list[Row]:
        """Return a row for the cost of requests without an answer, so that the ledger has all costs."""
        lost = self._accounting.given_up(before, rows)
        if lost is None:
            return []
        names, accounting = self._accounting.names, self._accounting.of(lost)
        return [StepRow(**names, step=self._step + 1, loss=None, best_loss=None, failed=lost.queries, **accounting)]

    def _one_step(self) -> list[Row]:
        before = self.current
        candidates = self.optimizer.ask()
        request = Request(tuple(candidates), self._train_batch(), self._space.spec, self.optimizer.white_box)
        try:
            scored = self._score(request)
        except BudgetExhausted:
            self._tell(request, _Scored(np.full(len(candidates), np.nan), Cost()))  # closes the step, teaches nothing
            raise
        self._tell(request, scored)
        losses, cost = scored.losses, scored.cost
        self._record(before, losses)
        self._step += 1
        # Evaluations come by what was asked, or a warm cache would put them off.
        self._since_eval += cost.queries if self.optimizer.race else counted(request, 0).queries
        finite = losses[np.isfinite(losses)]
        best = float(finite.min()) if finite.size else None
        return [
            StepRow(
                **self._accounting.names,
                step=self._step,
                loss=float(finite.mean()) if finite.size else None,
                best_loss=best,
                failed=len(candidates) - int(finite.size),
                metrics={**self.optimizer.metrics(), **scored.saved},
                **self._accounting.of(cost),
            )
        ]

    def _record(self, before: Candidate, losses: Array64) -> None:
        """Note a prompt with a loss of its own: where the step began if the losses are of there, else what it found."""
        if self.trajectory is None:
            return
        finite = losses[np.isfinite(losses)]
        if self.optimizer.losses_are_of_the_start:
            self.trajectory.record(self._step, before, float(finite.mean()) if finite.size else math.nan)
        else:
            self.trajectory.record(self._step + 1, self.current, float(finite.min()) if finite.size else math.nan)

    def _tell(self, request: Request, scored: "_Scored") -> None:
        count, batch = len(scored.losses), request.batch
        gradients, logits = scored.gradients, scored.logits
        if gradients is None and self.optimizer.white_box:
            gradients = np.full((count, self.optimizer.dim), np.nan, dtype=np.float32)
        if logits is None:
            logits = np.full((count, len(batch.examples), len(batch.label_words)), np.nan, dtype=np.float32)
        answers = Answers(evened(logits, logits), batch) if self.optimizer.wants_answers else None
        self.optimizer.tell([float(loss) for loss in scored.losses], gradients, answers)

    def _score(self, request: Request) -> "_Scored":
        """Return what a step's candidates are told, and what it cost.

        A race begins only where the full evaluation can be paid.
        """
        keep, race = self._validator.cost(), self.optimizer.race
        if race is None:
            answer = self._oracle.evaluate(request, keep=keep)
            return _Scored(answer.losses, answer.cost, answer.gradients, answer.logits)
        full = self._oracle.cost(request)
        self._oracle.require(full + keep)
        raced = run_race(request, race, lambda race_batch, queries: self._oracle.evaluate(race_batch, keep, queries))
        saved = {
            "queries_saved": float(full.queries - raced.cost.queries),
            "forwards_saved": float(full.forwards - raced.cost.forwards),
            "stopped_early": float(raced.stopped),
        }
        return _Scored(raced.losses, raced.cost, saved=saved)

    def _validate(self) -> list[Row]:
        row = self._validator.evaluate(self.current, self._step)
        self._evaluated, self._since_eval = self._step, 0
        return [row]

    def _train_batch(self) -> Batch:
        return train_batch(self._task, self.optimizer.batch_size, self._key, self._step)


@dataclass(frozen=True, eq=False, slots=True)
class _Scored:
    """Scores of a step's candidates: losses (C,), gradients (C, P) of a white box, logits (C, E, W) unless they were
    raced. saved: what racing them saved."""

    losses: Array64
    cost: Cost
    gradients: Array | None = None
    logits: Array | None = None
    saved: Mapping[str, float] = field(default_factory=dict)


def train_batch(task: Task, size: int | None, key: Key, step: int) -> Batch:
    """Return the train examples that a step is scored on: all, or ``size`` drawn by the stage's key and the step."""
    if size is None or size >= len(task.train):
        return task.batch("train")
    stream = generator((*key, "batch", step))
    return task.batch("train", sorted(stream.choice(len(task.train), size=size, replace=False).tolist()))
