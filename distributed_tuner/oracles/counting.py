"""What a request costs and whether it can be asked at all, without the model: tokenizer and configuration suffice.

Used before anything is spent (``check``) and by the dispatcher, which must know costs while its oracles are busy.
"""

from typing import Protocol, assert_never

from distributed_tuner.config.oracle import AnalyticOracleConfig, OracleConfig, TransformersOracleConfig
from distributed_tuner.oracles.base import priced
from distributed_tuner.oracles.encoding import Encoder
from distributed_tuner.values import Batch, Cost, Layout, PromptSpec, Request

SECONDS_A_FORWARD = 1e-5  # of the analytic oracle


class Counter(Protocol):
    """Counts for one model."""

    width: int

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

    def require(self, batch: Batch, prompt: PromptSpec) -> None:
        """Check label words and lengths.

        Raises:
            TaskError: the label words cannot be told apart by their tokens.
            ModelError: prompt and text are longer than the model's context.
        """
        ...

    def require_embedded(self, prompt: PromptSpec) -> None:
        """Check that a text can become the prompt's rows.

        Raises:
            ModelError: it cannot, in this layout of this model.
        """
        ...


class TokenCounter:
    """Counts with a model's tokenizer."""

    def __init__(self, config: TransformersOracleConfig) -> None:
        from distributed_tuner.oracles.models import is_masked, load_model_config, load_tokenizer
        from distributed_tuner.oracles.transformers import context_of

        model = load_model_config(config)
        self.width: int = getattr(model, "word_embed_proj_dim", None) or model.hidden_size
        self._config = config
        self._model_config = model
        self._seconds_a_token: float | None = None
        self._encoder = Encoder(load_tokenizer(config), context_of(model), is_masked(model))

    @property
    def rounds(self) -> bool:
        return self._itemsize() < 4

    def cost(self, request: Request) -> Cost:
        return priced(self._encoder.cost(request), self._config.price)

    def seconds(self, request: Request) -> float:
        if self._seconds_a_token is None:
            from distributed_tuner.oracles.speed import seconds_per_token

            self._seconds_a_token = seconds_per_token(self._config, self._model_config)
        return self._encoder.computed_tokens(request) * self._seconds_a_token

    def choose_layout(self, batch: Batch, length: int) -> Layout:
        return self._encoder.choose_layout(batch, length)

    def kept_bytes(self, batch: Batch, prompt: PromptSpec) -> int:
        if prompt.layout != "suffix":
            return 0
        model = self._model_config
        heads = getattr(model, "num_key_value_heads", None) or model.num_attention_heads
        width = getattr(model, "head_dim", None) or model.hidden_size // model.num_attention_heads
        tokens = sum(len(self._encoder.ids(example.text, True)) for example in batch.examples)
        return int(2 * tokens * model.num_hidden_layers * heads * width * self._itemsize())

    def _itemsize(self) -> int:
        from distributed_tuner.oracles.models import resolve_device, resolve_dtype

        return int(resolve_dtype(self._config.dtype, resolve_device(self._config.device)).itemsize)

    def require(self, batch: Batch, prompt: PromptSpec) -> None:
        self._encoder.label_ids(batch)
        self._encoder.require_fit(batch, prompt)

    def require_embedded(self, prompt: PromptSpec) -> None:
        self._encoder.require_embedded(prompt)


class AnalyticCounter:
    """Counts for the analytic oracle, which is its own model."""

    def __init__(self, config: AnalyticOracleConfig) -> None:
        from distributed_tuner.oracles.analytic import AnalyticOracle

        self.width = config.width
        self.rounds = False
        self._oracle = AnalyticOracle(config)

    def cost(self, request: Request) -> Cost:
        return self._oracle.cost(request)

    def seconds(self, request: Request) -> float:
        return SECONDS_A_FORWARD * len(request.candidates) * len(request.batch.examples)

    def choose_layout(self, batch: Batch, length: int) -> Layout:
        return "prefix"

    def kept_bytes(self, batch: Batch, prompt: PromptSpec) -> int:
        return 0

    def require(self, batch: Batch, prompt: PromptSpec) -> None:
        return None

    def require_embedded(self, prompt: PromptSpec) -> None:
        return None


def build_counter(config: OracleConfig) -> Counter:
    """Build the counter of an oracle's config.

    Raises:
        ModelError: the model's tokenizer or configuration cannot be found.
    """
    match config:
        case TransformersOracleConfig():
            return TokenCounter(config)
        case AnalyticOracleConfig():
            return AnalyticCounter(config)
        case _:
            assert_never(config)
