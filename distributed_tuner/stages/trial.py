"""One trial: its stages in order under one budget, then the selected prompt scored once on test.

Knows no Ray: it is given an oracle and advances one step at a time, so that whoever runs it decides when to report,
save and stop. Rows for the ledger come out; nothing is written here.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from distributed_tuner import optimizers
from distributed_tuner.budget import BudgetTracker
from distributed_tuner.config.experiment import Experiment, label_of
from distributed_tuner.config.prompt import started_from
from distributed_tuner.config.proposer import ProposerConfig
from distributed_tuner.config.schedule import PopulationScheduleConfig
from distributed_tuner.config.stage import RestartStageConfig, ScreenStageConfig, SearchStageConfig
from distributed_tuner.ledger.rows import CostRow, MeasureRow, Row, StageRow
from distributed_tuner.optimizers.base import Optimizer
from distributed_tuner.oracles.base import LossOracle
from distributed_tuner.oracles.wrappers.budgeted import BudgetedOracle
from distributed_tuner.prompts.pool import PooledText
from distributed_tuner.prompts.spec import framed, unframed
from distributed_tuner.proposers.base import Proposer
from distributed_tuner.seeds import Key
from distributed_tuner.stages.accounting import Accounting
from distributed_tuner.stages.auto_settings import SurveyStage
from distributed_tuner.stages.ensemble import Archive, Member
from distributed_tuner.stages.exploit import Exploit
from distributed_tuner.stages.prompt_space import prompt_space
from distributed_tuner.stages.reading import Reader, fitted_on, settled_head
from distributed_tuner.stages.restart import RestartStage
from distributed_tuner.stages.schedule import StageSchedule, TunedStageConfig
from distributed_tuner.stages.screen import Found, ScreenStage
from distributed_tuner.stages.search import SearchStage, train_batch
from distributed_tuner.stages.selection import Rule, Selected
from distributed_tuner.stages.trajectory import Trajectory
from distributed_tuner.stages.trial_memory import Memory
from distributed_tuner.stages.validation import Validator, scores_of
from distributed_tuner.tasks.base import Task
from distributed_tuner.values import Array, Candidate, Cost, Request, Start, Text

PUBLISHED_WAYPOINTS = 1024  # the published code records every step of a stage

Proposers = Callable[[ProposerConfig], Proposer]


@dataclass(frozen=True, eq=False, slots=True)
class Outcome:
    """How a trial ended."""

    reason: str


@dataclass(frozen=True, eq=False, slots=True)
class Left:
    """The optimizer of a search or gradient stage that has ended, for the same stage of the next round."""

    state: dict[str, Any]
    horizon: int


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
        self._task = task
        self._screened: Found | None = None
        self._oracle = oracle
        self._proposers = proposers
        self._clock = clock
        self._key: Key = (experiment.seed, index)
        self._space = prompt_space(experiment.prompt, task, oracle.info.width)
        self._tracker = BudgetTracker(experiment.budget)
        self._budgeted = BudgetedOracle(oracle, self._tracker, experiment.oracle, self.elapsed)
        self._began: float | None = None
        self._before = 0.0
        self._selected: Selected | None = None
        self._memory = Memory()
        self._left: dict[int, Left] = {}  # by place in experiment.stages
        self._trajectory = Trajectory()
        self._current: Candidate = self._space.at(self._space.start)
        self._adopted: Start | None = None
        self._archive = Archive(0 if experiment.ensemble is None else experiment.ensemble.size, self._kept)
        self._settings: dict[str, float] = {}
        self._surveyed: dict[int, dict[str, float]] = {}  # what was measured for "auto", by place in experiment.stages
        self._restart_id = ""
        self._set_experiment(experiment)
        self._stage_index = 0
        self._opened = Cost()  # what was spent when the stage began
        self._horizon = 1
        self._stage = self._open_stage()
        self.outcome: Outcome | None = None

    def _set_experiment(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self._stage_schedule = StageSchedule(experiment, self._task, self._space, self._oracle)
        rules = [stage.select for stage in experiment.stages if not isinstance(stage, RestartStageConfig)]
        self._rule: Rule = rules[0] if rules else "cross_validation"  # of evaluations that no search takes
        self._reader = Reader(self._task, settled_head(experiment.head), fitted_on(experiment))

    # ------------------------------------------------------------------------------------------------ what others see
    @property
    def done(self) -> bool:
        """True once the selected prompt has been measured."""
        return self.outcome is not None

    @property
    def waiting(self) -> bool:
        """True while the trial stands at a boundary, until ``go_on`` or ``take_over``."""
        return isinstance(self._stage, RestartStage) and self._stage.waiting

    @property
    def boundary(self) -> int:
        """How many restart stages the trial has reached."""
        return sum(
            isinstance(stage, RestartStageConfig) for stage in self._stage_schedule.stages[: self._stage_index + 1]
        )

    @property
    def restart_id(self) -> str:
        """The ``Exploit`` that was carried out last; empty before the first."""
        return self._restart_id

    @property
    def settings(self) -> dict[str, float]:
        """The settings that were taken over, by path."""
        return dict(self._settings)

    @property
    def pool(self) -> tuple[PooledText, ...]:
        """The prompts in words that this trial has scored."""
        return self._memory.pool

    def elapsed(self) -> float:
        """Return the wall-clock seconds since the first query, interruptions left out."""
        return self._before + (self._clock() - self._began if self._began is not None else 0.0)

    @property
    def selected(self) -> Selected | None:
        """The best prompt so far, over all stages."""
        return self._stage.selected or self._selected

    def selected_prompt(self) -> Array | str | None:
        """Return the best prompt so far: its rows (L, D), or its words."""
        best = self.selected
        return None if best is None else self._kept(best.candidate)

    @property
    def ensemble(self) -> tuple[Member, ...]:
        """The best prompts that are read together, best first; none where the best alone is better."""
        return self._archive.chosen

    def _kept(self, candidate: Candidate) -> Array | str:
        return self._space.kept(self._oracle, candidate)

    def place(self) -> Start:
        """Return where the selected prompt is, the current one before the first evaluation: coordinates (P,), or
        words."""
        best = self.selected
        return self._space.place(self._oracle, self._stage.current if best is None else best.candidate)

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
        if not self._stage.done:
            return [*self._stage.advance(), *self._archive.news(self.trial_id, self._task)]
        if isinstance(self._stage, SurveyStage):
            self._settle(self._place, self._stage.settings)
            self._open_next(self._stage_index)
            return []
        if isinstance(self._stage, ScreenStage):
            self._selected = self._stage.selected
            self._start_from(self._stage.found)
            self._open_next(self._stage_index)
            return []
        self._selected = self.selected
        ended = self._ended()
        if self._stage_index + 1 < len(self._stage_schedule.stages) and not self._is_spent():
            self._close_stage()
            self._open_next(self._stage_index + 1)
            return [ended]
        return [ended, *self._measure()]

    def go_on(self) -> list[Row]:
        """Leave a boundary with the prompt that the trial has; return the row that says so."""
        assert isinstance(self._stage, RestartStage) and self._stage.waiting
        return self._stage.go_on()

    def take_over(self, exploit: Exploit) -> None:
        """Leave a boundary as the schedule of a population says."""
        assert isinstance(self._stage, RestartStage) and self._stage.waiting
        self._restart_id = exploit.id
        self.apply(exploit.settings)
        self._stage.take_over(exploit)

    def apply(self, settings: Mapping[str, float]) -> None:
        """Use other settings, by path, from the next stage on."""
        if settings:
            self._settings = {**self._settings, **settings}
            self._set_experiment(self._experiment.changed(settings))

    def state_dict(self) -> dict[str, Any]:
        """Return everything that ``load_state_dict`` needs to go on with the same bits."""
        return {
            "surveyed": dict(self._surveyed),
            "screened": self._screened,
            "settings": dict(self._settings),
            "restart_id": self._restart_id,
            "stage_index": self._stage_index,
            "stage": self._stage.state_dict(),
            "opened": self._opened,
            "horizon": self._horizon,
            "left": dict(self._left),
            "memory": replace(self._memory),
            "trajectory": self._trajectory.state_dict(),
            "current": self._current,
            "adopted": self._adopted,
            "selected": self._selected,
            "archive": self._archive.state_dict(),
            "purse": self._tracker.state_dict(),
            "elapsed": self.elapsed(),
            "outcome": self.outcome,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a trial built from the same experiment."""
        if state.get("screened") is not None:
            self._start_from(state["screened"])
        for place, measured in state["surveyed"].items():
            self._settle(place, measured)
        self.apply(state["settings"])
        self._restart_id = state["restart_id"]
        self._stage_index = state["stage_index"]
        self._selected = state["selected"]
        if "archive" in state:  # not in states of before there were ensembles
            self._archive.load_state_dict(state["archive"])
        self._opened = state["opened"]
        self._left = dict(state["left"])
        self._memory = replace(state["memory"])
        self._current = state["current"]
        self._adopted = state["adopted"]
        self._trajectory = Trajectory()
        self._trajectory.load_state_dict(state["trajectory"])
        self._horizon = state["horizon"]
        self._stage = self._open_stage(restored=True)
        self._stage.load_state_dict(state["stage"])
        self._tracker.load_state_dict(state["purse"])
        self._before, self._began = state["elapsed"], None
        self.outcome = state["outcome"]

    # ------------------------------------------------------------------------------------------------ stages
    def _open_next(self, index: int) -> None:
        self._stage_index = index
        self._opened = self._tracker.spent
        self._stage = self._open_stage()

    def _settle(self, place: int, measured: dict[str, float]) -> None:
        """Put what a survey measured in the place of "auto", for this and all later rounds."""
        stages = list(self._experiment.stages)
        stage = stages[place]
        assert isinstance(stage, SearchStageConfig)
        stages[place] = stage.model_copy(update={"optimizer": stage.optimizer.settled(measured)})
        self._surveyed[place] = measured
        self._set_experiment(self._experiment.model_copy(update={"stages": tuple(stages)}))

    def _start_from(self, found: Found) -> None:
        """Go on after the screen: the search starts from its instruction, in its wording."""
        self._screened = found
        before = self._experiment.prompt
        prompt = started_from(before, found.instruction)
        self._task = framed(unframed(self._task, before).worded(found.template, found.label_words), prompt)
        self._space = prompt_space(prompt, self._task, self._oracle.info.width)
        self._current = self._space.at(self._space.start)
        self._set_experiment(self._experiment.model_copy(update={"prompt": prompt, "screen": None}))

    def _close_stage(self) -> None:
        """Take over what the stage that has ended leaves to the next."""
        stage = self._stage
        self._current = stage.current
        if isinstance(stage, SearchStage):
            self._left[self._place] = Left(stage.optimizer.state_dict(), self._horizon)
            self._trajectory = stage.trajectory or Trajectory()
            self._memory.incumbent_loss = None
        elif isinstance(stage, RestartStage):
            if stage.adopted is not None:  # else what a restart stage right before it adopted still stands
                self._adopted = stage.adopted.place
            self._trajectory = Trajectory()

    def _is_spent(self) -> bool:
        """Tell whether an LLM alone has used up the budget: what follows would ask as much, and be refused as well."""
        later = self._stage_schedule.stages[self._stage_index + 1 :]
        spent = isinstance(self._stage, RestartStage) and self._stage.exhausted
        return spent and all(isinstance(stage, RestartStageConfig) for stage in later)

    @property
    def _place(self) -> int:
        return self._stage_index % len(self._experiment.stages)

    def _open_stage(self, restored: bool = False) -> SearchStage | RestartStage | SurveyStage | ScreenStage:
        config = self._stage_schedule.stages[self._stage_index]
        accounting = Accounting(self.trial_id, self._stage_index, lambda: self._tracker.spent, self.elapsed)
        if self._experiment.screen is not None:
            self._stage_schedule.plan(self._stage_index, None)  # says so where the budget is too small
            return self._open_screen(self._experiment.screen, accounting)
        if isinstance(config, RestartStageConfig):
            return self._open_restart(config, accounting)
        first = self._stage_index == 0 and not self._surveyed and self._screened is None
        plan = self._stage_schedule.plan(self._stage_index, None if first else self._opened)
        if isinstance(config, SearchStageConfig) and config.optimizer.unsettled:
            return self._open_survey(config, accounting)
        if not restored:
            self._horizon = self._stage_schedule.horizon(self._stage_index, plan)
        return SearchStage(
            config,
            key=(*self._key, self._stage_index),
            reader=self._reader,
            space=self._space,
            oracle=self._budgeted,
            accounting=accounting,
            plan=plan,
            optimizer=self._build(config, None) if restored else self._optimizer(config),
            best=self._selected,
            trajectory=self._new_trajectory(),
            archive=self._archive,
        )

    def _open_screen(self, config: ScreenStageConfig, accounting: Accounting) -> ScreenStage:
        def validator(reader: Reader, best: Selected | None) -> Validator:
            return Validator(reader, self._space, self._budgeted, accounting, self._rule, best, True, self._archive)

        proposer = None
        if config.proposer is not None:
            assert self._proposers is not None, "a screen with a proposer needs proposers"
            proposer = self._proposers(config.proposer)
        return ScreenStage(
            config,
            key=(*self._key, "screen"),
            reader=self._reader_of_words(),
            oracle=self._budgeted,
            accounting=accounting,
            validator=validator,
            keep=self._stage_schedule.search_cost(0),
            proposer=proposer,
            memory=self._memory,
            best=self._selected,
        )

    def _reader_of_words(self) -> Reader:
        """Return what reads prompts in words: their texts have no instruction in front."""
        task = unframed(self._task, self._experiment.prompt)
        return Reader(task, settled_head(self._experiment.head), fitted_on(self._experiment))

    def _open_survey(self, config: SearchStageConfig, accounting: Accounting) -> SurveyStage:
        start = self._start() if self._adopted is None else self._adopted
        key = (*self._key, self._stage_index)
        unit = 1.0 if self._space.spec.scale == "embedding" else self._oracle.info.embedding_std
        probe = optimizers.build_probe(config.optimizer, start=start, key=(*key, "survey"), unit=unit)
        assert probe is not None, "a survey has something to measure"
        return SurveyStage(
            config.optimizer,
            probe,
            start=self._space.at(start),
            batch=train_batch(self._task, self._stage_schedule.batch_size(config), key, 0),
            prompt=self._space.spec,
            oracle=self._budgeted,
            accounting=accounting,
            keep=self._stage_schedule.search_cost(self._stage_index),
            best=self._selected,
        )

    def _new_trajectory(self) -> Trajectory | None:
        """Return what a stage records its prompts in; None where no restart stage follows that would read them."""
        following = self._stage_schedule.stages[self._stage_index + 1 : self._stage_index + 2]
        if not following or not isinstance(following[0], RestartStageConfig):
            return None
        return Trajectory(PUBLISHED_WAYPOINTS if following[0].reproduce_paper else Trajectory.KEPT)

    def _open_restart(self, config: RestartStageConfig, accounting: Accounting) -> RestartStage:
        assert self._proposers is not None, "restart stages need proposers"
        validator = None
        if self._stage_schedule.validates_after(self._stage_index):
            validator = Validator(
                self._reader, self._space, self._budgeted, accounting, self._rule, self._selected, archive=self._archive
            )
        return RestartStage(
            config,
            task=self._task,
            space=self._space,
            model=self._oracle,
            oracle=self._budgeted,
            accounting=accounting,
            validator=validator,
            proposer=self._proposers(config.proposer),
            memory=self._memory,
            trajectory=self._trajectory,
            incumbent=self._current,
            boundary=isinstance(self._experiment.schedule, PopulationScheduleConfig),
        )

    def _optimizer(self, config: TunedStageConfig) -> Optimizer:
        """Return the stage's optimizer: that of the round before, moved to an adopted prompt, or a new one."""
        left, adopted = self._left.get(self._place), self._adopted
        self._adopted = None
        mode = self._mode() if adopted is not None else "keep"
        if left is None or mode == "reset":
            return self._build(config, self._start() if adopted is None else adopted)
        self._horizon = left.horizon
        optimizer = self._build(config, None)
        optimizer.load_state_dict(left.state)
        if adopted is not None and mode == "keep":
            optimizer.relocate(adopted)
        elif adopted is not None:
            assert not isinstance(adopted, str)  # preflight/compatibility.py: words cannot be injected
            unit = self._oracle.info.embedding_std if self._space.spec.scale == "embedding" else 1.0
            optimizer.inject(adopted, self._oracle.info.embedding_std, unit)
        return optimizer

    def _build(self, config: TunedStageConfig, start: Start | None) -> Optimizer:
        return optimizers.build(
            config.optimizer,
            dim=self._space.dim,
            key=(*self._key, self._stage_index),
            steps=self._horizon,
            start=start,
            vocabulary=self._space.vocabulary(self._oracle),
        )

    def _mode(self) -> str:
        """Return what the restart stage before this one does to the optimizer."""
        before = self._stage_schedule.stages[self._stage_index - 1]
        assert isinstance(before, RestartStageConfig)
        return "keep" if before.reproduce_paper else before.state

    def _start(self) -> Start:
        """Return where a new optimizer begins where nothing was adopted: at the selected prompt, if there is one."""
        if self._stage_index == 0 or self._selected is None:
            return self._space.start
        return self._space.place(self._oracle, self._selected.candidate)

    def _ended(self) -> StageRow:
        """Return the row that says how the stage has ended."""
        config, stage, best = self._stage_schedule.stages[self._stage_index], self._stage, self._selected
        return StageRow(
            trial_id=self.trial_id,
            stage=self._stage_index,
            kind=config.kind,
            method=label_of(config),
            steps=stage.steps if isinstance(stage, SearchStage) else 0,
            reason=stage.reason,
            dev_loss=None if best is None else best.dev_loss,
            dev_metric=None if best is None else best.dev_metric,
            paid=CostRow.of(self._tracker.spent - self._opened),
            spent=CostRow.of(self._tracker.spent),
            elapsed=self.elapsed(),
        )

    def _measure(self) -> list[Row]:
        if self._selected is None:
            self.outcome = Outcome(f"{self._stage.reason}; no evaluation had a finite loss")
            return []
        if not self._task.test:
            self.outcome = Outcome(self._stage.reason)
            return []
        reader = self._reader_of_words() if isinstance(self._selected.candidate, Text) else self._reader
        batch = reader.batch("test")
        answer = self._oracle.evaluate(Request((self._selected.candidate,), batch, self._space.spec))
        loss, scores = reader.measure(self._selected.head, answer, batch)
        self.outcome = Outcome(self._stage.reason)
        return [
            MeasureRow(
                trial_id=self.trial_id,
                what="selected",
                split="test",
                split_seed=self._experiment.task.split_seed,
                loss=loss,
                metric=scores[self._task.metric],
                metrics=scores,
                label_words_metric=scores_of(self._task, answer, batch)[self._task.metric],
                cost=CostRow.of(answer.cost),
            )
        ]
