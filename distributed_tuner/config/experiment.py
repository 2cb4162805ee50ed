"""The whole experiment, once nothing in it is free: what one trial runs, and what all trials share."""

from pydantic import Field

from distributed_tuner.config.base import Config
from distributed_tuner.config.budget import BudgetConfig
from distributed_tuner.config.oracle import OracleConfig
from distributed_tuner.config.prompt import PromptConfig
from distributed_tuner.config.schedule import NoScheduleConfig, ScheduleConfig
from distributed_tuner.config.stage import RestartStageConfig, StageConfig
from distributed_tuner.config.task import TaskConfig


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
    prompt: PromptConfig = PromptConfig()
    """The soft prompt."""
    stages: tuple[StageConfig, ...] = Field(min_length=1)
    """What a trial does, in order; the budget is shared by its stages."""
    rounds: int = Field(1, ge=1)
    """How often it does them. A restart stage at the very end is left out where a search would have to follow it."""
    budget: BudgetConfig = BudgetConfig()
    """Hard limits of a trial."""
    schedule: ScheduleConfig = NoScheduleConfig(kind="none")
    """How trials compete. The same for all trials."""
    samples: int = Field(1, ge=1)
    """Draws of the random values for each combination of the grids. The same for all trials."""
    max_concurrent_trials: int = Field(8, ge=1)
    """Trials that run at a time; they share the oracle actors. The same for all trials."""

    @property
    def method(self) -> str:
        """Label of what the trial runs: its optimizers' names and its proposers' kinds, joined by "+"."""
        return "+".join(label_of(stage) for stage in self.stages)

    @property
    def course(self) -> tuple[StageConfig, ...]:
        """All stages of all rounds, in order."""
        stages = self.stages * self.rounds
        searches = any(not isinstance(stage, RestartStageConfig) for stage in stages)
        return stages[:-1] if searches and isinstance(stages[-1], RestartStageConfig) else stages


def label_of(stage: StageConfig) -> str:
    """Return what tables and reports call a stage."""
    if isinstance(stage, RestartStageConfig):
        return f"{stage.proposer.kind}_restart"
    return stage.optimizer.label
