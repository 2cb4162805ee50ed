"""A frozen language model of Hugging Face transformers as a loss oracle.

Only the label words' logits at one position matter, so only those are computed, and what candidates or examples share
is computed once: the rows of a forward pass lie in one flat sequence (packed_rows.py). Label words of several tokens
stand behind their row as branches of a tree, so that no row is computed once a label. Rows that are too long for that
to be right, and all rows of models that it is not right for, are computed whole (whole_rows.py). Which these are is
found by the configuration (row_limits.py) and by a comparison when the model is loaded (checks/packing.py).

What a sequence looks like in tokens is encoding.py's, what a candidate's rows are prompt_embeddings.py's, the model
itself backbone.py's, its logits and log-likelihoods output_head.py's and likelihoods.py's.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from distributed_tuner.config.oracle import TransformersOracleConfig
from distributed_tuner.errors import ModelError
from distributed_tuner.oracles.base import answer, priced
from distributed_tuner.oracles.checks.packing import check_packing
from distributed_tuner.oracles.decoding import evaluation_of_texts, require_no_gradient, spent
from distributed_tuner.oracles.local.backbone import Trunk
from distributed_tuner.oracles.local.generating import Generator
from distributed_tuner.oracles.local.gradients import groups, logits_and_gradient, no_graph, require_white_box
from distributed_tuner.oracles.local.likelihoods import scores
from distributed_tuner.oracles.local.loading import load_model, load_tokenizer, weight_files
from distributed_tuner.oracles.local.packed_rows import PackedRows
from distributed_tuner.oracles.local.row_limits import context_of, reach_of
from distributed_tuner.oracles.local.whole_rows import WholeRows
from distributed_tuner.oracles.tokens.continuations import Tree, in_order
from distributed_tuner.oracles.tokens.encoding import Encoder
from distributed_tuner.oracles.tokens.prompt_embeddings import PromptRows
from distributed_tuner.values import (
    Array,
    Batch,
    Cost,
    Evaluation,
    OracleInfo,
    PromptSpec,
    Request,
    Text,
)

if TYPE_CHECKING:
    from torch import Tensor


class TransformersOracle:
    """Answers loss queries of one model on one device. Not thread-safe: one request at a time.

    ``model`` and ``tokenizer`` may be given as objects; else they are loaded as ``config`` says. A model becomes the
    oracle's own: it is frozen, its attention is replaced, and on a CPU its layers are.

    Raises:
        ModelError: the model cannot be found, loaded or used.
    """

    def __init__(self, config: TransformersOracleConfig, model: Any = None, tokenizer: Any = None) -> None:
        import torch

        torch.set_num_threads(config.thread_count)
        self._config = config
        files = weight_files(config) if model is None else []
        model = load_model(config) if model is None else model
        self._trunk = Trunk(model, files)
        self._tokenizer = load_tokenizer(config) if tokenizer is None else tokenizer
        context, reach, rows = context_of(model.config), reach_of(model.config), len(self._trunk.table)
        self._encoder = Encoder(self._tokenizer, context, self._trunk.masked, rows, reach)
        self._rows = PromptRows(self._tokenizer, self._encoder, self._trunk.embed, self._trunk.table)
        self._packed = PackedRows(self._trunk, self._encoder, self._rows, config.text_cache_gib * 2**30)
        self._whole = WholeRows(self._trunk, self._encoder, self._rows)
        self._generator = Generator(self._trunk, self._encoder, self._rows, self._packed, self._tokenizer)
        with no_graph(config):
            notes = check_packing(self._trunk, self._packed, self._whole, self._encoder, config, files)
        dtype = str(self._trunk.dtype).removeprefix("torch.")
        size, std, device = self._rows.size, self._rows.embedding_std, self._trunk.device.type
        extra = {"linear": self._trunk.linear, "reach": str(self._encoder.reach)}
        extra |= {"notes": "\n".join(notes)} if notes else {}
        self._info = OracleInfo(
            config.model, self._rows.width, size, context, std, dtype, device, extra, answer_words=size
        )

    @property
    def info(self) -> OracleInfo:
        return self._info

    @property
    def codec(self) -> PromptRows:
        return self._rows

    def cost(self, request: Request) -> Cost:
        return priced(self._encoder.cost(request), self._config.price)

    def evaluate(self, request: Request, timeout: float = math.inf) -> Evaluation:
        began = time.perf_counter()
        require_white_box(request, self._config)
        if request.batch.question == "texts":
            return self._generated(request, began)
        batch, spec = request.batch, request.prompt
        gradients = None
        with no_graph(self._config):
            self._encoder.answer_ids(batch)  # so that what cannot be asked is refused before anything is computed
            words = batch.scores + len(batch.answer_words)
            found = np.empty((len(request.candidates), len(batch.examples), words), np.float32)
            soft = [i for i, candidate in enumerate(request.candidates) if not isinstance(candidate, Text)]
            if soft:
                self._require_rows()
                self._encoder.require_fit(batch, spec)
                rows = np.stack([self._rows.materialize(request.candidates[i], spec) for i in soft])
                if request.gradient:
                    found, gradients = self._with_gradients(rows, batch, spec)
                else:
                    found[soft] = self._scores(self._soft(self._to_device(rows), batch, spec), batch).cpu().numpy()
            for i, candidate in enumerate(request.candidates):
                if isinstance(candidate, Text):
                    self._encoder.require_text_fits(batch, candidate.text)
                    found[i] = self._scores(self._text(candidate.text, batch), batch)[0].cpu().numpy()
        counted = self._encoder.cost(request)
        cost = priced(replace(counted, seconds=time.perf_counter() - began), self._config.price)
        return answer(found, batch, cost, gradients)

    def _scores(self, read: "Tensor", batch: Batch) -> "Tensor":
        return scores(self._trunk.head, read, self._encoder, batch)

    def _generated(self, request: Request, began: float) -> Evaluation:
        """Answer a request for texts."""
        require_no_gradient(request)
        batch, spec = request.batch, request.prompt
        soft = [candidate for candidate in request.candidates if not isinstance(candidate, Text)]
        with no_graph(self._config):
            rows = None
            if soft:
                self._require_rows()
                self._encoder.require_fit(batch, spec)
                rows = self._to_device(np.stack([self._rows.materialize(candidate, spec) for candidate in soft]))
            for candidate in request.candidates:
                if isinstance(candidate, Text):
                    self._encoder.require_text_fits(batch, candidate.text)
            answers = self._generator.answers(request, rows)
        texts = np.array(answers.texts(), dtype=object).reshape(len(request.candidates), len(batch.examples)).tolist()
        cost = spent(self._encoder.cost(request), answers.output_tokens)
        cost = replace(cost, seconds=time.perf_counter() - began)
        return evaluation_of_texts(texts, batch, priced(cost, self._config.price))

    # ------------------------------------------------------------------------------------------------ rows
    def _require_rows(self) -> None:
        if self._trunk.no_rows:
            raise ModelError(
                f"a soft prompt needs a model that reads rows which are no token's, but {self._config.model!r} does not"
                f" ({self._trunk.no_rows}); set prompt.kind: text, or choose another model"
            )

    def _to_device(self, rows: Array) -> "Tensor":
        import torch

        host = torch.from_numpy(rows)
        if self._trunk.device.type == "cuda":
            host = host.pin_memory()  # so that the copy does not wait for the device
        return host.to(self._trunk.device, non_blocking=True).to(self._trunk.dtype)

    def _with_gradients(self, rows_C_L_D: Array, batch: Batch, spec: PromptSpec) -> tuple[Array, Array]:
        """Return the logits (C, E, W), and the gradients (C, P) of the mean losses by the coordinates."""

        def logits_of(rows_1_L_D: "Tensor", part: Batch) -> "Tensor":
            return self._scores(self._soft(rows_1_L_D.to(self._trunk.dtype), part, spec), part)

        device = self._trunk.device
        parts = groups(batch, [spec.length + n for n in self._encoder.lengths(batch, spec.layout)], device.type)
        found = [logits_and_gradient(rows_L_D, parts, logits_of, device) for rows_L_D in rows_C_L_D]
        by_rows_C_L_D = np.stack([gradient for _, gradient in found])
        by_x_C_P = np.float32(self._rows.unit(spec)) * by_rows_C_L_D.reshape(len(found), -1)
        return np.stack([logits for logits, _ in found]), by_x_C_P

    # ------------------------------------------------------------------------------------------------ ways
    def _soft(self, rows_C_L_D: "Tensor", batch: Batch, spec: PromptSpec) -> "Tensor":
        """Return what answers are read from (C, A, H), each row in the way that is right for its length."""
        spans = [spec.length + n for n in self._encoder.spans(batch, spec.layout)]
        return self._by_span(spans, batch, lambda way, part, trees: way.soft(rows_C_L_D, part, spec, trees))

    def _text(self, text: str, batch: Batch) -> "Tensor":
        """Return the same (1, A, H) with a prompt in words."""
        spans = self._encoder.text_spans(batch, text)
        return self._by_span(spans, batch, lambda way, part, trees: way.text(text, part, trees))

    def _by_span(
        self,
        spans: list[int],
        batch: Batch,
        compute: "Callable[[PackedRows | WholeRows, Batch, Sequence[Tree]], Tensor]",
    ) -> "Tensor":
        import torch

        trees = self._encoder.trees(batch)
        places: dict[bool, list[int]] = {}
        for j, span in enumerate(spans):
            places.setdefault(span <= self._encoder.reach, []).append(j)
        if len(places) == 1:
            (short,) = places
            return compute(self._packed if short else self._whole, batch, trees)
        found = [
            compute(
                self._packed if short else self._whole,
                replace(batch, examples=tuple(batch.examples[j] for j in chosen)),
                [trees[j] for j in chosen] if trees else (),
            )
            for short, chosen in places.items()
        ]
        counts = [1 + len(tree.tokens) for tree in trees] or [1] * len(spans)
        back = in_order([j for chosen in places.values() for j in chosen], counts)
        return torch.cat(found, dim=1)[:, torch.from_numpy(back).to(self._trunk.device)]
