"""Prompt rows of candidates, and tokens nearest to rows, from one embedding matrix. Needs no other weights."""

import math
from collections.abc import Callable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from distributed_tuner.errors import ModelError
from distributed_tuner.oracles.tokens.encoding import Encoder
from distributed_tuner.oracles.tokens.vocabulary import Vocabulary, fit_ids, nearest, require_tokens, sampled
from distributed_tuner.prompts.recipes import Recipes
from distributed_tuner.seeds import generator
from distributed_tuner.values import Array, Batch, Candidate, Embedded, Example, Layout, PromptSpec, TokenSpace

if TYPE_CHECKING:
    from torch import Tensor

PUBLISHED_FILLER = 10  # times " a" behind a text that is too short, in the code of Guo et al. 2024
SAMPLE, BLOCK = 64, 4096  # tokens whose embeddings are compared with the matrix, and that are made at once
FILLER = 1000  # the papers' filler prompt is the tokens 1000, 1001, ... (algorithm notes of BBT and ZOT)


class PromptRows:
    """The prompt codec of one embedding matrix: the rows that candidates stand for, the tokens that rows are near to.

    ``embed`` returns the embeddings (..., D) of token ids as the model makes them, ``table_V_D`` is its matrix E.
    """

    def __init__(self, tokenizer: Any, encoder: Encoder, embed: "Callable[[Any], Tensor]", table_V_D: "Tensor") -> None:
        self.size, self.width = table_V_D.shape
        self.embedding_std = _spread(embed, table_V_D)
        self._tokenizer = tokenizer
        self._encoder = encoder
        self._embed = embed
        self._recipes = Recipes(self.embedding_std)
        self._bases: dict[PromptSpec, Array] = {}
        self._vocabulary = Vocabulary(tokenizer, self.size)

    def materialize(self, candidate: Candidate, prompt: PromptSpec) -> Array:
        """Return the rows that a soft candidate stands for, shape (L, D), float32.

        Raises:
            ModelError: a text has no tokens, or the layout has no rows for them.
        """
        if isinstance(candidate, Embedded):
            return self._embedded(candidate, prompt)
        base_L_D = self._base(prompt)
        unit = self.unit(prompt)
        x_L_D = self._recipes.coordinates(candidate, base_L_D.size, unit).reshape(base_L_D.shape)
        return base_L_D + np.float32(unit) * x_L_D

    def nearest_tokens(self, rows: Array, layout: Layout = "prefix") -> list[tuple[str, float]]:
        """Return the nearest vocabulary token of each row (for "add": of filler plus row), and their cosine."""
        ids, cosines = nearest(self._embed, np.arange(self.size), self._standing([rows], layout), "cosine")
        return [(self._tokenizer.decode([int(i)]), float(c)) for i, c in zip(ids, cosines, strict=True)]

    def project(self, rows: Sequence[Array], layout: Layout, space: TokenSpace) -> list[str]:
        """Return each prompt's text V^-1(rows), rows (L, D)."""
        if not rows:
            return []
        allowed = self._vocabulary.ids(space)
        found, _ = nearest(self._embed, allowed, self._standing(rows, layout), space.distance)
        return [self._vocabulary.text(ids, space) for ids in found.view(len(rows), -1).tolist()]

    def token_count(self, text: str) -> int:
        """Return how many tokens a text has as a soft prompt, before it is fitted to its rows."""
        return len(self._encoder.ids(text, False))

    def vocabulary(self, space: TokenSpace) -> tuple[str, ...]:
        """Return the allowed tokens as they stand in a text."""
        return self._vocabulary.pieces(space)

    def unit(self, prompt: PromptSpec) -> float:
        """Return what a coordinate of 1 adds to a row."""
        return self.embedding_std if prompt.scale == "embedding" else 1.0

    def filler(self, length: int) -> list[int]:
        """Return the token ids of the papers' filler prompt."""
        return [(FILLER + i) % self.size for i in range(length)]

    def under(self, length: int) -> list[int]:
        """Return the tokens whose first ``length`` the add layout adds to; a masked model's special ones stay out."""
        return [*(() if self._encoder.masked else self._encoder.specials()), *self.filler(length)]

    def sequence(self, rows_C_L_D: "Tensor", example: Example, layout: Layout) -> "Tensor":
        """Return what a causal model reads of candidates' rows with an example, (C, T, D)."""
        import torch

        def embedded(ids: tuple[int, ...]) -> "Tensor":
            return self._embed(list(ids)).expand(len(rows_C_L_D), -1, -1)

        if layout == "suffix":
            text, cue = self._encoder.ids(example.text, True), self._encoder.ids(example.cue, False)
            return torch.cat([embedded(text), rows_C_L_D, embedded(cue)], dim=1)
        return torch.cat(
            [self.head(rows_C_L_D, layout), embedded(self._encoder.line(example, layout == "prefix"))], dim=1
        )

    def head(self, rows_C_L_D: "Tensor", layout: Layout) -> "Tensor":
        """Return what stands before a causal model's text, (C, S, D): the rows, or in "add" rows on their filler."""
        import torch

        if layout != "add":
            return rows_C_L_D
        under_S_D = self._embed(self.under(rows_C_L_D.shape[1]))
        return under_S_D + torch.nn.functional.pad(rows_C_L_D, (0, 0, 0, len(under_S_D) - rows_C_L_D.shape[1]))

    # ------------------------------------------------------------------------------------------------ inside
    def _base(self, prompt: PromptSpec) -> Array:
        """Return the rows at x = 0, shape (L, D)."""
        if prompt not in self._bases:
            if prompt.init == "zeros":
                base = np.zeros((prompt.length, self.width), dtype=np.float32)
            else:
                base = self._rows_of(self._base_ids(prompt))
            self._bases[prompt] = base
        return self._bases[prompt]

    def _base_ids(self, prompt: PromptSpec) -> list[int]:
        if prompt.init == "filler":
            return self.filler(prompt.length)
        if prompt.init == "vocab":
            stream = generator(("prompt", prompt.seed))
            return [int(i) for i in stream.integers(self.size, size=prompt.length)]
        ids = self._encoder.ids(prompt.text, False)
        if not ids:
            raise ModelError(
                "prompt.init 'text' needs a text, but prompt.text and the task's manual_prompt are empty; write one, or"
                " set prompt.init to vocab, filler or zeros"
            )
        return fit_ids(ids, prompt.length)

    def answer_words(self, batch: Batch, count: int) -> tuple[str, ...]:
        """Return the answer words of a batch: a sample of the vocabulary's whole words, the same for every task.

        Which words hardly matters (docs/heads.md): the logits of some hundred are a linear picture of the last hidden
        state, whichever they are.
        """
        words = sampled(self.vocabulary(TokenSpace("words")))
        return tuple(islice(self._encoder.single_tokens(batch, words), count - len(batch.label_words)))

    def _embedded(self, candidate: Embedded, prompt: PromptSpec) -> Array:
        """Return the rows (L, D) that put a text's tokens in the prompt's place."""
        self._encoder.require_embedded(prompt)
        ids = self._encoder.ids(candidate.text, False)
        require_tokens(len(ids), candidate.text)
        fitted = (
            self._published_ids(candidate.text, prompt.length) if candidate.published else fit_ids(ids, prompt.length)
        )
        rows = self._rows_of(fitted)
        return rows - self._rows_of(self.under(prompt.length)[: prompt.length]) if prompt.layout == "add" else rows

    def _published_ids(self, text: str, length: int) -> list[int]:
        """Fit a text to ``length`` rows as the code of Guo et al. 2024 does: see ``Embedded``."""
        ids = self._encoder.ids(text, True)
        if len(ids) < length:
            ids = self._encoder.ids(text + " a" * max(PUBLISHED_FILLER, length), True)
        return list(ids[:length])

    def _rows_of(self, ids: list[int]) -> Array:
        rows: Array = self._embed(ids).detach().float().cpu().numpy()
        return rows

    def _standing(self, rows: Sequence[Array], layout: Layout) -> "Tensor":
        """Return the rows (N * L, D) of N prompts as they stand in a sequence: for "add", on their filler tokens."""
        import torch

        length = rows[0].shape[0]
        under_L_D = self._embed(self.under(length)[:length])
        rows_N_L_D = torch.from_numpy(np.stack(rows)).to(under_L_D.device)
        return (rows_N_L_D + under_L_D.float() if layout == "add" else rows_N_L_D).flatten(0, 1)


def _spread(embed: "Callable[[Any], Tensor]", table_V_D: "Tensor") -> float:
    """Return the standard deviation of all tokens' embeddings as the model makes them: it may scale its matrix."""
    import torch

    with torch.inference_mode():
        first = np.arange(min(SAMPLE, len(table_V_D)))
        if torch.equal(embed(first), table_V_D[: len(first)]):
            return float(table_V_D.float().std())
        count, total, squares = table_V_D.numel(), 0.0, 0.0
        for ids in np.array_split(np.arange(len(table_V_D)), math.ceil(len(table_V_D) / BLOCK)):
            block = embed(ids).double()
            total, squares = total + float(block.sum()), squares + float(block.square().sum())
    return math.sqrt(max(0.0, squares - total * total / count) / (count - 1))
