"""Settings of stages: the stretches that a trial is made of."""

from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import BeforeValidator, Field

from distributed_tuner.config.base import LABEL, Config, Read
from distributed_tuner.config.first_order import FirstOrderConfig
from distributed_tuner.config.optimizer import OptimizerConfig
from distributed_tuner.config.proposer import ProposerConfig
from distributed_tuner.config.task import LabelWords


def _renamed(value: Any) -> Any:
    return "metric" if value == "dev" else value


Select: TypeAlias = Annotated[Literal["cross_validation", "metric_then_loss", "metric"], BeforeValidator(_renamed)]


class TunedStage(Config):
    """Settings common to stages with an optimizer."""

    eval_every: int = Field(100, ge=1)
    """Queries between two evaluations: the recommended prompt is scored on all of train and dev (two queries)."""
    select: Select = "cross_validation"
    """When an evaluation becomes the selected prompt. "cross_validation": a lower loss over train and dev together,
    each row read by a head fitted without it; "metric_then_loss": a better dev metric, ties broken by dev loss; "dev"
    or "metric": strictly better dev metric alone, first of ties, as in the papers' code."""
    steps: int | None = Field(None, ge=1)
    """Steps after which the stage ends, with the rest of the budget for later stages; none: its share of what is left,
    shared evenly with the later stages that have none either."""


class SearchStageConfig(TunedStage):
    """A black-box search until its share of the budget is spent or the optimizer stops."""

    kind: Literal["search"] = "search"
    optimizer: OptimizerConfig
    """Optimizer that proposes the candidates."""


class GradientStageConfig(TunedStage):
    """First-order prompt tuning of a white box. A gradient counts as three queries: backward costs two forwards."""

    kind: Literal["gradient"] = "gradient"
    optimizer: FirstOrderConfig
    """Optimizer that takes the steps."""


class TokenSpaceConfig(Config):
    """Projection of prompt rows to words (V^-1)."""

    vocabulary: Literal["words", "printable", "all", "published"] = "words"
    """Allowed tokens: "words" that begin a word and can be read back, "printable", "all", or "published" (ids 4 to
    14999)."""
    distance: Literal["cosine", "l2", "published"] = "cosine"
    """Distance; "published": the least similar token, as in the published code."""


class ScreenStageConfig(Config):
    """A race of prompts in words before the first stage, by the loss that the head leaves on train; the winner is the
    finalist that does best on train and dev.

    The best instruction is what the search starts from (``prompt.text``, and ``prompt.instruction`` where the layout
    has one), in the winner's template and with its label words; the winner, demonstrations included, is a candidate
    like any other for what is returned.
    """

    reads: ClassVar[tuple[Read, ...]] = (
        Read(("proposals",), "proposer", unless=(None,)),
        Read(("orders",), "demonstrations", unless=((),)),
    )

    kind: Literal["screen"] = "screen"
    instructions: tuple[str, ...] = ()
    """Instructions of the user, tried in addition to the task's manual prompt."""
    proposer: ProposerConfig | None = None
    """The proposer that is asked once for more instructions, with the scores so far; None: no proposals."""
    proposals: int = Field(3, ge=1)
    """Number of its instructions that are tried."""
    templates: tuple[str, ...] = ()
    """Other templates for the same columns, or only what stands between the text and the label word, as in
    "\\nSentiment:{label_word}"; each is tried behind the best instructions."""
    verbalizers: tuple[LabelWords, ...] = ()
    """Other label words, written as ``task.label_words``, each one token. They cost no query, since the model's answer
    holds their scores as well. Only where the head reads label words alone."""
    patterns: bool = True
    """Whether neutral ones are tried as well: instructions made of the task's description and label words, cues, and
    the labels' own names as label words where ``verbalizers`` may be given."""
    demonstrations: tuple[Annotated[int, Field(ge=1)], ...] = (4, 8)
    """Numbers of train rows with labels in the prompt; each is tried behind the best instructions."""
    orders: int = Field(2, ge=1)
    """Draws of the rows and their order for each number."""
    instructions_kept: int = Field(2, ge=1)
    """The best instructions, behind which templates and demonstrations are tried."""
    finalists: int = Field(3, ge=1, le=20)
    """The best prompts by train, of each number of demonstrations in turn, that are evaluated: scored on all of train
    and dev. The stages' ``select`` then says which of them wins. 1: train alone decides."""


class RestartStageConfig(Config):
    """An LLM reads the trajectory of scored prompts and proposes others; the best becomes the start of what follows."""

    reads: ClassVar[tuple[Read, ...]] = (
        Read(("trajectory", "shown", "adopt", "state", "tokens"), "reproduce_paper", where=(False,)),
    )

    kind: Literal["restart"] = "restart"
    name: str | None = Field(None, pattern=LABEL)
    """Label in tables and reports; the proposer's kind when left out."""
    proposer: ProposerConfig
    """The proposer."""
    proposals: int = Field(3, ge=1)
    """M: proposals that are scored."""
    trajectory: int = Field(5, ge=0)
    """K: prompts of the stage before that are put into words and scored: its best, its last, and others spread over
    it."""
    shown: int = Field(8, ge=1)
    """Scored prompts that the instruction shows, the best known, worst first."""
    adopt: Literal["better", "always"] = "better"
    """Whether the best proposal must beat the incumbent on the same examples."""
    state: Literal["reset", "keep", "inject"] = "reset"
    """Effect of an adopted prompt on the optimizer: "reset" begins afresh there, "keep" moves it there with its
    momentum or covariance, "inject" (cma) hands it in as one more solution of the next generation."""
    tokens: TokenSpaceConfig = TokenSpaceConfig()
    """Projection of prompt rows to words."""
    reproduce_paper: bool = False
    """As the published code does it, defects included: the first nine distinct prompts of the stage, the least similar
    tokens, feedback from dev, the first proposal adopted unscored, the optimizer left as it is."""


StageConfig: TypeAlias = Annotated[
    SearchStageConfig | GradientStageConfig | RestartStageConfig, Field(discriminator="kind")
]
