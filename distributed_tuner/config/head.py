"""Settings of heads and objectives: how answers are read, and which loss the search sees."""

from typing import Annotated, Any, ClassVar, Literal, TypeAlias, TypeGuard

from pydantic import BeforeValidator, Field

from distributed_tuner.config.base import Config, Read
from distributed_tuner.config.custom import CustomPart
from distributed_tuner.values import Objective

Strength: TypeAlias = Annotated[float, Field(gt=0)] | Literal["auto"]
AnswerWords: TypeAlias = Annotated[tuple[str, ...], Field(min_length=1)] | None

MOST_WORDS = 20_000
SAMPLED = Read(("words",), "answer_words", where=(None,))
"""``words``, the number of sampled words, is read only without ``answer_words``."""


class AutoHeadConfig(Config):
    """``vocabulary`` where the oracle tells the scores of many words, ``bias`` where it tells those of label words
    alone. Chosen once a run and recorded in config.json."""

    kind: Literal["auto"] = "auto"


class NoHeadConfig(Config):
    """No head: for tasks with targets, whose answers are texts."""

    kind: Literal["none"] = "none"


class LabelWordsHeadConfig(Config):
    """The label words as they are, as the papers have it: nothing is fitted."""

    kind: Literal["label_words"] = "label_words"


class BiasHeadConfig(Config):
    """One number a label, added to its word's score."""

    kind: Literal["bias"] = "bias"
    strength: Strength = "auto"
    """Of the L2 penalty; "auto": by leave-one-out."""


class AffineHeadConfig(Config):
    """A factor and a number a label; the bias alone where the factors gain less than a standard error."""

    kind: Literal["affine"] = "affine"
    strength: Strength = "auto"
    """Of the L2 penalty on factors (towards 1) and numbers; "auto": by leave-one-out."""


class VocabularyHeadConfig(Config):
    """A ridge regression on the scores of many words at the answer position; its strength by leave-one-out."""

    reads: ClassVar[tuple[Read, ...]] = (SAMPLED,)

    kind: Literal["vocabulary"] = "vocabulary"
    words: int = Field(1600, ge=10, le=MOST_WORDS)
    """V: how many words are asked for; the label words are the first, the others a sample of the vocabulary."""
    answer_words: AnswerWords = None
    """Words in addition to the label words, each one token; by default chosen once a run."""
    strength: Strength = "auto"
    """Of the L2 penalty, in units of the mean feature; "auto": by closed-form leave-one-out."""


class NeighboursHeadConfig(Config):
    """The labels of the train rows whose answers are nearest, by the divergence of their distributions over words."""

    reads: ClassVar[tuple[Read, ...]] = (SAMPLED,)

    kind: Literal["knn"] = "knn"
    words: int = Field(1600, ge=10, le=MOST_WORDS)
    """V, as of ``vocabulary``."""
    answer_words: AnswerWords = None
    """As of ``vocabulary``."""
    neighbours: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """k; "auto": of 1, 3, 5, 7, 9 by leave-one-out."""


class CentroidHeadConfig(Config):
    """The label whose train rows' mean answer is nearest."""

    reads: ClassVar[tuple[Read, ...]] = (SAMPLED,)

    kind: Literal["centroid"] = "centroid"
    words: int = Field(1600, ge=10, le=MOST_WORDS)
    """V, as of ``vocabulary``."""
    answer_words: AnswerWords = None
    """As of ``vocabulary``."""


class BatchHeadConfig(Config):
    """A bias without labels: the mean log-probability of each label word over the train texts is taken away."""

    kind: Literal["batch"] = "batch"


class ContextualHeadConfig(Config):
    """A bias without labels: what the model answers to texts without content is taken away. Costs one more query."""

    kind: Literal["contextual"] = "contextual"


class DomainHeadConfig(Config):
    """A bias without labels: what the model answers to random words of the train texts is taken away. Costs one more
    query."""

    kind: Literal["domain"] = "domain"


class CustomHeadConfig(CustomPart):
    """A head of your own: a subclass of ``distributed_tuner.heads.Head``."""

    kind: Literal["custom"] = "custom"
    words: int = Field(0, ge=0, le=MOST_WORDS)
    """V, as of ``vocabulary``; 0: it reads the label words alone."""
    answer_words: AnswerWords = None
    """As of ``vocabulary``."""


def _named(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


WordyHeadConfig: TypeAlias = VocabularyHeadConfig | NeighboursHeadConfig | CentroidHeadConfig | CustomHeadConfig

HeadConfig: TypeAlias = Annotated[
    Annotated[
        AutoHeadConfig
        | NoHeadConfig
        | LabelWordsHeadConfig
        | BiasHeadConfig
        | AffineHeadConfig
        | VocabularyHeadConfig
        | NeighboursHeadConfig
        | CentroidHeadConfig
        | BatchHeadConfig
        | ContextualHeadConfig
        | DomainHeadConfig
        | CustomHeadConfig,
        Field(discriminator="kind"),
    ],
    BeforeValidator(_named),
]
"""``head: bias`` is short for ``head: {kind: bias}``."""


def reads_words(head: HeadConfig) -> TypeGuard[WordyHeadConfig]:
    """Whether a head reads answer words in addition to the label words."""
    if isinstance(head, CustomHeadConfig):
        return head.words > 0
    return isinstance(head, VocabularyHeadConfig | NeighboursHeadConfig | CentroidHeadConfig)


class ObjectiveConfig(Config):
    """Objective of search, gradient and restart stages: of labels the loss of a candidate after its best head, of
    targets their likelihood, or a metric of the texts that are generated."""

    reads: ClassVar[tuple[Read, ...]] = (
        Read(("head", "score", "strength"), "kind", where=("auto", "labels")),
        Read(("per", "stop"), "kind", where=("auto", "likelihood")),
        Read(("score",), "head", where=("bias", "vocabulary")),
        Read(("strength",), "head", where=("bias",)),
    )

    kind: Literal["auto", "labels", "likelihood", "metric"] = "auto"
    """"labels": the loss of labels. Of targets: "likelihood", the mean negative log-likelihood of the target's tokens;
    "metric", 1 minus the task's first metric of generated texts. "auto": labels, or likelihood where the task has
    targets."""
    per: Literal["token", "example"] = "token"
    """Of the likelihood: an example's loss is the mean over its target's tokens, or their sum."""
    stop: bool = True
    """Of the likelihood: whether the first of ``task.decoding.stop`` counts as the end of each target, so that the
    model learns where to end."""
    head: Literal["label_words", "bias", "vocabulary"] = "label_words"
    """The loss of the label words as they are, as the papers have it ("label_words"); "bias": after the bias that fits
    the candidate best; "vocabulary": after its best ridge head, which few rows are soon overfitted by."""
    score: Literal["train", "leave_one_out"] = "train"
    """Whether the head is scored on the rows it was fitted on, or each row by a head fitted without it."""
    strength: float = Field(0.01, gt=0)
    """Of the bias's L2 penalty."""

    def value(self) -> Objective:
        """Return the objective of labels as batches carry it."""
        return Objective(self.head, self.score, self.strength)


ObjectiveSetting: TypeAlias = Annotated[ObjectiveConfig, BeforeValidator(_named)]
"""``objective: metric`` is short for ``objective: {kind: metric}``."""
