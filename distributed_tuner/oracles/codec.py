"""The prompt codec of a model: between candidates, their rows, words and tokens. Asks its tokenizer and embeddings."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from distributed_tuner.errors import ModelError
from distributed_tuner.oracles.base import LossOracle
from distributed_tuner.prompts.recipes import Recipes
from distributed_tuner.values import (
    Array,
    Batch,
    Candidate,
    Embedded,
    Layout,
    OracleInfo,
    PromptSpec,
    Text,
    TokenSpace,
)


class PromptCodec(Protocol):
    """Turns prompts into rows and words. An oracle that has one keeps it as ``codec``; ``codec_of`` finds it.

    It computes no losses, so that nothing of it is a query or costs any.
    """

    def materialize(self, candidate: Candidate, prompt: PromptSpec) -> Array:
        """Return the rows that a soft candidate stands for, shape (L, D), float32.

        Raises:
            ModelError: a text has no tokens, or no rows.
        """
        ...

    def nearest_tokens(self, rows: Array, layout: Layout = "prefix") -> list[tuple[str, float]]:
        """Return the nearest vocabulary token of each row (for "add": of filler plus row), and their cosine."""
        ...

    def project(self, rows: Sequence[Array], layout: Layout, space: TokenSpace) -> list[str]:
        """Return each prompt's text V^-1(rows), rows (L, D): the nearest allowed token of every row, joined.

        For "add", the token is that of filler plus row.
        """
        ...

    def token_count(self, text: str) -> int:
        """Return how many tokens a text has as a soft prompt, before it is fitted to its rows.

        Raises:
            ModelError: there is no tokenizer.
        """
        ...

    def vocabulary(self, space: TokenSpace) -> tuple[str, ...]:
        """Return the allowed tokens as they stand in a text, each with its leading space if it has one; none where
        there is no tokenizer."""
        ...

    def answer_words(self, batch: Batch, count: int) -> tuple[str, ...]:
        """Return ``count`` words, the label words counted but left out, whose scores may be asked for with a batch.

        They follow from the model and the batch's label words and cue alone; fewer where there are fewer, none where
        the scores of label words alone can be had.
        """
        ...


METHODS = ("materialize", "nearest_tokens", "project", "token_count", "vocabulary", "answer_words")  # of a PromptCodec


def codec_of(oracle: LossOracle) -> PromptCodec:
    """Return an oracle's codec: its own, or ``PlainCodec`` of an oracle that has none."""
    codec: PromptCodec | None = getattr(oracle, "codec", None)
    return PlainCodec(oracle.info) if codec is None else codec


class PlainCodec:
    """The codec of an oracle without a tokenizer: a soft prompt's rows are its coordinates, which begin at zero.

    It knows no words: what would need some is refused, or answered with none.
    """

    def __init__(self, info: OracleInfo) -> None:
        self._name, self._width = info.model, info.width
        self._std = info.embedding_std
        self._recipes = Recipes(info.embedding_std)

    def materialize(self, candidate: Candidate, prompt: PromptSpec) -> Array:
        if isinstance(candidate, Text | Embedded):
            raise self._lacking("turn words into rows", "prompt.kind: text for prompts in words")
        unit = self._std if prompt.scale == "embedding" else 1.0
        x = self._recipes.coordinates(candidate, prompt.length * self._width, unit)
        rows: Array = np.float32(unit) * x.reshape(prompt.length, self._width)
        return rows

    def nearest_tokens(self, rows: Array, layout: Layout = "prefix") -> list[tuple[str, float]]:
        return []

    def project(self, rows: Sequence[Array], layout: Layout, space: TokenSpace) -> list[str]:
        raise self._lacking("put rows into words", "prompt.kind: text, or leave restart stages out")

    def token_count(self, text: str) -> int:
        raise self._lacking("count the tokens of a text", "prompt.kind: text for prompts in words")

    def vocabulary(self, space: TokenSpace) -> tuple[str, ...]:
        return ()

    def answer_words(self, batch: Batch, count: int) -> tuple[str, ...]:
        return ()

    def _lacking(self, what: str, choice: str) -> ModelError:
        return ModelError(
            f"to {what} needs the model's tokenizer and embeddings, but {self._name} has no codec; give it one"
            f" (distributed_tuner.oracles.codec.PromptCodec, as its attribute codec), or set {choice}"
        )
