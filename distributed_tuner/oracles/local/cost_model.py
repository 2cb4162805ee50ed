"""Costs of requests to a model of transformers, counted with its tokenizer and configuration."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from distributed_tuner.config.oracle import TransformersOracleConfig, VllmOracleConfig
from distributed_tuner.errors import ModelError
from distributed_tuner.oracles.base import priced
from distributed_tuner.oracles.local.row_limits import every_row_whole
from distributed_tuner.oracles.tile_size import DTYPE_BYTES
from distributed_tuner.oracles.tokens.encoding import Encoder
from distributed_tuner.values import Batch, Cost, Layout, PromptSpec, Request

if TYPE_CHECKING:
    from distributed_tuner.oracles.local.model_facts import CountedModel, GivenModel, ModelFacts


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
        phrases = self._encoder.phrases(batch)
        labels = [phrase[0] if len(phrase) == 1 else None for phrase in phrases]
        return [*labels, *(self._encoder.answer_token(batch, word) for word in words)]

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
        longer = sum(prompt.length + n > reach for n in self._encoder.spans(batch, prompt.layout))
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
