"""One trial: its stages in order under one budget, then the selected prompt scored once on test.

Knows no Ray: it is given an oracle and advances one step at a time, so that its caller decides when to report,
save and stop. Rows for the ledger come out; nothing is written here.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from distributed_tuner.budget import BudgetTracker
from distributed_tuner.config.experiment import Experiment, label_of
from distributed_tuner.ledger.rows import CostRow, Row, StageRow
from distributed_tuner.oracles.base import LossOracle
from distributed_tuner.oracles.wrappers.budgeted import BudgetedOracle
from distributed_tuner.prompts.pool import PooledText
from distributed_tuner.stages.ensemble import Archive, Member
from distributed_tuner.stages.exploit import Exploit
from distributed_tuner.stages.measuring import measure
from distributed_tuner.stages.opening import Proposers, StageFactory
from distributed_tuner.stages.scored_texts import TextScoringOracle
from distributed_tuner.stages.selection import Selected
from distributed_tuner.stages.trial_setup import TrialSetup
from distributed_tuner.stages.trial_state import Found, TrialState
from distributed_tuner.tasks.base import Task
from distributed_tuner.values import Array, Candidate, Start


@dataclass(frozen=True, eq=False, slots=True)
class Outcome:
    """Result of a trial."""

    reason: str


class Trial:
    """Runs one experiment on one task with one oracle. ``proposers``: gives the proposer of a restart stage's settings.

    Raises:
        BudgetTooSmall: the budget does not pay for an evaluation, a step and an evaluation.
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
        proposers: Proposers | None = None,
    ) -> None:
        self.trial_id = trial_id
        self._experiment, self._task = experiment, task  # as the trial began with
        self._texts = TextScoringOracle(oracle, task) if task.has_targets else None
        self._oracle = self._texts or oracle
        self._clock = clock
        self._began: float | None = None
        self._before = 0.0
        self._tracker = BudgetTracker(experiment.budget)
        self._archive = Archive(0 if experiment.ensemble is None else experiment.ensemble.size, self._kept)
        self._factory = StageFactory(
            trial_id,
            (experiment.seed, index),
            self._oracle,
            BudgetedOracle(self._oracle, self._tracker, experiment.oracle, self.elapsed),
            lambda: self._tracker.spent,
            self.elapsed,
            self._archive,
            proposers,
        )
        self._state = TrialState()
        self._setup = self._set_up()
        self._stage = self._factory.open(self._setup, self._state)
        self.outcome: Outcome | None = None

    # ------------------------------------------------------------------------------------------------ what others see
    @property
    def done(self) -> bool:
        """True once the selected prompt has been measured."""
        return self.outcome is not None

    @property
    def waiting(self) -> bool:
        """True while the trial stands at a sync point, until ``go_on`` or ``take_over``."""
        return self._stage.waiting

    @property
    def sync_point(self) -> int:
        """Number of restart stages that the trial has reached."""
        return self._setup.schedule.restarts_until(self._state.stage_index)

    @property
    def restart_id(self) -> str:
        """The ``Exploit`` that was carried out last; empty before the first."""
        return self._state.restart_id

    @property
    def settings(self) -> dict[str, float]:
        """The settings that were taken over, by path."""
        return dict(self._state.settings)

    @property
    def pool(self) -> tuple[PooledText, ...]:
        """The prompts in words that this trial has scored."""
        return self._state.memory.pool

    def elapsed(self) -> float:
        """Return the wall-clock seconds since the first query, interruptions left out."""
        return self._before + (self._clock() - self._began if self._began is not None else 0.0)

    @property
    def selected(self) -> Selected | None:
        """The best prompt so far, over all stages."""
        return self._stage.selected or self._state.selected

    def selected_prompt(self) -> Array | str | None:
        """Return the best prompt so far: its rows (L, D), or its words."""
        best = self.selected
        return None if best is None else self._kept(best.candidate)

    @property
    def ensemble(self) -> tuple[Member, ...]:
        """The best prompts that are read together, best first; none where the best alone is better."""
        return self._archive.chosen

    @property
    def screened(self) -> Found | None:
        """What the trial's screen has found; None before it has ended, and where there is none."""
        return self._state.screened

    def _kept(self, candidate: Candidate) -> Array | str:
        return self._setup.space.kept(self._oracle, candidate)

    def place(self) -> Start:
        """Return where the selected prompt is, the current one before the first evaluation: coordinates (P,), or
        words."""
        best = self.selected
        return self._setup.space.place(self._oracle, self._stage.current if best is None else best.candidate)

    def progress(self) -> dict[str, float]:
        """Return numbers to show while the trial runs."""
        best = self.selected
        spent = self._tracker.spent
        return {
            "queries": spent.queries,
            "forwards": spent.forwards,
            "tokens": spent.tokens,
            "elapsed": self.elapsed(),
            "train_loss": best.train_loss if best else float("nan"),
            "dev_loss": best.dev_loss if best else float("inf"),
            "dev_metric": best.dev_metric if best else float("nan"),
        }

    # ------------------------------------------------------------------------------------------------ what it does
    def advance(self) -> list[Row]:
        """Do one step, one evaluation, one part of a restart, or the closing measurement; return its rows."""
        if self._began is None:
            self._began = self._clock()
        stage, state = self._stage, self._state
        if not stage.done:
            rows = [*stage.advance(), *self._archive.news(self.trial_id, self._setup.task)]
            return rows if self._texts is None else [*rows, *self._texts.news(self.trial_id)]
        state.selected = self.selected
        if stage.prepares:
            stage.hand_over(state, self._setup.place(state))
            self._setup = self._set_up()
            self._open(state.stage_index)
            return []
        ended, schedule = self._ended(), self._setup.schedule
        spent = stage.exhausted and not schedule.searches_after(state.stage_index)  # what follows would be refused too
        if state.stage_index + 1 < len(schedule.stages) and not spent:
            stage.hand_over(state, self._setup.place(state))
            self._open(state.stage_index + 1)
            return [ended]
        return [ended, *self._measure()]

    def go_on(self) -> list[Row]:
        """Leave a sync point with the prompt that the trial has; return the row that says so."""
        assert self.waiting
        return self._stage.go_on()

    def take_over(self, exploit: Exploit) -> None:
        """Leave a sync point as the schedule of a population says."""
        assert self.waiting
        self._state.restart_id = exploit.id
        self.apply(exploit.settings)
        self._stage.take_over(exploit)

    def apply(self, settings: Mapping[str, float]) -> None:
        """Use other settings, by path, from the next stage on."""
        if settings:
            self._state.settings |= settings
            self._setup = self._set_up()

    def state_dict(self) -> dict[str, Any]:
        """Return everything that ``load_state_dict`` needs to go on with the same bits."""
        return self._state.state_dict() | {
            "stage": self._stage.state_dict(),
            "archive": self._archive.state_dict(),
            "purse": self._tracker.state_dict(),
            "elapsed": self.elapsed(),
            "outcome": self.outcome,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a trial built from the same experiment."""
        self._state = TrialState.restored(state)
        self._setup = self._set_up()
        if "archive" in state:  # not in states of before there were ensembles
            self._archive.load_state_dict(state["archive"])
        self._stage = self._factory.open(self._setup, self._state, restored=True)
        self._stage.load_state_dict(state["stage"])
        self._tracker.load_state_dict(state["purse"])
        self._before, self._began = state["elapsed"], None
        self.outcome = state["outcome"]

    # ------------------------------------------------------------------------------------------------ parts
    def _set_up(self) -> TrialSetup:
        return TrialSetup.of(self._experiment, self._task, self._oracle, self._state)

    def _open(self, index: int) -> None:
        self._state.stage_index = index
        self._state.opened = self._tracker.spent
        self._stage = self._factory.open(self._setup, self._state)

    def _ended(self) -> StageRow:
        """Return the row that says how the stage has ended."""
        index, stage, best = self._state.stage_index, self._stage, self._state.selected
        config = self._setup.schedule.stages[index]
        return StageRow(
            trial_id=self.trial_id,
            stage=index,
            kind=config.kind,
            method=label_of(config),
            steps=stage.steps,
            reason=stage.reason,
            dev_loss=None if best is None else best.dev_loss,
            dev_metric=None if best is None else best.dev_metric,
            paid=CostRow.of(self._tracker.spent - self._state.opened),
            spent=CostRow.of(self._tracker.spent),
            elapsed=self.elapsed(),
        )

    def _measure(self) -> list[Row]:
        best, task = self._state.selected, self._setup.task
        if best is None:
            self.outcome = Outcome(f"{self._stage.reason}; no evaluation had a finite loss")
            return []
        if not task.test:
            self.outcome = Outcome(self._stage.reason)
            return []
        reader = self._setup.reader_of(best.candidate)
        spec, split_seed = self._setup.space.spec, self._experiment.task.split_seed
        row = measure(self._oracle, reader, best.candidate, spec, best.head, split_seed, self.trial_id)
        self.outcome = Outcome(self._stage.reason)
        return [row]
