"""Recorded ``config.json`` of a run: its settings, trials and versions. Settings stay trees here."""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field, model_validator

from distributed_tuner.ledger.rows import Count, Seconds, Seed
from distributed_tuner.storage.json_files import Told, told


class RecordedHead(Told):
    kind: str = "label_words"
    answer_words: list[str] | None = None


class RecordedBudget(Told):
    queries: Count | None = None
    forwards: Count | None = None
    tokens: Count | None = None
    seconds: Seconds | None = None
    usd: Seconds | None = None


class RecordedProposer(Told):
    calls: Count | None = None
    usd: Seconds | None = None


class RecordedStage(Told):
    kind: str = ""
    select: str | None = None
    proposer: RecordedProposer | None = None


class _Whole(Told):
    """``tree``: all that was read."""

    tree: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _whole(cls, value: Any) -> Any:
        return {**value, "tree": value} if isinstance(value, dict) else value


class RecordedSettings(_Whole):
    """Settings of an experiment, as far as reports read them."""

    name: str | None = None
    head: RecordedHead | None = None
    budget: RecordedBudget | None = None
    significance: float | None = None
    screen: RecordedStage | None = None
    stages: tuple[RecordedStage, ...] = ()

    @property
    def proposers(self) -> list[RecordedProposer]:
        """Who is asked, by the screen and by restart stages."""
        stages = self.stages if self.screen is None else (self.screen, *self.stages)
        return [stage.proposer for stage in stages if stage.proposer is not None]


class RecordedTrial(_Whole):
    """A trial as it was planned."""

    trial_id: str
    index: Count | None = None
    method: str = "?"
    seed: Seed | None = None
    split_seed: Seed | None = None
    drawn: dict[str, Any] = Field(default_factory=dict)
    config: RecordedSettings | None = None


class RecordedTask(Told):
    """Task of the first trial."""

    name: str | None = None
    metric: str | None = None
    label_words: tuple[str, ...] | dict[str, str] = ()
    train: Count | None = None
    dev: Count | None = None
    test: Count | None = None


class Recorded(_Whole):
    """A run. Each key may be missing, as in those of before it was there."""

    experiment: RecordedSettings | None = None
    trials: tuple[RecordedTrial, ...] = ()
    task: RecordedTask = Field(default_factory=RecordedTask)
    task_metric: str | None = None
    model: dict[str, Any] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    command: str = ""
    root: str | None = None

    @classmethod
    def of(cls, config: "Mapping[str, Any] | Recorded", name: str = "config.json") -> "Recorded":
        """Return what a config tells that was read from the file ``name``.

        Raises:
            RunDirectoryError: no run has written it.
        """
        return config if isinstance(config, Recorded) else told(config, cls, name)

    @model_validator(mode="after")
    def _names_once(self) -> Self:
        names = [trial.trial_id for trial in self.trials]
        twice = next((name for name in names if names.count(name) > 1), None) if len({*names}) < len(names) else None
        if twice is not None:
            raise ValueError(f"a trial's name may occur once, but {twice!r} occurs twice")
        return self

    @property
    def metric(self) -> str:
        """The primary metric's name; "metric" if it is not recorded."""
        return self.task.metric or self.task_metric or "metric"

    @property
    def settings(self) -> RecordedSettings:
        """The experiment's settings; None if they are not recorded."""
        return self.experiment or RecordedSettings()
