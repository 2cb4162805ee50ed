"""The whole experiment, once nothing in it is free: what one trial runs, and what all trials share."""

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import Field, model_validator

from distributed_tuner.config.base import Config
from distributed_tuner.config.budget import BudgetConfig
from distributed_tuner.config.ensemble import EnsembleConfig
from distributed_tuner.config.head import AutoHeadConfig, HeadConfig, ObjectiveConfig, ObjectiveSetting
from distributed_tuner.config.logger import LoggerConfig
from distributed_tuner.config.oracle import OracleConfig
from distributed_tuner.config.prompt import PromptConfig, SoftPromptConfig
from distributed_tuner.config.proposer import ProposerConfig
from distributed_tuner.config.schedule import NoScheduleConfig, ScheduleConfig
from distributed_tuner.config.stage import RestartStageConfig, ScreenStageConfig, StageConfig
from distributed_tuner.config.task import TaskConfig
from distributed_tuner.errors import ConfigError


class Experiment(Config):
    """A resolved search space: constants only. A space's trials differ in the values drawn for them."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Names the run directory."""
    seed: int = Field(0, ge=0)
    """Root of all randomness of a trial."""
    task: TaskConfig
    """The examples, template and label words."""
    oracle: OracleConfig
    """The frozen model. The same for all trials."""
    prompt: PromptConfig = SoftPromptConfig()
    """The prompt that is tuned."""
    head: HeadConfig = AutoHeadConfig()
    """Head that turns answers into labels, for the manual prompt and for tuned ones alike."""
    objective: ObjectiveSetting = ObjectiveConfig()
    """The loss of a candidate that searches minimise."""
    significance: float | None = Field(0.1, gt=0, lt=1)
    """A tuned prompt is returned only where it is better than the manual prompt, read by the same head: by a paired t
    test of their losses on dev, at this level. None: whatever dev says. Of prompts that ``select: cross_validation``
    selected alone."""
    ensemble: EnsembleConfig | None = None
    """Several prompts combined, reported next to the single one that is returned; None: no ensemble."""
    screen: ScreenStageConfig | None = None
    """Screen before the first stage; written as the first of ``stages``, of kind ``screen``."""
    stages: tuple[StageConfig, ...] = Field(min_length=1)
    """Stages of a trial, in order; they share the budget."""
    rounds: int = Field(1, ge=1)
    """Repetitions of the stages. A restart stage at the very end is left out where a search would have to follow it."""
    budget: BudgetConfig = BudgetConfig()
    """Hard limits of a trial."""
    schedule: ScheduleConfig = NoScheduleConfig(kind="none")
    """Schedule by which trials compete. The same for all trials."""
    samples: int = Field(1, ge=1)
    """Draws of the random values for each combination of the grids. The same for all trials."""
    max_concurrent_trials: int = Field(8, ge=1)
    """Trials that run at a time; they share the oracle actors. The same for all trials."""
    priority: float = Field(1.0, gt=0, allow_inf_nan=False)
    """A trial's share of the oracle workers: with 2 it gets twice the forwards of a trial with 1 while both wait."""
    loggers: tuple[LoggerConfig, ...] = ()
    """Metric loggers, in addition to the ledger. The same for all trials."""
    report_every: float | None = Field(30.0, gt=0, allow_inf_nan=False)
    """Seconds between two versions of ``report.html`` while the run works; more if one takes long to draw. None: the
    report is written at the end. The same for all trials."""

    @model_validator(mode="before")
    @classmethod
    def _screen_comes_first(cls, tree: Any) -> Any:
        stages = tree.get("stages") if isinstance(tree, Mapping) else None
        if not isinstance(stages, list | tuple) or not stages:
            return tree
        kinds = [stage.get("kind") if isinstance(stage, Mapping) else None for stage in stages]
        if "screen" in kinds[1:]:
            raise ValueError(
                f"a stage of kind screen comes first and once, but it is number {kinds.index('screen', 1) + 1}"
            )
        if kinds[0] != "screen":
            return tree
        return {**tree, "screen": stages[0], "stages": list(stages[1:])}

    @property
    def method(self) -> str:
        """Label of what the trial runs: its optimizers' names and its proposers' kinds, each once, joined by "+"."""
        return "+".join(dict.fromkeys(label_of(stage) for stage in self.stages))

    @property
    def stage_schedule(self) -> tuple[StageConfig, ...]:
        """All stages of all rounds, in order."""
        stages = self.stages * self.rounds
        searches = any(not isinstance(stage, RestartStageConfig) for stage in stages)
        return stages[:-1] if searches and isinstance(stages[-1], RestartStageConfig) else stages

    @property
    def proposers(self) -> tuple[ProposerConfig, ...]:
        """Who is asked, once for each screen and restart stage that asks, in order."""
        restarts = [stage.proposer for stage in self.stage_schedule if isinstance(stage, RestartStageConfig)]
        screen = None if self.screen is None else self.screen.proposer
        return tuple(restarts if screen is None else [screen, *restarts])

    def with_proposers(self, change: Callable[[ProposerConfig], ProposerConfig]) -> "Experiment":
        """Return the experiment with every proposer changed."""
        stages = tuple(
            stage.model_copy(update={"proposer": change(stage.proposer)})
            if isinstance(stage, RestartStageConfig)
            else stage
            for stage in self.stages
        )
        screen = self.screen
        if screen is not None and screen.proposer is not None:
            screen = screen.model_copy(update={"proposer": change(screen.proposer)})
        return self.model_copy(update={"stages": stages, "screen": screen})

    def changed(self, settings: Mapping[str, float]) -> "Experiment":
        """Return the experiment with numbers changed at dotted paths; a whole number stays one.

        Raises:
            ConfigError: a path leads to no number.
        """
        tree = self.model_dump()
        for path, value in settings.items():
            *above, name = path.split(".")
            place: Any = tree
            try:
                for part in above:
                    place = place[int(part)] if isinstance(place, list | tuple) else place[part]
                old = place[name]
            except (KeyError, IndexError, ValueError, TypeError):
                old = None
            if isinstance(old, bool) or not isinstance(old, int | float):
                raise ConfigError(
                    f"a path must lead to a number of the experiment, but {path!r} does not; write it as in"
                    " stages.0.optimizer.learning_rate"
                )
            place[name] = round(value) if isinstance(old, int) else float(value)
        return Experiment.model_validate(tree)


def label_of(stage: StageConfig) -> str:
    """Return what tables and reports call a stage."""
    if isinstance(stage, RestartStageConfig):
        return stage.name or stage.proposer.called
    return stage.optimizer.label
