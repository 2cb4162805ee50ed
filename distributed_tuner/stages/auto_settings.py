"""The survey before a search: losses around its start, from which the settings that were left to "auto" are taken.

One request, paid from the trial's budget like a step. What is asked and what the losses tell is a matter of the
optimizer (``stages.slopes`` for zot, ``stages.ladder`` for cma); when a survey is due, and what its settings change, of
the trial.
"""

from typing import Any, Protocol

import numpy as np

from distributed_tuner.config.optimizer import CmaConfig, OptimizerConfig, ZotConfig
from distributed_tuner.config.stage import SearchStageConfig
from distributed_tuner.errors import BudgetExhausted
from distributed_tuner.ledger.rows import Row, SurveyRow
from distributed_tuner.oracles.wrappers.budgeted import BudgetedOracle
from distributed_tuner.seeds import Key
from distributed_tuner.stages import ladder, slopes
from distributed_tuner.stages.accounting import Accounting
from distributed_tuner.stages.selection import Selected
from distributed_tuner.values import Array, Array64, Batch, Candidate, Center, Cost, Point, PromptSpec, Request


class Question(Protocol):
    """What a survey asks on behalf of one optimizer."""

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """What is asked, around the start."""
        ...

    def measured(self, losses: Array64) -> dict[str, Any] | None:
        """Return what the losses tell, as a survey's row has it; None where too many queries failed."""
        ...

    def settings(self) -> dict[str, float]:
        """Return all settings in question that the search goes on with, those that were given among them; defaults
        where nothing was measured."""
        ...


def queries(optimizer: OptimizerConfig) -> int:
    """Return how many queries the settings that are left to be measured take; 0 where there are none."""
    if not optimizer.unsettled:
        return 0
    return ladder.QUERIES if isinstance(optimizer, CmaConfig) else slopes.QUERIES


class SurveyStage:
    """One survey of one stage. ``advance`` makes it and returns its row; ``settings`` then holds what was found.

    start: coordinates, shape (P,). unit: how long a standard deviation of the embeddings is in them. keep: what must be
    left in the budget for the search. ``best``: what the stages before selected.
    """

    def __init__(
        self,
        config: SearchStageConfig,
        *,
        key: Key,
        batch: Batch,
        prompt: PromptSpec,
        oracle: BudgetedOracle,
        accounting: Accounting,
        start: Array,
        unit: float,
        keep: Cost,
        best: Selected | None,
    ) -> None:
        center = Center("/".join([*map(str, key), "survey"]), start)
        self._question = _question(config.optimizer, center, (*key, "survey"), unit)
        self._batch = batch
        self._prompt = prompt
        self._oracle = oracle
        self._accounting = accounting
        self._start = start
        self._keep = keep
        self.selected = best
        self.done = False
        self.reason = ""
        self.settings: dict[str, float] = {}

    @property
    def current(self) -> Candidate:
        """Where the survey stands."""
        return Point(self._start)

    def advance(self) -> list[Row]:
        """Ask, and say what follows from the answer. Where nothing can be measured, the settings are the defaults."""
        request = Request(self._question.candidates, self._batch, self._prompt)
        try:
            answer = self._oracle.evaluate(request, keep=self._keep)
        except BudgetExhausted as exhausted:
            return [self._end(None, f"the survey could not be paid ({exhausted})", Cost())]
        measured = self._question.measured(np.asarray(answer.losses, dtype=np.float64))
        note = "too many of the survey's queries failed" if measured is None else ""
        return [self._end(measured, note, answer.cost)]

    def state_dict(self) -> dict[str, Any]:
        """Return the survey between two calls of ``advance``."""
        return {"ended": (self.done, self.reason, dict(self.settings))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the survey."""
        self.done, self.reason, self.settings = state["ended"]

    def _end(self, measured: dict[str, Any] | None, note: str, cost: Cost) -> SurveyRow:
        self.done, self.reason = True, note or "surveyed"
        self.settings = self._question.settings()
        told = {} if measured is None else measured
        return SurveyRow(
            **self._accounting.names, settings=self.settings, note=note, **told, **self._accounting.of(cost)
        )


def _question(optimizer: OptimizerConfig, center: Center, key: Key, unit: float) -> Question:
    if isinstance(optimizer, CmaConfig):
        return ladder.Ladder(optimizer, center, key, unit)
    assert isinstance(optimizer, ZotConfig)
    return slopes.Slopes(optimizer, center, key, unit)
