"""Numbers of ``summary.json`` that a list of runs shows, validated: somebody else may have written the file."""

from pydantic import Field

from distributed_tuner.ledger.rows import Count, Score, Seconds
from distributed_tuner.storage.json_files import Told


class ListedPrompt(Told):
    """A prompt. ``dev_metric`` is None before the first evaluation, ``test_metric`` before the end."""

    trial_id: str | None = None
    method: str | None = None
    metric: str = "metric"
    dev_metric: Score = None
    test_metric: Score = None
    test_interval: tuple[float, float] | None = None


class ListedBest(ListedPrompt):
    """The prompt that is returned. ``tuned``: the best trial's own, where that is not better than the manual one."""

    tuned: ListedPrompt | None = None


class ListedTrial(Told):
    """What a trial has spent."""

    status: str = ""
    queries: Count = 0
    forwards: Count = 0
    tokens: Count = 0
    usd: Seconds = 0.0
    wall_seconds: Seconds = 0.0


class ListedTotals(Told):
    """Totals of all trials."""

    queries: Count = 0
    forwards: Count = 0
    tokens: Count = 0
    usd: Seconds = 0.0
    wall_seconds: Seconds = 0.0


class Listed(Told):
    """The numbers of a run."""

    status: str
    best: ListedBest = Field(default_factory=ListedBest)
    totals: ListedTotals = Field(default_factory=ListedTotals)
    trials: tuple[ListedTrial, ...] = ()

    @property
    def found(self) -> ListedPrompt:
        """The best prompt that a trial has found."""
        return self.best.tuned or self.best
