"""The rows of a ledger: what may be written down, typed. How rows reach the disk is left to `writer` and `reader`.

NaN and infinity never enter the JSON: a loss or metric that is not finite, or so large that sums of it are not, is
``None``, a named metric of that kind is left out, and any other number of that kind is refused. Whole numbers stay so
small that a double holds them.
"""

import time
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, field_validator

from distributed_tuner.values import Cost

_LARGEST = 1e100
"""Of a loss: what diverged is far beyond, and millions of these can be added up."""


def _is_finite(value: Any) -> bool:
    return not isinstance(value, int | float) or abs(value) <= _LARGEST


def _none_if_not_finite(value: Any) -> Any:
    return value if _is_finite(value) else None


def _finite_items(value: Any) -> Any:
    return {name: one for name, one in value.items() if _is_finite(one)} if isinstance(value, dict) else value


def _finite_tree(value: Any) -> Any:
    match value:
        case dict():
            return {name: _finite_tree(one) for name, one in value.items()}
        case list() | tuple():
            return [_finite_tree(one) for one in value]
    return _none_if_not_finite(value)


# What is finite, which is nearly everything, is taken by the first member of each union, without a call of Python.
_InOrder = Field(union_mode="left_to_right")
_Finite: TypeAlias = Annotated[float, Field(ge=-_LARGEST, le=_LARGEST)]
_FiniteOrNone: TypeAlias = Annotated[float | None, BeforeValidator(_none_if_not_finite)]
_FiniteItems: TypeAlias = Annotated[dict[str, _Finite], BeforeValidator(_finite_items)]
Score: TypeAlias = Annotated[_Finite | _FiniteOrNone, _InOrder]
Metrics: TypeAlias = Annotated[dict[str, _Finite] | _FiniteItems, _InOrder]
Tree: TypeAlias = Annotated[dict[str, Any], BeforeValidator(_finite_tree)]
Count: TypeAlias = Annotated[int, Field(ge=0, le=10**15)]
Seconds: TypeAlias = Annotated[float, Field(ge=0, le=1e15)]
Seed: TypeAlias = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Moment: TypeAlias = Annotated[float, Field(ge=0, lt=253_402_300_800)]
"""Unix seconds, before the year 10000."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True, allow_inf_nan=False)


class CostRow(_Frozen):
    """Cost. ``seconds`` are device seconds, summed over tiles; a query is one candidate on one batch."""

    queries: Count = 0
    forwards: Count = 0
    tokens: Count = 0
    seconds: Seconds = 0.0
    usd: Seconds = 0.0

    @classmethod
    def of(cls, cost: Cost) -> "CostRow":
        """Return ``cost`` as it is written down."""
        return cls(queries=cost.queries, forwards=cost.forwards, tokens=cost.tokens, seconds=cost.seconds, usd=cost.usd)

    def value(self) -> Cost:
        """Return the cost as the value that can be added up."""
        return Cost(self.queries, self.forwards, self.tokens, self.seconds, self.usd)


class _Row(_Frozen):
    time: Moment = Field(default_factory=time.time)
    """Time of the row, in unix seconds."""


class RunRow(_Row):
    """A run begins, or begins again (``resumed``)."""

    type: Literal["run"] = "run"
    name: str
    version: str
    seed: Seed
    methods: list[str]
    resumed: bool = False


class TrialRow(_Row):
    """A trial begins; written again, with a higher ``attempt``, when it is restarted."""

    type: Literal["trial"] = "trial"
    trial_id: str
    method: str
    seed: Seed
    split_seed: Seed
    drawn: Tree
    """The free values of this trial, by path."""
    attempt: Count = 0


class StepRow(_Row):
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


class EvalRow(_Row):
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


class ScoredText(_Frozen):
    """A prompt in words and how it scored on the feedback examples. ``source``: where it comes from."""

    text: str
    source: Literal["trajectory", "proposal", "donor", "incumbent"]
    loss: Score
    metric: Score


class FeedbackRow(_Row):
    """Prompts of the stage before, put into words and scored: what a proposer is shown."""

    type: Literal["feedback"] = "feedback"
    trial_id: str
    stage: Count
    texts: list[ScoredText]
    cost: CostRow
    spent: CostRow
    elapsed: Seconds


class ExchangeRow(_Row):
    """One request to a proposer and its answer, whole. Answers are data: shown, never run."""

    type: Literal["exchange"] = "exchange"
    trial_id: str
    stage: Count
    number: Count
    """Counts the requests of this stage."""
    screen: bool = False
    """Whether the screen before the stage asked."""
    proposer: str
    """Kind and model, such as "local smollm2-135m"."""
    instruction: str
    answer: str
    texts: list[str]
    """Proposals that were found in the answer."""
    cut: Count = 0
    """Number of them with more tokens than the prompt has rows, which are cut there."""
    problem: str = ""
    """Why there is no answer, or none that can be used; empty where there is."""
    input_tokens: Count = 0
    output_tokens: Count = 0
    seconds: Seconds = 0.0
    usd: Seconds = 0.0


class RestartRow(_Row):
    """A restart stage ends: what was scored on the same examples, and what became the start of the next stage."""

    type: Literal["restart"] = "restart"
    trial_id: str
    stage: Count
    incumbent_loss: Score
    """Of the prompt that the trial came with; None where it was not scored."""
    scored: list[ScoredText]
    """Proposals, and the donor's prompt in a population."""
    adopted: Literal["none", "proposal", "donor"]
    text: str
    """The adopted prompt in words; empty where none was adopted."""
    donor: str | None = None
    """The trial whose settings, and perhaps prompt, were taken over (population only)."""
    settings: dict[str, float] = Field(default_factory=dict)
    """The settings that were taken over and explored, by path."""
    reason: str = ""
    """Why nothing was proposed or adopted, in words; empty where something was."""
    cost: CostRow
    spent: CostRow
    elapsed: Seconds


class MeasureRow(_Row):
    """A score that is not bought from any trial's budget.

    Of the manual prompt as it is and read by the run's head, of a bag of words without a model, of a trial's selected
    prompt, read by its head, or of a trial's ensemble.
    """

    type: Literal["measure"] = "measure"
    trial_id: str | None = None
    what: Literal["manual_prompt", "manual_prompt_with_head", "bag_of_words", "selected", "ensemble"]
    split: Literal["dev", "test"]
    split_seed: Seed
    loss: Score
    metric: Score
    metrics: Metrics = Field(default_factory=dict)
    label_words_metric: Score = None
    """Of the same answers, read by the label words as they are."""
    losses: list[Score] = Field(default_factory=list)
    """As of ``EvalRow``: of train and dev, where the head was fitted to both."""
    cost: CostRow


class CalibrationRow(_Row):
    """Calibration of precision before the first trial, for one method's first step.

    Not bought from any budget. Losses are those of the train batch that the method's steps are scored on.
    """

    type: Literal["calibration"] = "calibration"
    method: str
    radius_name: str | None = None
    """The setting that is the distance of the step's candidates from where it begins; None: no single one is."""
    radius: float | None = None
    split_seed: Seed
    dtype: str
    """Dtype of the measurement."""
    signal: Score
    """RMS of the difference of the two losses that the method compares."""
    noise: Score
    """Rounding noise of that difference."""
    snr: Score
    """Signal over noise; None where no noise was seen."""
    limit: float
    """The smallest signal-to-noise with which a precision is kept."""
    used: str
    """The dtype of the run from here on."""
    cost: CostRow

    @property
    def where(self) -> str:
        """Description of the measurement."""
        at = "" if self.radius is None else f" at {self.radius_name} {self.radius:g}"
        return f"{self.dtype}{at} ({self.method})"


class ParityRow(_Row):
    """Results of the sanity check before the first trial.

    Not bought from any budget. Differences are of losses of the same few prompts on the same few train examples.
    """

    type: Literal["parity"] = "parity"
    layout: str
    """Of the prompt that the sanity check asked with; "text" for prompts in words."""
    repeated: Score
    """Largest difference between a request and the same one again; None where no loss was finite."""
    together: Score
    """Largest difference between a prompt alone and among others."""
    plain: Score = None
    """Largest difference from the plain forward pass; None where that was not run."""
    noisy: bool
    """Asked again, the oracle gave another answer, so that none was kept for later."""
    note: str = ""
    """Warning; empty if there is none."""
    cost: CostRow


class LayoutRow(_Row):
    """Race of layouts before the first trial, for the trials of one split with the layout "auto".

    Each of these trials has as much less in its budget.
    """

    type: Literal["layout"] = "layout"
    split_seed: Seed
    chosen: str
    losses: dict[str, Score]
    """The lowest loss on train of each layout."""
    queries: dict[str, Count]
    """Number of scored prompts of each layout, with about the same number of tokens."""
    cost: CostRow


class CurvatureRow(_Row):
    """Measurements of a loss's Hessian at one point, by an analysis. Not paid from any budget."""

    type: Literal["curvature"] = "curvature"
    point: str
    """Where: "step 8", "the trained prompt"."""
    loss: Score
    gradient_norm: Score = None
    """None where losses alone were asked for."""
    trace: Score
    trace_error: Score
    """Its standard error; None with one probe."""
    norm: Score
    """Largest |eigenvalue|; where losses alone were asked for the Frobenius norm."""
    probes: Count
    cost: CostRow


class SurveyRow(_Row):
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
    falls: dict[str, float] = {}
    """Of cma: by how much a generation should lower the loss, by the radius it is drawn at."""
    told: dict[str, float] = {}
    """Of an optimizer of the user's own: what its probe tells, by name."""
    note: str = ""
    """Why nothing could be measured; empty where all is well."""
    cost: CostRow
    spent: CostRow
    elapsed: Seconds


class ScreenedText(_Frozen):
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


class ScreenRow(_Row):
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


class EnsembleRow(_Row):
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


class StageRow(_Row):
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


DATA_WARNING = "data_warning"
"""The kind of an event that tells what in the data flatters or spoils the numbers."""


class EventRow(_Row):
    """Something a reader of the report should know: a retry, a restart, a stop, a warning."""

    type: Literal["event"] = "event"
    trial_id: str | None = None
    kind: str
    message: str


class TrialEndRow(_Row):
    """A trial ends; the last one counts."""

    type: Literal["trial_end"] = "trial_end"
    trial_id: str
    status: Literal["done", "stopped", "failed", "interrupted"]
    reason: str
    wall_seconds: Seconds


class RunEndRow(_Row):
    """A run ends. Seconds and counts are of the stretch since the latest `RunRow`, not of the stretches before."""

    type: Literal["run_end"] = "run_end"
    status: Literal["done", "interrupted", "failed"]
    wall_seconds: Seconds
    oracle_busy_seconds: Seconds
    """Device seconds in which oracles computed, summed over actors."""
    oracle_actors: Count
    tiles: Count
    retries: Count
    counts: dict[str, Count] = Field(default_factory=dict)
    """Other counts in the oracles' answers, summed by name: ``cached_forwards``, ``absent_labels``, ..."""


Row: TypeAlias = Annotated[
    RunRow
    | TrialRow
    | StepRow
    | EvalRow
    | FeedbackRow
    | ExchangeRow
    | RestartRow
    | MeasureRow
    | CalibrationRow
    | ParityRow
    | LayoutRow
    | CurvatureRow
    | SurveyRow
    | ScreenRow
    | EnsembleRow
    | StageRow
    | EventRow
    | TrialEndRow
    | RunEndRow,
    Field(discriminator="type"),
]

ROW: TypeAdapter[Row] = TypeAdapter(Row)
"""Reads one line: ``ROW.validate_json(line)``."""
