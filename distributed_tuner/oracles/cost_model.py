"""Costs of requests without the model: counted with its tokenizer and configuration.

Used before anything is spent (``check``) and by the dispatcher, which must know costs while its oracles are busy.
"""

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
from distributed_tuner.oracles.base import LossOracle
from distributed_tuner.oracles.codec import PlainCodec, codec_of
from distributed_tuner.oracles.local.cost_model import TokenCounter
from distributed_tuner.oracles.plain_counter import PlainCounter
from distributed_tuner.oracles.served.cost_model import OpenAICounter, VllmCounter
from distributed_tuner.values import Batch, Cost, Layout, PromptSpec, Request

if TYPE_CHECKING:
    from distributed_tuner.oracles.local.model_facts import ModelFacts

SECONDS_A_FORWARD = 1e-5  # of the analytic oracle


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


class AnalyticCounter(PlainCounter):
    """Counts for the analytic oracle, which is its own model."""

    soft = True
    has_tokenizer = True

    def __init__(self, config: AnalyticOracleConfig) -> None:
        from distributed_tuner.oracles.analytic import AnalyticOracle

        self.width = config.width
        self._least = config.seconds
        self._oracle: LossOracle = AnalyticOracle(config)

    def cost(self, request: Request) -> Cost:
        return self._oracle.cost(request)

    def seconds(self, request: Request) -> float:
        return max(self._least, SECONDS_A_FORWARD * len(request.candidates) * len(request.batch.examples))

    def require(self, batch: Batch, prompt: PromptSpec, texts: tuple[str, ...] = ()) -> None:
        return None

    def require_embedded(self, prompt: PromptSpec) -> None:
        return None


class GivenCounter(PlainCounter):
    """Counts with an oracle that is at hand: one that a program has handed in, or of the user's own."""

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

    def require(self, batch: Batch, prompt: PromptSpec, texts: tuple[str, ...] = ()) -> None:
        if prompt.length and prompt.init != "zeros" and not self._knows_words:
            raise ModelError(
                f"the rows of a soft prompt begin at those of words with prompt.init: {prompt.init}, but"
                f" {self._oracle.info.model} has no codec to make any; set prompt.init: zeros, or give it a codec"
                " (docs/extending.md)"
            )

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
