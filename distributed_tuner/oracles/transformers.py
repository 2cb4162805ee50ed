"""A frozen language model of Hugging Face transformers as a loss oracle.

Only the label words' logits at one position matter, so only those are computed, and what candidates or examples share
is computed once. All rows of a forward pass lie in one flat sequence without padding (packing.py, attention.py):

- prefix and add layout: the prompt's keys and values once a candidate, seen by all its rows;
- suffix layout: the texts' keys and values once a run (text_cache.py); a candidate adds only its rows and the cue;
- masked models read both ways, so that each row is computed whole.

What a sequence looks like in tokens is encoding.py's, what a candidate's rows are prompt_rows.py's, the model itself
trunk.py's.
"""

import math
import time
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from distributed_tuner.config.oracle import TransformersOracleConfig
from distributed_tuner.oracles.attention import Segments, SharedTokens
from distributed_tuner.oracles.base import answer, priced
from distributed_tuner.oracles.encoding import Encoder
from distributed_tuner.oracles.gradients import groups, logits_and_gradient, no_graph, require_white_box
from distributed_tuner.oracles.models import first_position, load_model, load_tokenizer, weight_files
from distributed_tuner.oracles.packing import RowPlan, plan_even, plan_rows
from distributed_tuner.oracles.prompt_rows import AnswersByRows, PromptRows
from distributed_tuner.oracles.text_cache import TextCache, stack
from distributed_tuner.oracles.trunk import Trunk
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

FORWARD_TOKENS = {"cpu": 2048, "cuda": 32768}  # a forward pass's; on a CPU what its caches hold
FORWARD_TOKENS_ELSEWHERE = 8192


class TransformersOracle(AnswersByRows):
    """Answers loss queries of one model on one device. Not thread-safe: one request at a time.

    ``model`` and ``tokenizer`` may be given as objects, the model made with the attention of ``attention.register``;
    else they are loaded as ``config`` says.

    Raises:
        ModelError: the model cannot be found, loaded or used.
    """

    def __init__(self, config: TransformersOracleConfig, model: Any = None, tokenizer: Any = None) -> None:
        import torch

        torch.set_num_threads(config.thread_count)
        self._config = config
        files = weight_files(config) if model is None else []
        model = load_model(config) if model is None else model
        self._trunk = Trunk(model, config, files)
        self._tokenizer = load_tokenizer(config) if tokenizer is None else tokenizer
        self._encoder = Encoder(self._tokenizer, context_of(model.config), self._trunk.masked)
        self._rows = PromptRows(self._tokenizer, self._encoder, self._trunk.embed, self._trunk.table)
        self._texts = TextCache(config.text_cache_gib * 2**30)
        self._forward_tokens = FORWARD_TOKENS.get(self._trunk.device.type, FORWARD_TOKENS_ELSEWHERE)
        dtype = str(self._trunk.dtype).removeprefix("torch.")
        size, std, device = self._rows.size, self._rows.embedding_std, self._trunk.device.type
        extra: dict[str, str] = {"linear": self._trunk.linear}
        context = self._encoder.context
        self._info = OracleInfo(
            config.model, self._rows.width, size, context, std, dtype, device, extra, answer_words=size
        )

    @property
    def info(self) -> OracleInfo:
        return self._info

    def cost(self, request: Request) -> Cost:
        return priced(self._encoder.cost(request), self._config.price)

    def evaluate(self, request: Request, timeout: float = math.inf) -> Evaluation:
        began = time.perf_counter()
        require_white_box(request, self._config)
        batch, spec = request.batch, request.prompt
        gradients = None
        with no_graph(self._config):
            label_ids = self._encoder.answer_ids(batch)
            scores = np.empty((len(request.candidates), len(batch.examples), len(label_ids)), np.float32)
            soft = [i for i, candidate in enumerate(request.candidates) if not isinstance(candidate, Text)]
            if soft:
                self._encoder.require_fit(batch, spec)
                rows = np.stack([self.materialize(request.candidates[i], spec) for i in soft])
                if request.gradient:
                    scores, gradients = self._with_gradients(rows, batch, spec, label_ids)
                else:
                    scores[soft] = self._trunk.logits(self._soft(self._to_device(rows), batch, spec), label_ids)
            for i, candidate in enumerate(request.candidates):
                if isinstance(candidate, Text):
                    self._encoder.require_text_fits(batch, candidate.text)
                    scores[i] = self._trunk.logits(self._text(candidate, batch), label_ids)[0]
        counted = self._encoder.cost(request)
        cost = priced(replace(counted, seconds=time.perf_counter() - began), self._config.price)
        return answer(scores, batch, cost, gradients)

    # ------------------------------------------------------------------------------------------------ rows
    def _to_device(self, rows: Array) -> "Tensor":
        import torch

        host = torch.from_numpy(rows)
        if self._trunk.device.type == "cuda":
            host = host.pin_memory()  # so that the copy does not wait for the device
        return host.to(self._trunk.device, non_blocking=True).to(self._trunk.dtype)

    def _with_gradients(
        self, rows_C_L_D: Array, batch: Batch, spec: PromptSpec, label_ids: tuple[int, ...]
    ) -> tuple[Array, Array]:
        """Return the logits (C, E, W), and the gradients (C, P) of the mean losses by the coordinates."""

        def logits_of(rows_1_L_D: "Tensor", part: Batch) -> "Tensor":
            return self._trunk.label_logits(self._soft(rows_1_L_D.to(self._trunk.dtype), part, spec), label_ids)

        device = self._trunk.device
        parts = groups(batch, [spec.length + n for n in self._encoder.lengths(batch, spec.layout)], device.type)
        found = [logits_and_gradient(rows_L_D, parts, logits_of, device) for rows_L_D in rows_C_L_D]
        by_rows_C_L_D = np.stack([gradient for _, gradient in found])
        by_x_C_P = np.float32(self._rows.unit(spec)) * by_rows_C_L_D.reshape(len(found), -1)
        return np.stack([logits for logits, _ in found]), by_x_C_P

    # ------------------------------------------------------------------------------------------------ layouts
    def _soft(self, rows_C_L_D: "Tensor", batch: Batch, spec: PromptSpec) -> "Tensor":
        """Return the hidden states (C, E, H) that the label words are read from."""
        import torch

        if self._trunk.masked:
            return self._whole(rows_C_L_D, batch, spec.layout == "add")
        if spec.layout == "suffix":
            return self._suffix(rows_C_L_D, batch)
        if spec.layout == "prefix":
            return self._behind(rows_C_L_D, [self._encoder.line(example, True) for example in batch.examples])
        head_S_D = self._trunk.embed(self._rows.under(spec.length))
        rest = len(head_S_D) - spec.length
        head_C_S_D = head_S_D + torch.nn.functional.pad(rows_C_L_D, (0, 0, 0, rest))
        return self._behind(head_C_S_D, [self._encoder.line(example, False) for example in batch.examples])

    def _text(self, candidate: Text, batch: Batch) -> "Tensor":
        """Return the hidden states (1, E, H) with a prompt in words."""
        if self._trunk.masked:
            return self._whole(self._trunk.table.new_empty((1, 0, self._info.width)), batch, False, candidate.text)
        head_1_S_D = self._trunk.embed(list(self._encoder.prompt(candidate.text)))[None]
        return self._behind(head_1_S_D, [self._encoder.line(example, False) for example in batch.examples])

    def _behind(self, head_C_S_D: "Tensor", lines: list[tuple[int, ...]]) -> "Tensor":
        """Return the last hidden states (C, E, H) of lines that each follow their candidate's head."""
        import torch

        length = head_C_S_D.shape[1]
        hidden = []
        for at, until in self._steps(len(head_C_S_D), length + sum(map(len, lines))):
            head = head_C_S_D[at:until]
            count = until - at
            plan = plan_rows([len(line) for line in lines], count, start=count * length)
            shared = SharedTokens(0, length) if length else None
            blocks = [self._trunk.block(block, shared) for block in plan.blocks]
            if length:
                blocks.insert(0, self._trunk.block(plan_even(count, 1, length)))
            positions = np.concatenate([np.tile(np.arange(length), count), length + plan.offset])
            embeds = torch.cat([head.flatten(0, 1), self._trunk.embed(_ids(lines, plan))])
            answers = self._index(plan.first + [len(line) - 1 for line in lines])
            segments = Segments(tuple(blocks), answers=answers.flatten())
            out = self._trunk.forward(embeds, self._index(positions), segments)
            hidden.append(out.view(*answers.shape, -1))
        return torch.cat(hidden)

    def _whole(self, rows_C_L_D: "Tensor", batch: Batch, add: bool, prompt: str = "") -> "Tensor":
        """Return the hidden states (C, E, H) at the masks of a masked model."""
        import torch

        length = rows_C_L_D.shape[1]
        lines = [self._encoder.line_masked(example, batch, prompt) for example in batch.examples]
        starts = np.array([line.start for line in lines])
        places = np.array([line.mask + (length if line.mask >= line.start else 0) for line in lines])
        filled = [(*line.ids[: line.start], *self._rows.filler(length), *line.ids[line.start :]) for line in lines]
        hidden = []
        for at, until in self._steps(len(rows_C_L_D), sum(map(len, filled))):
            plan = plan_rows([len(line) for line in filled], until - at, start=0)
            embeds = self._trunk.embed(_ids(filled, plan))
            added = torch.zeros_like(embeds) if add else None
            inside = plan.offset - starts[plan.row]
            soft = np.flatnonzero((inside >= 0) & (inside < length))
            target = embeds if added is None else added
            target[self._index(soft)] = rows_C_L_D[self._index(at + plan.candidate[soft]), self._index(inside[soft])]
            answers = self._index(plan.first + places)
            blocks = tuple(self._trunk.block(block) for block in plan.blocks)
            segments = Segments(blocks, answers=answers.flatten())
            out = self._trunk.forward(embeds, self._index(plan.offset), segments, added)
            hidden.append(out.view(*answers.shape, -1))
        return torch.cat(hidden)

    def _suffix(self, rows_C_L_D: "Tensor", batch: Batch) -> "Tensor":
        """Return the last hidden states (C, E, H) of [text][prompt][cue]."""
        import torch

        by_cue: dict[str, list[int]] = {}
        for j, example in enumerate(batch.examples):
            by_cue.setdefault(example.cue, []).append(j)
        texts = [self._encoder.ids(example.text, True) for example in batch.examples]
        order: list[int] = []
        hidden = []
        for cue, rows in by_cue.items():
            rows.sort(key=lambda j: (len(texts[j]), j))  # so that texts of like length are padded together
            cue_C_c_D = self._trunk.embed(list(self._encoder.ids(cue, False))).expand(len(rows_C_L_D), -1, -1)
            sequence_C_S_D = torch.cat([rows_C_L_D, cue_C_c_D], dim=1)
            for at, until in self._steps(len(rows), sequence_C_S_D.shape[0] * sequence_C_S_D.shape[1]):
                chosen = [texts[j] for j in rows[at:until]]
                hidden.append(self._after_texts(sequence_C_S_D, chosen, batch.split != "test"))
            order += rows
        return torch.cat(hidden)[self._index(np.argsort(order))].transpose(0, 1)

    def _after_texts(self, sequence_C_S_D: "Tensor", texts: list[tuple[int, ...]], keep: bool) -> "Tensor":
        """Return the last hidden states (T, C, H) of every candidate's sequence behind each of the texts.

        Texts that are kept are computed alone, so that what else is in the batch cannot change their bits. Texts that
        are seen once (test) are computed together.
        """
        count, slots, width = sequence_C_S_D.shape
        shared = self._texts.shared(texts, self._one_text) if keep else stack(self._many_texts(texts))
        block = self._trunk.block(plan_even(len(texts), count, slots), shared)
        starts = np.repeat([len(text) for text in texts], count)
        positions = self._index((starts[:, None] + np.arange(slots)).reshape(-1))
        embeds = sequence_C_S_D.reshape(count * slots, width).repeat(len(texts), 1)
        answers = self._index(np.arange(slots - 1, len(embeds), slots))
        out = self._trunk.forward(embeds, positions, Segments((block,), answers=answers))
        return out.view(len(texts), count, -1)

    def _one_text(self, text: tuple[int, ...]) -> "list[tuple[Tensor, Tensor]]":
        return self._many_texts([text])[0]

    def _many_texts(self, texts: list[tuple[int, ...]]) -> "list[list[tuple[Tensor, Tensor]]]":
        """Return each text's keys and values (T, heads, d), a layer each; a blank text has none."""
        lines = [text or (0,) for text in texts]
        plan = plan_rows([len(line) for line in lines], 1, start=0)
        segments = Segments(tuple(self._trunk.block(block) for block in plan.blocks), keep=True)
        self._trunk.forward(self._trunk.embed(_ids(lines, plan)), self._index(plan.offset), segments)
        spans = [(first, first + len(text)) for first, text in zip(plan.first[0], texts, strict=True)]
        return [[(k[at:until], v[at:until]) for k, v in segments.kept] for at, until in spans]

    # ------------------------------------------------------------------------------------------------ small things
    def _steps(self, count: int, tokens: int) -> "list[tuple[int, int]]":
        """Return ranges of ``count`` things of so many tokens each, as many to a forward pass as it may hold."""
        step = max(1, self._forward_tokens // max(1, tokens))
        return list(pairwise([*range(0, count, step), count]))

    def _index(self, indices: Any) -> "Tensor":
        import torch

        return torch.from_numpy(np.ascontiguousarray(indices, dtype=np.int64)).to(self._trunk.device)


def _ids(lines: list[tuple[int, ...]], plan: RowPlan) -> Any:
    """Return the token at each place of a plan."""
    flat = np.concatenate([np.asarray(line, dtype=np.int64) for line in lines])
    begins = np.cumsum([0, *map(len, lines)])
    return flat[begins[plan.row] + plan.offset]


def context_of(model_config: Any) -> int:
    """Return the number of positions that the model knows; no more than its sliding window, which is not applied."""
    names = ("max_position_embeddings", "n_positions", "sliding_window")
    known = min((int(n) for name in names if (n := getattr(model_config, name, None))), default=2**31)
    return known - first_position(model_config)
