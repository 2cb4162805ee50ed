"""The prompt codec of a server: tokens by its model's tokenizer, rows by its embeddings, as far as these are here."""

from collections.abc import Sequence

from distributed_tuner.errors import ModelError
from distributed_tuner.oracles.served.text_prompts import NO_SOFT, ServedText
from distributed_tuner.oracles.tokens.prompt_embeddings import PromptRows
from distributed_tuner.values import Array, Batch, Candidate, Layout, PromptSpec, TokenSpace


class ServedCodec:
    """Known facts of a served model. ``rows``: of one whose embeddings are named; None: it takes text alone."""

    def __init__(self, text: ServedText, rows: PromptRows | None) -> None:
        self._text = text
        self._found = rows

    def materialize(self, candidate: Candidate, prompt: PromptSpec) -> Array:
        return self._rows.materialize(candidate, prompt)

    def nearest_tokens(self, rows: Array, layout: Layout = "prefix") -> list[tuple[str, float]]:
        return self._rows.nearest_tokens(rows, layout)

    def project(self, rows: Sequence[Array], layout: Layout, space: TokenSpace) -> list[str]:
        return self._rows.project(rows, layout, space)

    def token_count(self, text: str) -> int:
        return self._text.token_count(text)

    def vocabulary(self, space: TokenSpace) -> tuple[str, ...]:
        return self._text.vocabulary(space) if self._found is None else self._found.vocabulary(space)

    def answer_words(self, batch: Batch, count: int) -> tuple[str, ...]:
        return self._text.answer_words(batch, count)

    @property
    def _rows(self) -> PromptRows:
        if self._found is None:
            raise ModelError(NO_SOFT)
        return self._found
