"""Opening of stages: each is made of the trial's setup and of what the stages before it left."""

from collections.abc import Callable
from dataclasses import dataclass

from distributed_tuner import optimizers
from distributed_tuner.config.proposer import ProposerConfig
from distributed_tuner.config.schedule import PopulationScheduleConfig
from distributed_tuner.config.stage import RestartStageConfig, ScreenStageConfig, SearchStageConfig
from distributed_tuner.optimizers.base import Optimizer
from distributed_tuner.oracles.base import LossOracle
from distributed_tuner.oracles.wrappers.budgeted import BudgetedOracle
from distributed_tuner.proposers.base import Proposer
from distributed_tuner.seeds import Key
from distributed_tuner.stages.accounting import Accounting
from distributed_tuner.stages.auto_settings import SurveyStage
from distributed_tuner.stages.ensemble import Archive
from distributed_tuner.stages.restart import RestartStage
from distributed_tuner.stages.schedule import TunedStageConfig
from distributed_tuner.stages.screen import ScreenStage
from distributed_tuner.stages.search import SearchStage, train_batch
from distributed_tuner.stages.selection import Selected
from distributed_tuner.stages.stage import Stage
from distributed_tuner.stages.trajectory import Trajectory
from distributed_tuner.stages.trial_setup import TrialSetup
from distributed_tuner.stages.trial_state import TrialState
from distributed_tuner.stages.validation import AnyReader, Validator
from distributed_tuner.values import Cost, Start

PUBLISHED_WAYPOINTS = 1024  # the published code records every step of a stage

Proposers = Callable[[ProposerConfig], Proposer]


@dataclass(frozen=True, eq=False, slots=True)
class StageFactory:
    """Opens the stages of one trial.

    key: prefix of all its randomness. oracle: answers beside the budget; ``budgeted`` from it. spent, elapsed: ask the
    trial. proposers: gives the proposer of a stage's settings.
    """

    trial_id: str
    key: Key
    oracle: LossOracle
    budgeted: BudgetedOracle
    spent: Callable[[], Cost]
    elapsed: Callable[[], float]
    archive: Archive
    proposers: Proposers | None

    def open(self, setup: TrialSetup, state: TrialState, restored: bool = False) -> Stage:
        """Open the stage that ``state`` is at; what it uses up of it, it takes from there.

        restored: the stage's own state is loaded next.

        Raises:
            BudgetTooSmall: the budget does not pay for an evaluation, a step and an evaluation.
        """
        index, experiment = state.stage_index, setup.experiment
        config = setup.schedule.stages[index]
        accounting = Accounting(self.trial_id, index, self.spent, self.elapsed)
        if experiment.screen is not None:
            setup.schedule.plan(index, None)  # says so where the budget is too small
            return self._screen(experiment.screen, setup, state, accounting)
        if isinstance(config, RestartStageConfig):
            return self._restart(config, setup, state, accounting)
        first = index == 0 and not state.surveyed and state.screened is None
        plan = setup.schedule.plan(index, None if first else state.opened)
        if isinstance(config, SearchStageConfig) and config.optimizer.unresolved:
            return self._survey(config, setup, state, accounting)
        if not restored:
            state.horizon = setup.schedule.horizon(index, plan)
        return SearchStage(
            config,
            key=(*self.key, index),
            reader=setup.reader,
            space=setup.space,
            oracle=self.budgeted,
            accounting=accounting,
            plan=plan,
            optimizer=self._built(config, setup, state, None) if restored else self._optimizer(config, setup, state),
            best=state.selected,
            trajectory=_new_trajectory(setup, index),
            archive=self.archive,
        )

    # ------------------------------------------------------------------------------------------------ stages
    def _screen(
        self, config: ScreenStageConfig, setup: TrialSetup, state: TrialState, accounting: Accounting
    ) -> ScreenStage:
        def validator(reader: AnyReader, best: Selected | None) -> Validator:
            return Validator(reader, setup.space, self.budgeted, accounting, setup.rule, best, True, self.archive)

        return ScreenStage(
            config,
            key=(*self.key, "screen"),
            reader=setup.reader_of_words,
            oracle=self.budgeted,
            accounting=accounting,
            validator=validator,
            keep=setup.schedule.search_cost(0),
            proposer=None if config.proposer is None else self._proposer(config.proposer),
            memory=state.memory,
            best=state.selected,
        )

    def _survey(
        self, config: SearchStageConfig, setup: TrialSetup, state: TrialState, accounting: Accounting
    ) -> SurveyStage:
        start = self._start(setup, state) if state.adopted is None else state.adopted
        key = (*self.key, state.stage_index)
        unit = 1.0 if setup.space.spec.scale == "embedding" else self.oracle.info.embedding_std
        probe = optimizers.build_probe(config.optimizer, start=start, key=(*key, "survey"), unit=unit)
        assert probe is not None, "a survey has something to measure"
        return SurveyStage(
            config.optimizer,
            probe,
            start=setup.space.at(start),
            batch=train_batch(setup.task, setup.schedule.batch_size(config), key, 0),
            prompt=setup.space.spec,
            oracle=self.budgeted,
            accounting=accounting,
            keep=setup.schedule.search_cost(state.stage_index),
            best=state.selected,
        )

    def _restart(
        self, config: RestartStageConfig, setup: TrialSetup, state: TrialState, accounting: Accounting
    ) -> RestartStage:
        validator = None
        if setup.schedule.validates_after(state.stage_index):
            validator = Validator(
                setup.reader,
                setup.space,
                self.budgeted,
                accounting,
                setup.rule,
                state.selected,
                archive=self.archive,
            )
        return RestartStage(
            config,
            task=setup.task,
            space=setup.space,
            model=self.oracle,
            oracle=self.budgeted,
            accounting=accounting,
            validator=validator,
            proposer=self._proposer(config.proposer),
            memory=state.memory,
            trajectory=state.trajectory,
            incumbent=setup.current(state),
            waits=isinstance(setup.experiment.schedule, PopulationScheduleConfig),
        )

    def _proposer(self, config: ProposerConfig) -> Proposer:
        assert self.proposers is not None, "a stage with a proposer needs proposers"
        return self.proposers(config)

    # ------------------------------------------------------------------------------------------------ optimizers
    def _optimizer(self, config: TunedStageConfig, setup: TrialSetup, state: TrialState) -> Optimizer:
        """Return the stage's optimizer: that of the round before, moved to an adopted prompt, or a new one."""
        left, adopted = state.left.get(setup.place(state)), state.adopted
        state.adopted = None
        mode = _mode(setup, state) if adopted is not None else "keep"
        if left is None or mode == "reset":
            return self._built(config, setup, state, self._start(setup, state) if adopted is None else adopted)
        state.horizon = left.horizon
        optimizer = self._built(config, setup, state, None)
        optimizer.load_state_dict(left.state)
        if adopted is not None and mode == "keep":
            optimizer.relocate(adopted)
        elif adopted is not None:
            assert not isinstance(adopted, str)  # preflight/compatibility.py: words cannot be injected
            unit = self.oracle.info.embedding_std if setup.space.spec.scale == "embedding" else 1.0
            optimizer.inject(adopted, self.oracle.info.embedding_std, unit)
        return optimizer

    def _built(self, config: TunedStageConfig, setup: TrialSetup, state: TrialState, start: Start | None) -> Optimizer:
        return optimizers.build(
            config.optimizer,
            dim=setup.space.dim,
            key=(*self.key, state.stage_index),
            steps=state.horizon,
            start=start,
            vocabulary=setup.space.vocabulary(self.oracle),
        )

    def _start(self, setup: TrialSetup, state: TrialState) -> Start:
        """Return where a new optimizer begins where nothing was adopted: at the selected prompt, if there is one."""
        if state.stage_index == 0 or state.selected is None:
            return setup.space.start
        return setup.space.place(self.oracle, state.selected.candidate)


def _new_trajectory(setup: TrialSetup, index: int) -> Trajectory | None:
    """Return what a stage records its prompts in; None where no restart stage follows that would read them."""
    following = setup.schedule.stages[index + 1 : index + 2]
    if not following or not isinstance(following[0], RestartStageConfig):
        return None
    return Trajectory(PUBLISHED_WAYPOINTS if following[0].reproduce_paper else Trajectory.KEPT)


def _mode(setup: TrialSetup, state: TrialState) -> str:
    """Return what the restart stage before this one does to the optimizer."""
    before = setup.schedule.stages[state.stage_index - 1]
    assert isinstance(before, RestartStageConfig)
    return "keep" if before.reproduce_paper else before.state
