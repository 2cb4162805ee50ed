"""One trial: its stages in order under one purse, then the selected prompt scored once on test.

Knows no Ray: it is given an oracle and advances one step at a time, so that whoever runs it decides when to report,
save and stop. Rows for the ledger come out; nothing is written here.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from distributed_tuner import optimizers
from distributed_tuner.budget import Purse
from distributed_tuner.config.experiment import Experiment
from distributed_tuner.config.stage import SearchStageConfig
from distributed_tuner.errors import BudgetTooSmall
from distributed_tuner.ledger.rows import CostRow, MeasureRow, Row
from distributed_tuner.oracles.base import LossOracle
from distributed_tuner.oracles.budgeted import BudgetedOracle
from distributed_tuner.prompts.spec import prompt_spec
from distributed_tuner.seeds import Key
from distributed_tuner.stages.plan import StagePlan, plan_stage
from distributed_tuner.stages.search import SearchStage, scores_of
from distributed_tuner.stages.selection import Selected, better_of
from distributed_tuner.tasks.base import Task
from distributed_tuner.values import Array, Batch, Cost, Point, PromptSpec, Request


@dataclass(frozen=True, eq=False, slots=True)
class Outcome:
    """How a trial ended."""

    reason: str


class Costs(Protocol):
    """Says what a request costs: an oracle, or a tokenizer alone."""

    def cost(self, request: Request) -> Cost: ...


class Trial:
    """Runs one experiment on one task with one oracle.

    Raises:
        BudgetTooSmall: the budget does not pay for a look, a step and a look.
    """

    def __init__(
        self,
        trial_id: str,
        experiment: Experiment,
        task: Task,
        oracle: LossOracle,
        *,
        index: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.trial_id = trial_id
        self._experiment = experiment
        self._task = task
        self._oracle = oracle
        self._clock = clock
        self._key: Key = (experiment.seed, index)
        self._prompt = prompt_spec(experiment.prompt, task)
        self._dim = self._prompt.length * oracle.info.width
        self._purse = Purse(experiment.budget)
        self._budgeted = BudgetedOracle(oracle, self._purse, experiment.oracle, self.elapsed)
        self._began: float | None = None
        self._before = 0.0
        self._selected: Selected | None = None
        self._stage_index = 0
        self._opened = Cost()  # what was spent when the stage began
        self._stage = self._open_stage(start=None)
        self.outcome: Outcome | None = None

    @property
    def done(self) -> bool:
        """True once the selected prompt has been measured."""
        return self.outcome is not None

    def elapsed(self) -> float:
        """Return the wall-clock seconds since the first query, interruptions left out."""
        return self._before + (self._clock() - self._began if self._began is not None else 0.0)

    @property
    def selected(self) -> Selected | None:
        """The best prompt so far, over all stages."""
        return better_of(self._selected, self._stage.selected)

    def selected_rows(self) -> Array | None:
        """Return the rows (L, D) of the best prompt so far."""
        best = self.selected
        return None if best is None else self._oracle.materialize(best.candidate, self._prompt)

    def progress(self) -> dict[str, float]:
        """Return numbers to show while the trial runs."""
        best = self.selected
        spent = self._purse.spent
        return {
            "queries": spent.queries,
            "forwards": spent.forwards,
            "tokens": spent.tokens,
            "elapsed": self.elapsed(),
            "train_loss": best.train_loss if best else float("nan"),
            "dev_loss": best.dev_loss if best else float("inf"),
            "dev_metric": best.dev_metric if best else float("nan"),
        }

    def advance(self) -> list[Row]:
        """Do one step, one look, or the closing measurement; return its rows."""
        if self._began is None:
            self._began = self._clock()
        if not self._stage.done:
            return self._stage.advance()
        self._selected = self.selected
        if self._stage_index + 1 < len(self._experiment.stages):
            start = self._start_of_next()
            self._stage_index += 1
            self._opened = self._purse.spent
            self._stage = self._open_stage(start)
            return []
        return self._measure()

    def state_dict(self) -> dict[str, Any]:
        """Return everything that ``load_state_dict`` needs to go on with the same bits."""
        return {
            "stage_index": self._stage_index,
            "stage": self._stage.state_dict(),
            "opened": self._opened,
            "selected": self._selected,
            "purse": self._purse.state_dict(),
            "elapsed": self.elapsed(),
            "outcome": self.outcome,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a trial built from the same experiment."""
        self._stage_index = state["stage_index"]
        self._selected = state["selected"]
        self._opened = state["opened"]
        self._stage = self._open_stage(start=None)
        self._stage.load_state_dict(state["stage"])
        self._purse.load_state_dict(state["purse"])
        self._before, self._began = state["elapsed"], None
        self.outcome = state["outcome"]

    # ------------------------------------------------------------------------------------------------ parts
    def _open_stage(self, start: Array | None) -> SearchStage:
        config = self._experiment.stages[self._stage_index]
        first = self._stage_index == 0
        plan = plan_search(
            config,
            self._experiment,
            self._task,
            self._prompt,
            self._oracle,
            self._dim,
            before=None if first else self._opened,
            strict=first,  # a later stage does what it can with what is left
        )
        return SearchStage(
            config,
            trial_id=self.trial_id,
            stage=self._stage_index,
            key=self._key,
            task=self._task,
            prompt=self._prompt,
            oracle=self._budgeted,
            spent=lambda: self._purse.spent,
            elapsed=self.elapsed,
            dim=self._dim,
            plan=plan,
            start=start,
        )

    def _start_of_next(self) -> Array | None:
        """Return the coordinates of the selected prompt: rows = base + unit * x, solved for x."""
        if self._selected is None:
            return None
        zero = Point(np.zeros(self._dim, dtype=np.float32))
        base = self._oracle.materialize(zero, self._prompt)
        unit = self._oracle.info.embedding_std if self._prompt.units == "embedding" else 1.0
        rows = self._oracle.materialize(self._selected.candidate, self._prompt)
        return ((rows - base) / np.float32(unit)).reshape(-1)

    def _measure(self) -> list[Row]:
        if self._selected is None:
            self.outcome = Outcome(f"{self._stage.reason}; no look had a finite loss")
            return []
        batch = self._task.batch("test")
        answer = self._oracle.evaluate(Request((self._selected.candidate,), batch, self._prompt))
        scores = scores_of(self._task, answer, batch)
        self.outcome = Outcome(self._stage.reason)
        return [
            MeasureRow(
                trial_id=self.trial_id,
                what="selected",
                split="test",
                split_seed=self._experiment.task.split_seed,
                loss=float(answer.losses[0]),
                metric=scores[self._task.metric],
                metrics=scores,
                cost=CostRow.of(answer.cost),
            )
        ]


def plan_search(
    config: SearchStageConfig,
    experiment: Experiment,
    task: Task,
    prompt: PromptSpec,
    oracle: Costs,
    dim: int,
    before: Cost | None = None,
    strict: bool = True,
) -> StagePlan:
    """Plan a search stage from what its requests cost and what the stages ``before`` it leave of the budget.

    Raises:
        BudgetTooSmall: it pays for no step (and ``strict``); says what a step and the looks around it need.
    """
    built = optimizers.build(config.optimizer, dim=dim, key=(experiment.seed,), steps=1)
    point = Point(np.zeros(dim, dtype=np.float32))
    size = min(built.batch_size or len(task.train), len(task.train))
    train = task.batch("train", range(size))

    def cost_of(count: int, batch: Batch) -> Cost:
        return oracle.cost(Request((point,) * count, batch, prompt))

    step = cost_of(built.queries_per_step, train)
    look = cost_of(1, task.batch("train")) + cost_of(1, task.batch("dev"))
    plan = plan_stage(experiment.budget, step, look, config.look_every, config.steps, before)
    if plan.steps == 0 and strict:
        needed = look + step + look
        taken = f", of which the stages before take {before.queries} queries" if before else ""
        advice = "raise it, limit the steps of the stages before" if before else "raise it"
        raise BudgetTooSmall(
            f"the budget must pay for one step of {config.optimizer.kind} and a look before and after it:"
            f" {needed.queries} queries, {needed.forwards} forwards, {needed.tokens} tokens, {needed.usd:.6f} US"
            f" dollars; but it is {experiment.budget.model_dump(exclude_none=True)}{taken}; {advice} or shrink the step"
        )
    return plan
