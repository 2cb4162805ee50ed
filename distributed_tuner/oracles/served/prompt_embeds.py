"""Whole sequences of embeddings for engines and servers that take embeddings as a prompt.

Needs a model's tokenizer and its embedding matrix, the one tensor that is read of its weights. What a sequence looks
like is encoding.py's, what a candidate's rows are prompt_rows.py's: both as the transformers oracle has them.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from distributed_tuner.errors import ModelError
from distributed_tuner.oracles.local.loading import (
    ModelSource,
    find_file,
    input_embeddings,
    is_masked,
    load_model_config,
    load_tokenizer,
    resolve_dtype,
)
from distributed_tuner.oracles.local.row_limits import context_of
from distributed_tuner.oracles.tokens.continuations import Continuations, Tokens
from distributed_tuner.oracles.tokens.encoding import Encoder
from distributed_tuner.oracles.tokens.prompt_embeddings import PromptRows
from distributed_tuner.values import (
    Batch,
    Candidate,
    Cost,
    Example,
    PromptSpec,
    Request,
    Text,
)

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = "model.safetensors"
SCALES = ("embedding_multiplier", "scale_emb")  # settings of models that multiply embeddings on their way in


class SoftLines:
    """Makes sequences (T, D) of a causal model in ``dtype``, the dtype that the engine computes in.

    ``source`` names the model: any oracle's settings that have ``model``, ``revision`` and ``trust_remote_code``.
    ``context`` limits the tokens of a sequence further than the model does.

    Raises:
        ModelError: the model cannot be found, is a masked one, keeps no safetensors, or scales or projects its
            embeddings, so that a row of the matrix is not what its layers read.
    """

    def __init__(self, source: ModelSource, dtype: str = "bfloat16", context: int | None = None) -> None:
        config = load_model_config(source)
        _require_plain(config, source.model)
        known = context_of(config)
        self._tokenizer = load_tokenizer(source)
        self.end_ids = _end_ids(config, self._tokenizer)
        self._table = _read_matrix(source, config).to(resolve_dtype(dtype, "cpu"))
        limit = known if context is None else min(known, context)
        self._encoder = Encoder(self._tokenizer, limit, rows=len(self._table))
        self._rows = PromptRows(self._tokenizer, self._encoder, self._embed, self._table)

    @property
    def rows(self) -> PromptRows:
        """From candidates to rows, and from rows to tokens."""
        return self._rows

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        return self._tokenizer

    @property
    def width(self) -> int:
        """D, the width of a row."""
        return self._rows.width

    @property
    def vocabulary_size(self) -> int:
        """Rows of the embedding matrix."""
        return self._rows.size

    @property
    def context(self) -> int:
        """Most tokens of a sequence."""
        return self._encoder.context

    @property
    def embedding_std(self) -> float:
        """Standard deviation of the embedding matrix."""
        return self._rows.embedding_std

    @property
    def dtype(self) -> str:
        """The dtype of the sequences."""
        return str(self._table.dtype).removeprefix("torch.")

    def cost(self, request: Request) -> Cost:
        """Return queries, forwards and tokens of a request."""
        return self._encoder.cost(request)

    def label_ids(self, batch: Batch) -> tuple[int, ...]:
        """Return the token id of each label word.

        Raises:
            TaskError: the label words cannot be told apart by their tokens.
        """
        return self._encoder.label_ids(batch)

    def answer_ids(self, batch: Batch) -> tuple[int, ...]:
        """Return the token ids of the label words and of the answer words behind them.

        Raises:
            TaskError: the label words cannot be told apart by their tokens; an answer word is no single token.
        """
        return self._encoder.answer_ids(batch)

    def continuations(self, batch: Batch) -> Continuations | None:
        """Return what stands behind the rows of a batch; None where the label words' tokens at their end tell all."""
        return self._encoder.continuations(batch)

    def behind(self, sequence: "Tensor | list[int]", tokens: Tokens) -> "Tensor | list[int]":
        """Return a sequence, embeddings or token ids, with some tokens behind it."""
        import torch

        if isinstance(sequence, list):
            return [*sequence, *tokens]
        return torch.cat([sequence, self._embed(tokens)]) if tokens else sequence

    def require_fit(self, candidates: Sequence[Candidate], batch: Batch, prompt: PromptSpec) -> None:
        """Check that every candidate fits into the context with every example.

        Raises:
            TaskError: an example has no tokens.
            ModelError: it does not fit.
        """
        if any(not isinstance(candidate, Text) for candidate in candidates):
            self._encoder.require_fit(batch, prompt)
        for candidate in candidates:
            if isinstance(candidate, Text):
                self._encoder.require_text_fits(batch, candidate.text)

    def ids(self, candidate: Text, example: Example) -> list[int]:
        """Return the token ids of a text candidate with an example."""
        return [*self._encoder.prompt(candidate.text), *self._encoder.line(example, False)]

    def sequences(self, candidate: Candidate, examples: Sequence[Example], prompt: PromptSpec) -> "list[Tensor]":
        """Return what the model reads of a candidate with each example, shape (T, D), contiguous."""
        import torch

        if isinstance(candidate, Text):
            return [self._embed(self.ids(candidate, example)) for example in examples]
        rows_L_D = torch.from_numpy(self._rows.materialize(candidate, prompt)).to(self._table.dtype)
        return [self._rows.sequence(rows_L_D[None], example, prompt.layout)[0] for example in examples]

    def _embed(self, ids: Any) -> "Tensor":
        import torch

        return self._table[torch.from_numpy(np.asarray(ids, dtype=np.int64))]


def _end_ids(config: Any, tokenizer: Any) -> tuple[int, ...]:
    """Return the tokens that end what the model writes."""
    known = getattr(config, "eos_token_id", None)
    several = known if isinstance(known, list) else [known]
    return tuple(sorted({i for i in (*several, tokenizer.eos_token_id) if i is not None}))


def _require_plain(config: Any, name: str) -> None:
    """Check that a row of the embedding matrix is what the first layer reads.

    Raises:
        ModelError: it is not.
    """
    if is_masked(config):
        raise ModelError(
            f"engines and servers need a causal model, but {name!r} is a {config.model_type!r}, which fills in masks;"
            " set oracle.kind: transformers"
        )
    text = config.get_text_config()
    projected = getattr(text, "word_embed_proj_dim", None) not in (None, text.hidden_size)
    scaled = "gemma" in config.model_type or any(getattr(text, key, 1) not in (None, 1) for key in SCALES)
    if projected or scaled:
        raise ModelError(
            f"soft prompts over an engine or a server need a model whose layers read its embeddings as they are, but"
            f" {name!r} is a {config.model_type!r}, which {'projects' if projected else 'scales'} them; set"
            " oracle.kind: transformers"
        )


def _read_matrix(source: ModelSource, config: Any) -> "Tensor":
    """Return the embedding matrix (V, D) as it is stored, without reading another tensor.

    Raises:
        ModelError: the model keeps no safetensors file with it.
    """
    from safetensors import safe_open

    name = input_embeddings(source, config)
    names = [f"{name}.weight", f"{name.partition('.')[2]}.weight"]  # some are saved without their language head
    where = find_file(source, WEIGHTS)
    if where is None:
        index = find_file(source, f"{WEIGHTS}.index.json")
        shards = {} if index is None else json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        shard = next((shards[known] for known in names if known in shards), None)
        where = None if shard is None else find_file(source, shard)
    if where is not None:
        with safe_open(Path(where), framework="pt") as file:
            held = set(file.keys())
            for known in names:
                if known in held:
                    matrix: Tensor = file.get_tensor(known)
                    return matrix
    raise ModelError(
        f"soft prompts over an engine or a server need the embedding matrix of the model, but {source.model!r} has no"
        f" safetensors file with {names[0]!r}; save the model with save_pretrained and give the directory"
    )
