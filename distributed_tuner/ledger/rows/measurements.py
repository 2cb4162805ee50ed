"""Rows of measurements that are not paid from a trial's budget: final scores, and the checks before the first trial."""

from typing import Literal

from pydantic import Field

from distributed_tuner.ledger.rows.fields import CostRow, Count, Frozen, Metrics, Score, Seed, TypedRow


class GeneratedText(Frozen):
    """Text that a model generated for one test example; None if the example failed. Long texts are cut.

    ``input`` and ``target`` are empty but with the manual prompt, so that each stands in a ledger once.
    """

    uid: str
    text: str | None
    input: str = ""
    target: str = ""


class MeasureRow(TypedRow):
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
    texts: list[GeneratedText] = Field(default_factory=list)
    """Generated answers to the first test examples, where a task has targets."""
    cost: CostRow


class CalibrationRow(TypedRow):
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


class ParityRow(TypedRow):
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


class LayoutRow(TypedRow):
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


class CurvatureRow(TypedRow):
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
