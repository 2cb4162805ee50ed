"""Costs of requests without the model: counted with its tokenizer and configuration.

Used before anything is spent (``check``) and by the dispatcher, which must know costs while its oracles are busy.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, assert_never

from distributed_tuner.config.oracle import (
    AnalyticOracleConfig,
    CustomOracleConfig,
    GivenOracleConfig,
    OpenAIOracleConfig,
    OracleConfig,
    TransformersOracleConfig,
    VllmOracleConfig,
)
from distributed_tuner.errors import ModelError
from distributed_tuner.oracles.base import LossOracle, priced
from distributed_tuner.oracles.codec import PlainCodec, codec_of
from distributed_tuner.oracles.local.row_limits import every_row_whole
from distributed_tuner.oracles.tokens.encoding import Encoder
from distributed_tuner.values import Batch, Cost, Layout, PromptSpec, Request

if TYPE_CHECKING:
    from distributed_tuner.oracles.local.model_facts import CountedModel, GivenModel, ModelFacts

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
SECONDS_A_FORWARD = 1e-5  # of the analytic oracle
# Rough guesses for machines that are not asked beforehand: of a small model in vLLM, and of a busy server far away.
VLLM_SECONDS_A_TOKEN = {"cpu": 1e-3, "gpu": 2e-5}
SERVED_SECONDS_A_FORWARD = 0.5


class Counter(Protocol):
    """Counts for one model."""

    width: int

    @property
    def facts(self) -> "ModelFacts | None":
        """The model's settings, of an oracle that computes with transformers; else None."""
        ...

    @property
    def model_bytes(self) -> int:
        """Bytes of the model's weights on a device; 0 where there are none."""
        ...

    @property
    def takes_suffix(self) -> bool:
        """Whether rows may stand behind the text: not in a model that reads both ways."""
        ...

    @property
    def soft(self) -> bool:
        """Whether the model takes soft candidates; one that does not has the width 0."""
        ...

    @property
    def has_tokenizer(self) -> bool:
        """Whether the model's tokenizer is known, and with it the words of its vocabulary."""
        ...

    @property
    def rounds(self) -> bool:
        """Whether the model computes in few bits on a device like this machine's, so that a run calibrates it."""
        ...

    def cost(self, request: Request) -> Cost:
        """Return queries, forwards, tokens and the dollars that go by the token."""
        ...

    def seconds(self, request: Request) -> float:
        """Return about how many seconds one device like this machine's needs for a request."""
        ...

    def choose_layout(self, batch: Batch, length: int) -> Layout:
        """Return the layout that computes fewer tokens a candidate."""
        ...

    def kept_bytes(self, batch: Batch, prompt: PromptSpec) -> int:
        """Return the bytes of a batch's texts' keys and values that the suffix layout keeps on the device; else 0."""
        ...

    def why_slow(self, batch: Batch, prompt: PromptSpec) -> str:
        """Return which rows of a batch cannot share what they have in common, and why; empty where all do."""
        ...

    def require(self, batch: Batch, prompt: PromptSpec, texts: tuple[str, ...] = ()) -> None:
        """Check label words and lengths, of the soft prompt and of prompts in words.

        Raises:
            TaskError: the label words cannot be told apart by their tokens.
            ModelError: prompt and text are longer than the model's context.
        """
        ...

    def tokens(self, batch: Batch, words: Sequence[str]) -> list[int | None]:
        """Return the token of each of a batch's label words, then of each of ``words`` where the answer stands; None
        of a word that is not one token there, and where a model tells no scores of other words.

        Raises:
            TaskError: the label words cannot be told apart by their tokens.
        """
        ...

    def require_embedded(self, prompt: PromptSpec) -> None:
        """Check that a text can become the prompt's rows.

        Raises:
            ModelError: it cannot, in this layout of this model.
        """
        ...


class TextualCounter:
    """Base of cost models with a model's tokenizer. ``context``: a limit of tokens in addition to the model's own."""

    soft = True
    has_tokenizer = True
    model_bytes = 0

    @property
    def takes_suffix(self) -> bool:
        return not self._encoder.masked

    def __init__(
        self,
        config: TransformersOracleConfig | VllmOracleConfig,
        context: int | None = None,
        model: "CountedModel | GivenModel | None" = None,
    ) -> None:
        from distributed_tuner.oracles.local.model_facts import CountedModel

        self._price = config.price
        self._name = config.model
        self._model = CountedModel(config) if model is None else model
        facts = self._model.facts
        self.width = facts.width
        limit = facts.context if context is None else min(facts.context, context)
        self._encoder = Encoder(self._model.tokenizer, limit, facts.masked, facts.rows, min(limit, facts.reach))

    @property
    def facts(self) -> "ModelFacts | None":
        return self._model.facts

    def cost(self, request: Request) -> Cost:
        return priced(self._encoder.cost(request), self._price)

    def require(self, batch: Batch, prompt: PromptSpec, texts: tuple[str, ...] = ()) -> None:
        if prompt.length and self._model.facts.reads_ids:
            raise ModelError(
                f"a soft prompt needs a model that reads embeddings alone, but {self._name!r} reads its tokens' ids in"
                " every layer (per-layer embeddings), and rows have none; set prompt.kind: text, or choose another"
                " model"
            )
        self._encoder.label_ids(batch)
        self._encoder.require_fit(batch, prompt)
        for text in texts:
            self._encoder.require_text_fits(batch, text)

    def tokens(self, batch: Batch, words: Sequence[str]) -> list[int | None]:
        return [*self._encoder.label_ids(batch), *(self._encoder.answer_token(batch, word) for word in words)]

    def require_embedded(self, prompt: PromptSpec) -> None:
        self._encoder.require_embedded(prompt)

    def why_slow(self, batch: Batch, prompt: PromptSpec) -> str:
        return ""


class TokenCounter(TextualCounter):
    """Counts for the transformers oracle, which shares what rows have in common. ``model``: one that was handed in."""

    def __init__(self, config: TransformersOracleConfig, model: "GivenModel | None" = None) -> None:
        super().__init__(config, model=model)
        self._config = config
        self._seconds_a_token: float | None = None

    @property
    def model_bytes(self) -> int:  # type: ignore[override]  # a number where there is none
        return self._model.weights * self._itemsize()

    @property
    def rounds(self) -> bool:
        return self._itemsize() < 4

    def seconds(self, request: Request) -> float:
        if self._seconds_a_token is None:
            from distributed_tuner.oracles.local.speed import seconds_per_token

            self._seconds_a_token = seconds_per_token(self._config, self._model.weights)
        return self._encoder.computed_tokens(request) * self._seconds_a_token

    def choose_layout(self, batch: Batch, length: int) -> Layout:
        return self._encoder.choose_layout(batch, length)

    def why_slow(self, batch: Batch, prompt: PromptSpec) -> str:
        facts, reach = self._model.facts, self._encoder.reach
        if facts.whole:
            return every_row_whole(facts.whole)
        longer = sum(prompt.length + n > reach for n in self._encoder.lengths(batch, prompt.layout))
        return (
            f"{longer} of {len(batch.examples)} {batch.split} rows are longer than the model's window, chunk or"
            f" original context of {reach} tokens: they are computed whole, which takes longer"
            if longer
            else ""
        )

    def kept_bytes(self, batch: Batch, prompt: PromptSpec) -> int:
        if prompt.layout != "suffix":
            return 0
        tokens = sum(len(self._encoder.ids(example.text, True)) for example in batch.examples)
        return tokens * self._model.facts.kept_numbers * self._itemsize()

    def _itemsize(self) -> int:
        from distributed_tuner.oracles.local.machine import dtype_here

        return DTYPE_BYTES[dtype_here(self._config.device, self._config.dtype)]


class VllmCounter(TextualCounter):
    """Counts for a vLLM engine, which computes every row whole, except for its prefix cache: no calibration."""

    rounds = False

    def __init__(self, config: VllmOracleConfig) -> None:
        super().__init__(config, config.max_model_len)
        self._seconds_a_token = VLLM_SECONDS_A_TOKEN["gpu" if config.gpus else "cpu"]

    def seconds(self, request: Request) -> float:
        return self._encoder.cost(request).tokens * self._seconds_a_token

    def choose_layout(self, batch: Batch, length: int) -> Layout:
        return "prefix"

    def kept_bytes(self, batch: Batch, prompt: PromptSpec) -> int:
        return 0


class OpenAICounter:
    """Counts for a server, whose model is not here: with its tokenizer where one is named, else from above."""

    facts = None
    rounds = False
    model_bytes = 0
    takes_suffix = True

    def __init__(self, config: OpenAIOracleConfig) -> None:
        from distributed_tuner.oracles.local.loading import load_model_config
        from distributed_tuner.oracles.served.text_prompts import ServedText, Source

        self._config = config
        self._text = ServedText(config)
        self.soft = config.prompt_embeds
        self.has_tokenizer = (config.tokenizer or config.embeddings) is not None
        source = Source(config.embeddings) if config.prompt_embeds and config.embeddings else None
        self.width = 0 if source is None else int(load_model_config(source).get_text_config().hidden_size)

    def cost(self, request: Request) -> Cost:
        return self._text.cost(request)

    def seconds(self, request: Request) -> float:
        """Return the seconds of one actor's share of the requests in flight, or those that the rates make of it."""
        config, cost = self._config, self._text.cost(request)
        share = 60 * config.most_actors
        by_requests = 0.0 if config.requests_per_minute is None else share * cost.forwards / config.requests_per_minute
        by_tokens = 0.0 if config.tokens_per_minute is None else share * cost.tokens / config.tokens_per_minute
        in_flight = math.ceil(config.concurrency / config.most_actors)
        return max(SERVED_SECONDS_A_FORWARD * cost.forwards / in_flight, by_requests, by_tokens)

    def choose_layout(self, batch: Batch, length: int) -> Layout:
        return "prefix"

    def kept_bytes(self, batch: Batch, prompt: PromptSpec) -> int:
        return 0

    def why_slow(self, batch: Batch, prompt: PromptSpec) -> str:
        return ""

    def require(self, batch: Batch, prompt: PromptSpec, texts: tuple[str, ...] = ()) -> None:
        self._text.require(batch, prompt, texts)

    def tokens(self, batch: Batch, words: Sequence[str]) -> list[int | None]:
        return [None] * (len(batch.label_words) + len(words))

    def require_embedded(self, prompt: PromptSpec) -> None:
        self._text.require_soft()


class AnalyticCounter:
    """Counts for the analytic oracle, which is its own model."""

    facts = None
    soft = True
    has_tokenizer = True
    rounds = False
    model_bytes = 0
    takes_suffix = True

    def __init__(self, config: AnalyticOracleConfig) -> None:
        from distributed_tuner.oracles.analytic import AnalyticOracle

        self.width = config.width
        self._least = config.seconds
        self._oracle: LossOracle = AnalyticOracle(config)

    def cost(self, request: Request) -> Cost:
        return self._oracle.cost(request)

    def seconds(self, request: Request) -> float:
        return max(self._least, SECONDS_A_FORWARD * len(request.candidates) * len(request.batch.examples))

    def choose_layout(self, batch: Batch, length: int) -> Layout:
        return "prefix"

    def kept_bytes(self, batch: Batch, prompt: PromptSpec) -> int:
        return 0

    def why_slow(self, batch: Batch, prompt: PromptSpec) -> str:
        return ""

    def require(self, batch: Batch, prompt: PromptSpec, texts: tuple[str, ...] = ()) -> None:
        return None

    def tokens(self, batch: Batch, words: Sequence[str]) -> list[int | None]:
        return [None] * (len(batch.label_words) + len(words))

    def require_embedded(self, prompt: PromptSpec) -> None:
        return None


class GivenCounter:
    """Counts with an oracle that is at hand: one that a program has handed in, or of the user's own."""

    facts = None
    rounds = False
    model_bytes = 0
    takes_suffix = True

    def __init__(self, oracle: LossOracle) -> None:
        self._oracle = oracle
        self.width = oracle.info.width
        self.soft = oracle.info.soft
        self._knows_words = not isinstance(codec_of(oracle), PlainCodec)
        self.has_tokenizer = self._knows_words and oracle.info.vocabulary > 0

    def cost(self, request: Request) -> Cost:
        return self._oracle.cost(request)

    def seconds(self, request: Request) -> float:
        return 0.0

    def choose_layout(self, batch: Batch, length: int) -> Layout:
        return "prefix"

    def kept_bytes(self, batch: Batch, prompt: PromptSpec) -> int:
        return 0

    def why_slow(self, batch: Batch, prompt: PromptSpec) -> str:
        return ""

    def require(self, batch: Batch, prompt: PromptSpec, texts: tuple[str, ...] = ()) -> None:
        if prompt.length and prompt.init != "zeros" and not self._knows_words:
            raise ModelError(
                f"the rows of a soft prompt begin at those of words with prompt.init: {prompt.init}, but"
                f" {self._oracle.info.model} has no codec to make any; set prompt.init: zeros, or give it a codec"
                " (docs/extending.md)"
            )

    def tokens(self, batch: Batch, words: Sequence[str]) -> list[int | None]:
        return [None] * (len(batch.label_words) + len(words))

    def require_embedded(self, prompt: PromptSpec) -> None:
        if not self.has_tokenizer:
            raise ModelError(
                f"a restart puts soft prompts into words, but {self._oracle.info.model} has no vocabulary; give it a"
                " codec (docs/extending.md), set prompt.kind: text, or leave restart stages out"
            )


def build_counter(config: OracleConfig) -> Counter:
    """Build the counter of an oracle's config.

    Raises:
        ModelError: the model's tokenizer or configuration cannot be found.
    """
    match config:
        case GivenOracleConfig():
            raise ModelError("an oracle that was handed in is counted with itself; hand it in again")
        case TransformersOracleConfig():
            return TokenCounter(config)
        case AnalyticOracleConfig():
            return AnalyticCounter(config)
        case VllmOracleConfig():
            return VllmCounter(config)
        case OpenAIOracleConfig():
            return OpenAICounter(config)
        case CustomOracleConfig():
            from distributed_tuner.oracles.custom import build_custom

            return GivenCounter(build_custom(config))
        case _:
            assert_never(config)
