"""Values that cross the packages' borders: candidates, batches, requests and evaluations. Frozen data, no behaviour.

Shapes are named by letters: C candidates, E examples, W label words, V answer words (the label words first), L prompt
rows, D embedding width, P = L * D prompt coordinates, K intrinsic dimensions.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from distributed_tuner.seeds import Key

Array: TypeAlias = npt.NDArray[np.float32]
Array64: TypeAlias = npt.NDArray[np.float64]
Half: TypeAlias = npt.NDArray[np.float16]
Split: TypeAlias = Literal["train", "feedback", "dev", "test"]
LossName: TypeAlias = Literal["cross_entropy", "hinge", "zero_one"]
Layout: TypeAlias = Literal["prefix", "suffix", "add"]
LabelRule: TypeAlias = Literal["single", "first", "sum", "mean"]
Question: TypeAlias = Literal["labels", "targets", "texts"]


# --------------------------------------------------------------------------------------------------- candidates
@dataclass(frozen=True, eq=False, slots=True)
class Center:
    """A point that many candidates refer to; sent once a step and known by its id afterwards.

    ``id`` must be unique within a run, ``vector`` has shape (P,) and is never written to.
    """

    id: str
    vector: Array


@dataclass(frozen=True, eq=False, slots=True)
class Perturbation:
    """``center + sign * radius * z(key)`` with z standard normal: a ZOT candidate of a few bytes plus its centre."""

    center: Center
    key: Key
    sign: int
    radius: float


@dataclass(frozen=True, slots=True)
class Projection:
    """A random map R^K -> R^P, made again from ``seed`` next to the model (BBT, Sun et al. 2022).

    ``distribution`` "normal" has entries N(0, s^2) with s = alpha * std(E) / (sqrt(K) * sigma), E the embedding
    matrix; "uniform" is U(-1/sqrt(K), 1/sqrt(K)), the linear-layer default of the published runs.
    """

    seed: int
    dim: int
    alpha: float
    sigma: float
    distribution: Literal["normal", "uniform"] = "normal"


@dataclass(frozen=True, eq=False, slots=True)
class Latent:
    """``origin + A z``, z of shape (K,) and A the projection: a BBT candidate. No origin: the prompt's base rows."""

    z: Array
    projection: Projection
    origin: Center | None = None


@dataclass(frozen=True, eq=False, slots=True)
class Point:
    """Explicit prompt coordinates, shape (P,): for few, not for populations."""

    vector: Array


@dataclass(frozen=True, slots=True)
class Embedded:
    """A text as a soft prompt: the embeddings of its tokens, fitted to L rows as those of ``init: text`` are.

    ``published``: as the code of Guo et al. 2024 has it: special tokens included, " a" ten times behind a text that is
    too short, and the first L rows.
    """

    text: str
    published: bool = False


@dataclass(frozen=True, slots=True)
class Text:
    """A hard prompt in words, put in front of the example's text."""

    text: str


Candidate: TypeAlias = Perturbation | Latent | Point | Embedded | Text
Start: TypeAlias = Array | str
"""Start point of a search: coordinates (P,) of a soft prompt, or words."""


@dataclass(frozen=True, slots=True)
class TokenSpace:
    """The map V^-1 from prompt rows to text (Guo et al. 2024): each row's nearest token among the allowed ones.

    vocabulary: "words" allows printable tokens that begin a word and that the tokenizer gives back when it reads them,
    "printable" any printable token, "all" every token but the special ones, "published" the ids 4 to 14999 of the
    published code. distance: "cosine", "l2", or "published": the smallest cosine similarity, as that code sorts.
    """

    vocabulary: Literal["words", "printable", "all", "published"] = "words"
    distance: Literal["cosine", "l2", "published"] = "cosine"


# --------------------------------------------------------------------------------------------------- requests
@dataclass(frozen=True, slots=True)
class Example:
    """One example as the model reads it: ``text`` then ``cue`` then the label word (then ``tail``, masked models only).

    ``label`` indexes the task's label words. ``target``: the free text that is wanted where there are none. ``uid`` is
    unique within a task. ``where``: the row that it was made of, for people.
    """

    uid: str
    text: str
    cue: str
    label: int
    tail: str = ""
    where: str = field(default="", compare=False)
    target: str = ""

    @property
    def name(self) -> str:
        """Name in messages: its uid, and the place of its row if known."""
        return f"{self.uid} ({self.where})" if self.where else self.uid


@dataclass(frozen=True, slots=True)
class Objective:
    """Loss of a candidate: that of the label words, or the loss that is left after the best head.

    ``score``: on the rows that the head is fitted to, or each row by a head without it. ``strength``: of the L2 penalty
    of ``head`` "bias", which is part of the loss.
    """

    head: Literal["label_words", "bias", "vocabulary"] = "label_words"
    score: Literal["train", "leave_one_out"] = "train"
    strength: float = 0.01

    @property
    def plain(self) -> bool:
        """Whether nothing is fitted, so that a batch's loss is the mean of its examples'."""
        return self.head == "label_words"


LABEL_WORDS = Objective()


@dataclass(frozen=True, slots=True)
class Decoding:
    """How answers are generated: at most ``max_new_tokens``, up to any of the ``stop`` strings, which are left out.

    ``temperature`` 0 is greedy; otherwise tokens are sampled, by ``seed``, the candidate and the example alone.
    """

    max_new_tokens: int
    stop: tuple[str, ...] = ("\n",)
    temperature: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """Examples of one split that are scored together, and how: label words in label order, loss, label-word rule.

    ``objective``: what losses are. ``answer_words``: words beside the label words whose scores are asked for. Without
    label words the examples have targets: their log-likelihood is asked for (``per``: the mean over a target's tokens,
    or the sum of an example's), or, with ``decoding``, texts that the model generates.
    """

    examples: tuple[Example, ...]
    label_words: tuple[str, ...]
    split: Split
    loss: LossName = "cross_entropy"
    label_rule: LabelRule = "single"
    objective: Objective = LABEL_WORDS
    answer_words: tuple[str, ...] = ()
    per: Literal["token", "example"] = "token"
    decoding: Decoding | None = None

    @property
    def question(self) -> Question:
        """What is asked of the model: scores of labels, likelihoods of targets, or texts."""
        if self.label_words:
            return "labels"
        return "targets" if self.decoding is None else "texts"

    @property
    def scores(self) -> int:
        """W, the scores of an example: one of each label word; of targets one, a log-likelihood; of texts none."""
        return 1 if self.question == "targets" else len(self.label_words)


@dataclass(frozen=True, slots=True)
class PromptSpec:
    """The soft prompt as a recipe: how many rows, what they are when all coordinates are zero, and where they stand.

    The rows of coordinates ``x`` are ``base + unit * x``, base given by ``init`` ("text": embeddings of ``text`` fitted
    to ``length`` rows; "vocab": rows sampled from the vocabulary; "zeros": zeros; "filler": embeddings of the
    tokens 1000, 1001, ... that the papers' code adds to) and unit by ``scale`` ("paper": 1; "embedding": the standard
    deviation of the embedding matrix). ``layout`` "prefix" is [prompt][text][cue], "suffix" is [text][prompt][cue],
    "add" adds the rows to a filler prompt in front of the text (its ``init`` is "zeros": the filler unchanged).
    """

    length: int
    init: Literal["text", "vocab", "zeros", "filler"]
    text: str
    layout: Layout
    scale: Literal["paper", "embedding"]
    seed: int = 0


@dataclass(frozen=True, eq=False, slots=True)
class Request:
    """Request to an oracle: every candidate on every example of the batch.

    ``gradient``: the gradients of the candidates' losses as well, which only a white box gives. ``fresh``: computed
    anew whatever is kept from before, and not kept.
    """

    candidates: tuple[Candidate, ...]
    batch: Batch
    prompt: PromptSpec
    gradient: bool = False
    fresh: bool = False


# --------------------------------------------------------------------------------------------------- answers
@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of a request. ``tokens`` are prompt plus text tokens of every forward, as an API would bill them.

    ``output_tokens`` of them were generated.
    """

    queries: int = 0
    forwards: int = 0
    tokens: int = 0
    seconds: float = 0.0
    usd: float = 0.0
    output_tokens: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.queries + other.queries,
            self.forwards + other.forwards,
            self.tokens + other.tokens,
            self.seconds + other.seconds,
            self.usd + other.usd,
            self.output_tokens + other.output_tokens,
        )

    def __sub__(self, other: "Cost") -> "Cost":
        return Cost(
            self.queries - other.queries,
            self.forwards - other.forwards,
            self.tokens - other.tokens,
            self.seconds - other.seconds,
            self.usd - other.usd,
            self.output_tokens - other.output_tokens,
        )


@dataclass(frozen=True, eq=False, slots=True)
class Evaluation:
    """The answer to a request.

    losses: (C,) the batch's objective, of label words the mean over examples; NaN where any example's loss is not
    finite. example_losses: (C, E). logits: (C, E, W) label-word logits, float32. features: (C, E, V) scores of label
    words and answer words, less their mean in each row, where answer words were asked for. cost: ``seconds`` is device
    time, summed over tiles. gradients: (C, P) of the losses by the prompt coordinates, float32, where they were asked
    for. counts: further counts, summed over a run by name: ``cached_forwards``,
    ``absent_labels``, ... kept: (C,) True for candidates whose whole answer was kept from before, so that they are no
    query; None: there is none. remarks: what a person should read of it, by kind. tops: of a fresh request to a server
    that lists its likeliest tokens: those that stand for no label word, and the sum of their probabilities. texts:
    (C)(E), what the model generated where that was asked for; None is a failed example. Of targets the
    logits are their log-likelihoods, as the batch has them, with W = 1; of texts W = 0.

    A row of logits that is NaN is a failed example, and fails its candidate. One that is minus infinity tells nothing,
    because the server refused it, or the answer names no label: all label words fit it alike, and it is never right.
    """

    losses: Array64
    example_losses: Array64
    logits: Array
    cost: Cost
    gradients: Array | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    kept: npt.NDArray[np.bool_] | None = None
    features: Half | None = None
    remarks: tuple[tuple[str, str], ...] = ()
    tops: Mapping[str, float] = field(default_factory=dict)
    texts: tuple[tuple[str | None, ...], ...] = ()


@dataclass(frozen=True, eq=False, slots=True)
class Answers:
    """Answers behind a step's losses, for an optimizer that learns from both.

    logits: (C, E, W) label-word logits, NaN where a query failed; rows that tell nothing are all zero. batch: the
    examples, and of which loss and objective the losses are. With mini-batches it is another one in each step.
    """

    logits: Array
    batch: Batch


@dataclass(frozen=True, slots=True)
class OracleInfo:
    """Facts of a model: ``width`` D, ``context`` in tokens, ``embedding_std`` of the matrix E.

    ``soft``: it takes soft candidates. A server that reads text alone does not, and its width and vocabulary are 0.
    ``answer_words``: the scores of how many words at a position cost no more than those of the label words; 0: those of
    label words alone can be had.
    """

    model: str
    width: int
    vocabulary: int
    context: int
    embedding_std: float
    dtype: str
    device: str
    extra: dict[str, str] = field(default_factory=dict)
    soft: bool = True
    answer_words: int = 0


# --------------------------------------------------------------------------------------------------- writing
@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling settings: at most ``max_tokens``, a temperature (0: greedy), a random ``seed``."""

    max_tokens: int
    temperature: float
    seed: int


@dataclass(frozen=True, slots=True)
class Answer:
    """Generated text and its cost. ``usd``: at the prices in the settings of its model.

    ``note``: why nothing was, where that is known.
    """

    text: str
    input_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0
    usd: float = 0.0
    note: str = ""
