"""Rows of a trial: its start, its stages and what they measure, its end."""

from typing import Literal

from pydantic import Field, field_validator

from distributed_tuner.ledger.rows.fields import CostRow, Count, Frozen, Metrics, Score, Seconds, Seed, Tree, TypedRow


class TrialRow(TypedRow):
    """A trial begins; written again, with a higher ``attempt``, when it is restarted."""

    type: Literal["trial"] = "trial"
    trial_id: str
    method: str
    seed: Seed
    split_seed: Seed
    drawn: Tree
    """The free values of this trial, by path."""
    attempt: Count = 0


class SurveyRow(TypedRow):
    """Measurements of a trial around the start of a stage, for settings that are "auto".

    Bought from the trial's budget, like steps.
    """

    type: Literal["survey"] = "survey"
    trial_id: str
    stage: Count
    settings: dict[str, float]
    """What the stage goes on with, by name: points, rho and learning_rate of zot, alpha of cma; defaults where nothing
    could be measured, which those of the user's own optimizers are not known of."""
    noise: Score = None
    """Of one loss."""
    slope: Score = None
    """Norm of the gradient."""
    trace: Score = None
    """Of the loss's Hessian."""
    trace_error: Score = None
    """Its standard error."""
    norm: Score = None
    """Frobenius norm of the Hessian, an upper bound of its largest |eigenvalue|."""
    effective_dimension: Score = None
    """Trace over norm."""
    snr: Score = None
    """Signal-to-noise of a pair's difference at rho; None where no noise was seen."""
    falls: dict[str, float] = Field(default_factory=dict)
    """Of cma: by how much a generation should lower the loss, by the radius it is drawn at."""
    told: dict[str, float] = Field(default_factory=dict)
    """Of an optimizer of the user's own: what its probe tells, by name."""
    note: str = ""
    """Why nothing could be measured; empty where all is well."""
    cost: CostRow
    spent: CostRow
    elapsed: Seconds


class StepRow(TypedRow):
    """One ask/tell round: losses of the candidates that were asked for, not of the recommended prompt."""

    type: Literal["step"] = "step"
    trial_id: str
    stage: Count
    step: Count
    loss: Score
    """Mean of the finite candidate losses; None when there is none. Raced candidates that stopped early count with
    their estimates."""
    best_loss: Score
    failed: Count
    """Number of candidates without a finite loss."""
    cost: CostRow
    spent: CostRow
    """Cumulative cost of the trial, this row included."""
    elapsed: Seconds
    """Wall-clock seconds since the trial's first query."""
    metrics: Metrics = Field(default_factory=dict)
    """Numbers of the optimizer; of a raced step also ``queries_saved``, ``forwards_saved`` (full cost less what was
    booked) and ``stopped_early`` (candidates)."""


class EvalRow(TypedRow):
    """The recommended prompt, scored on train and dev. ``selected``: it is the trial's best prompt from here on.

    Dev is read by the run's head: each row by one without it, or by one fitted to train where dev alone selects.
    """

    type: Literal["evaluation", "look"] = "evaluation"
    """"look" in ledgers of older versions."""
    trial_id: str
    stage: Count
    step: Count
    train_loss: Score
    dev_loss: Score
    dev_metric: Score
    dev_metrics: Metrics = Field(default_factory=dict)
    score: Score = None
    """Mean loss over train and dev, each row read by a head without it."""
    losses: list[Score] = Field(default_factory=list)
    """The same of each row, train's before dev's; of selected prompts alone."""
    selected: bool
    screen: bool = False
    """Whether it is a finalist of the screen, of which ``step`` counts, before the search's own first evaluation."""
    text: str | None = None
    """The prompt, where it is in words."""
    cost: CostRow
    spent: CostRow
    elapsed: Seconds

    @field_validator("type")
    @classmethod
    def _present_name(cls, _: str) -> str:
        return "evaluation"


class ScreenedText(Frozen):
    """A prompt in words and the loss that the head leaves on train, each row read by a head without it.

    ``template`` and ``label_words`` are empty where they are the task's own.
    """

    text: str
    demonstrations: Count = 0
    loss: Score
    proposed: bool = False
    """Whether a proposer wrote its instruction."""
    template: str = ""
    label_words: list[str] = Field(default_factory=list)
    finalist: bool = False
    """Whether it was evaluated, on train and dev."""
    selected: bool = False
    """Whether that selected it of all finalists; of none where no evaluation could be read, and train alone decided."""


class ScreenRow(TypedRow):
    """Scores of a trial's screen before its first stage, best first. Paid from the trial's budget."""

    type: Literal["screen"] = "screen"
    trial_id: str
    stage: Count
    texts: list[ScreenedText]
    instruction: str
    """Start of the search."""
    template: str = ""
    """Template of the trial; empty if it is the task's own."""
    label_words: list[str] = Field(default_factory=list)
    """Likewise."""
    note: str = ""
    """Skipped candidates; empty if there were none."""
    cost: CostRow
    spent: CostRow
    elapsed: Seconds


class EnsembleRow(TypedRow):
    """Ensemble of a trial from here on. Costs nothing.

    Dev is read as of ``EvalRow``.
    """

    type: Literal["ensemble"] = "ensemble"
    trial_id: str
    members: Count
    """Number of members; 0 if the best prompt alone is better."""
    score: Score = None
    """Mean loss over train and dev, the rows that the best member is scored by as well: each read by heads without it,
    and by members that do not show it."""
    dev_loss: Score = None
    dev_metric: Score = None
    dev_metrics: Metrics = Field(default_factory=dict)


class StageRow(TypedRow):
    """End of a stage of a trial. Its costs are in the rows before, not in this one."""

    type: Literal["stage"] = "stage"
    trial_id: str
    stage: Count
    kind: Literal["search", "gradient", "restart"]
    method: str
    """The optimizer's name, or the proposer's."""
    steps: Count
    """Ask/tell rounds; none in a restart stage."""
    reason: str
    """Why it ended."""
    dev_loss: Score
    """Of the trial's best prompt so far; None before the first that was selected."""
    dev_metric: Score
    paid: CostRow
    """Cost of the stage, without a survey before its search."""
    spent: CostRow
    elapsed: Seconds


class TrialEndRow(TypedRow):
    """A trial ends; the last one counts."""

    type: Literal["trial_end"] = "trial_end"
    trial_id: str
    status: Literal["done", "stopped", "failed", "interrupted"]
    reason: str
    wall_seconds: Seconds
