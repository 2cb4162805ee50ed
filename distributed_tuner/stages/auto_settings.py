"""The survey before a search: losses around its start, from which the settings that were left to "auto" are taken.

One request, paid from the trial's budget like a step. What is asked and what the losses tell is a matter of the
optimizer's family (``optimizers.probe``); when a survey is due, and what its settings change, of the trial.
"""

from typing import Any, ClassVar

import numpy as np

from distributed_tuner.config.optimizer import OptimizerConfig
from distributed_tuner.errors import BudgetExhausted
from distributed_tuner.ledger.rows import Row, SurveyRow
from distributed_tuner.optimizers.probe import Measured, Probe
from distributed_tuner.oracles.wrappers.budgeted import BudgetedOracle
from distributed_tuner.stages.accounting import Accounting
from distributed_tuner.stages.selection import Selected
from distributed_tuner.stages.stage import Stage
from distributed_tuner.stages.trial_state import TrialState
from distributed_tuner.values import Batch, Candidate, Cost, PromptSpec, Request


class SurveyStage(Stage):
    """One survey of one stage. ``advance`` makes it and returns its row; ``settings`` then holds what was found.

    optimizer: its settings, some of them still "auto". start: the prompt that the probe asks around. keep: what must be
    left in the budget for the search. ``best``: what the stages before selected.
    """

    prepares: ClassVar[bool] = True

    def __init__(
        self,
        optimizer: OptimizerConfig,
        probe: Probe,
        *,
        start: Candidate,
        batch: Batch,
        prompt: PromptSpec,
        oracle: BudgetedOracle,
        accounting: Accounting,
        keep: Cost,
        best: Selected | None,
    ) -> None:
        self._optimizer = optimizer
        self._probe = probe
        self._batch = batch
        self._prompt = prompt
        self._oracle = oracle
        self._accounting = accounting
        self._keep = keep
        self._start = start
        self._best = best
        self.settings: dict[str, float] = {}

    @property
    def selected(self) -> Selected | None:
        """Selection of the stages before."""
        return self._best

    @property
    def current(self) -> Candidate:
        """The prompt that is asked around."""
        return self._start

    def hand_over(self, state: TrialState, place: int) -> None:
        """Leave what was measured in the place of "auto"."""
        state.surveyed[place] = self.settings

    def advance(self) -> list[Row]:
        """Ask, and say what follows from the answer. Where nothing can be measured, the settings are the defaults."""
        request = Request(tuple(self._probe.candidates), self._batch, self._prompt)
        try:
            answer = self._oracle.evaluate(request, keep=self._keep)
        except BudgetExhausted as exhausted:
            return [self._end(None, f"the survey could not be paid ({exhausted})", Cost())]
        measured = self._probe.measure(np.asarray(answer.losses, dtype=np.float64))
        note = "too many of the survey's queries failed" if measured is None else ""
        return [self._end(measured, note, answer.cost)]

    def state_dict(self) -> dict[str, Any]:
        """Return the survey between two calls of ``advance``."""
        return {"ended": (self.done, self.reason, dict(self.settings))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the survey."""
        self.done, self.reason, self.settings = state["ended"]

    def _end(self, measured: Measured | None, note: str, cost: Cost) -> SurveyRow:
        found = measured or Measured({})
        self.done, self.reason = True, note or "surveyed"
        self.settings = self._optimizer.chosen(found.settings)
        return SurveyRow(
            **self._accounting.names, settings=self.settings, note=note, **found.told, **self._accounting.of(cost)
        )
