"""Rows that share a flat sequence: what candidates or examples have in common is computed once, padding not at all.

- prefix and add layout: the prompt's keys and values once a candidate, seen by all its rows;
- suffix layout: the texts' keys and values once a run (text_cache.py); a candidate adds only its rows and the cue;
- masked models read both ways, so that each row is computed from its first token to its last.

How the rows lie is packing.py's, how they attend attention.py's.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from distributed_tuner.oracles.local.attention import Segments, SharedCache, SharedTokens
from distributed_tuner.oracles.local.backbone import Trunk
from distributed_tuner.oracles.local.kv_cache import TextCache, stack
from distributed_tuner.oracles.local.packing import BlockPlan, laid, plan_even, plan_rows
from distributed_tuner.oracles.tokens.continuations import Tree, in_order, seen
from distributed_tuner.oracles.tokens.encoding import Encoder
from distributed_tuner.oracles.tokens.prompt_embeddings import PromptRows
from distributed_tuner.values import Batch, PromptSpec

if TYPE_CHECKING:
    from torch import Tensor

FORWARD_TOKENS = {"cpu": 2048, "cuda": 32768}  # a forward pass's; on a CPU what its caches hold
FORWARD_TOKENS_ELSEWHERE = 8192


class PackedRows:
    """Computes a request's rows in few flat sequences. ``cache_bytes``: of texts' keys and values that are kept."""

    def __init__(self, trunk: Trunk, encoder: Encoder, rows: PromptRows, cache_bytes: float) -> None:
        self._trunk = trunk
        self._encoder = encoder
        self._rows = rows
        self.texts = TextCache(cache_bytes)
        self.forward_tokens = FORWARD_TOKENS.get(trunk.device.type, FORWARD_TOKENS_ELSEWHERE)

    def soft(self, rows_C_L_D: "Tensor", batch: Batch, spec: PromptSpec, trees: Sequence[Tree] = ()) -> "Tensor":
        """Return the hidden states (C, A, H) that answers are read from.

        ``trees``: what stands behind each example's row, in a causal model; nothing where left out, and A is E.
        """
        if self._trunk.masked:
            return self._masked(rows_C_L_D, batch, spec.layout == "add")
        if spec.layout == "suffix":
            return self._suffix(rows_C_L_D, batch, trees or [Tree()] * len(batch.examples))
        if spec.layout == "prefix":
            return self._behind(rows_C_L_D, [self._encoder.line(example, True) for example in batch.examples], trees)
        head_C_S_D = self._rows.head(rows_C_L_D, "add")
        return self._behind(head_C_S_D, [self._encoder.line(example, False) for example in batch.examples], trees)

    def text(self, text: str, batch: Batch, trees: Sequence[Tree] = ()) -> "Tensor":
        """Return the hidden states (1, A, H) with a prompt in words."""
        if self._trunk.masked:
            return self._masked(self._trunk.table.new_empty((1, 0, self._rows.width)), batch, False, text)
        head_1_S_D = self._trunk.embed(list(self._encoder.prompt(text)))[None]
        return self._behind(head_1_S_D, [self._encoder.line(example, False) for example in batch.examples], trees)

    def _behind(self, head_C_S_D: "Tensor", lines: list[tuple[int, ...]], trees: Sequence[Tree]) -> "Tensor":
        """Return the hidden states (C, A, H) of lines that each follow their candidate's head: of the last token of
        each, and of the tree behind it."""
        import torch

        trees = trees or [Tree()] * len(lines)
        length = head_C_S_D.shape[1]
        counts, hung = list(map(len, lines)), [(*line, *tree.tokens) for line, tree in zip(lines, trees, strict=True)]
        depths = [_depths(count, tree) for count, tree in zip(counts, trees, strict=True)]
        read = [np.arange(count - 1, len(line)) for count, line in zip(counts, hung, strict=True)]
        rows = np.repeat(np.arange(len(lines)), [len(places) for places in read])
        hidden = []
        for at, until in self.steps(len(head_C_S_D), length + sum(map(len, hung))):
            head = head_C_S_D[at:until]
            count = until - at
            plan = plan_rows([len(line) for line in hung], count, start=count * length)
            shared = SharedTokens(0, length) if length else None
            blocks = []
            for block, members in zip(plan.blocks, plan.members, strict=True):
                own = seen([counts[e] for e in members], [trees[e] for e in members], block.slots)
                blocks.append(self._trunk.block(block, shared, None if own is None else own[None]))
            if length:
                blocks.insert(0, self._trunk.block(plan_even(count, 1, length)))
            positions = np.concatenate([np.tile(np.arange(length), count), length + laid(depths, plan)])
            embeds = torch.cat([head.flatten(0, 1), self._trunk.embed(laid(hung, plan))])
            answers = self.index(plan.first[:, rows] + np.concatenate(read))
            segments = Segments(tuple(blocks), answers=answers.flatten())
            out = self._trunk.forward(embeds, self.index(positions), segments)
            hidden.append(out.view(*answers.shape, -1))
        return torch.cat(hidden)

    def _masked(self, rows_C_L_D: "Tensor", batch: Batch, add: bool, prompt: str = "") -> "Tensor":
        """Return the hidden states (C, E, H) at the masks of a masked model."""
        import torch

        length = rows_C_L_D.shape[1]
        lines = [self._encoder.line_masked(example, batch, prompt) for example in batch.examples]
        starts = np.array([line.start for line in lines])
        places = np.array([line.mask + (length if line.mask >= line.start else 0) for line in lines])
        filled = [(*line.ids[: line.start], *self._rows.filler(length), *line.ids[line.start :]) for line in lines]
        hidden = []
        for at, until in self.steps(len(rows_C_L_D), sum(map(len, filled))):
            plan = plan_rows([len(line) for line in filled], until - at, start=0)
            embeds = self._trunk.embed(laid(filled, plan))
            added = torch.zeros_like(embeds) if add else None
            inside = plan.offset - starts[plan.row]
            soft = np.flatnonzero((inside >= 0) & (inside < length))
            target = embeds if added is None else added
            target[self.index(soft)] = rows_C_L_D[self.index(at + plan.candidate[soft]), self.index(inside[soft])]
            answers = self.index(plan.first + places)
            blocks = tuple(self._trunk.block(block) for block in plan.blocks)
            segments = Segments(blocks, answers=answers.flatten())
            out = self._trunk.forward(embeds, self.index(plan.offset), segments, added)
            hidden.append(out.view(*answers.shape, -1))
        return torch.cat(hidden)

    def _suffix(self, rows_C_L_D: "Tensor", batch: Batch, trees: Sequence[Tree]) -> "Tensor":
        """Return the hidden states (C, A, H) of [text][prompt][cue]: of its last token, and of the tree behind it."""
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
            longest = sequence_C_S_D.shape[1] + max(len(trees[j].tokens) for j in rows)
            for at, until in self.steps(len(rows), len(rows_C_L_D) * longest):
                chosen = rows[at:until]
                behind = [trees[j] for j in chosen]
                hidden.append(
                    self._after_texts(sequence_C_S_D, [texts[j] for j in chosen], behind, batch.split != "test")
                )
            order += rows
        back = in_order(order, [1 + len(tree.tokens) for tree in trees])
        return torch.cat(hidden, dim=1)[:, self.index(back)]

    def _after_texts(
        self, sequence_C_S_D: "Tensor", texts: list[tuple[int, ...]], trees: Sequence[Tree], keep: bool
    ) -> "Tensor":
        """Return the hidden states (C, A, H) of every candidate's sequence behind each of the texts, a tree behind it.

        Texts that are kept are computed alone, so that what else is in the batch cannot change their bits. Texts that
        are seen once (test) are computed together.
        """
        import torch

        count, slots, _ = sequence_C_S_D.shape
        shared = self.shared_texts(texts, keep)
        lengths = [slots + len(tree.tokens) for tree in trees]
        plan = BlockPlan(0, len(texts), count, max(lengths), np.repeat(lengths, count))
        own = seen([slots] * len(trees), trees, plan.slots)
        block = self._trunk.block(plan, shared, None if own is None else own[:, None])
        positions = [np.tile(len(text) + _depths(slots, tree), count) for text, tree in zip(texts, trees, strict=True)]
        hung = {tokens: self._trunk.embed(list(tokens)).expand(count, -1, -1) for tokens in {t.tokens for t in trees}}
        lines = {tokens: torch.cat([sequence_C_S_D, behind], dim=1).flatten(0, 1) for tokens, behind in hung.items()}
        begins = plan.starts().reshape(len(texts), count)
        places = [np.arange(slots - 1, length) for length in lengths]
        answers = np.concatenate([at[:, None] + own[None, :] for at, own in zip(begins, places, strict=True)], axis=1)
        segments = Segments((block,), answers=self.index(answers).flatten())
        out = self._trunk.forward(
            torch.cat([lines[t.tokens] for t in trees]), self.index(np.concatenate(positions)), segments
        )
        return out.view(count, answers.shape[1], -1)

    def shared_texts(self, texts: list[tuple[int, ...]], keep: bool) -> SharedCache:
        """Return the texts' keys and values. ``keep``: for later requests."""
        return self.texts.shared(texts, self._one_text) if keep else stack(self._many_texts(texts))

    def _one_text(self, text: tuple[int, ...]) -> "list[tuple[Tensor, Tensor]]":
        return self._many_texts([text])[0]

    def _many_texts(self, texts: list[tuple[int, ...]]) -> "list[list[tuple[Tensor, Tensor]]]":
        """Return each text's keys and values (T, heads, d), a layer each; a blank text has none."""
        lines = [text or (0,) for text in texts]
        plan = plan_rows([len(line) for line in lines], 1, start=0)
        segments = Segments(tuple(self._trunk.block(block) for block in plan.blocks), keep=True)
        self._trunk.forward(self._trunk.embed(laid(lines, plan)), self.index(plan.offset), segments)
        spans = [(first, first + len(text)) for first, text in zip(plan.first[0], texts, strict=True)]
        return [[(k[at:until], v[at:until]) for k, v in segments.kept] for at, until in spans]

    # ------------------------------------------------------------------------------------------------ small things
    def steps(self, count: int, tokens: int) -> "list[tuple[int, int]]":
        """Return ranges of ``count`` things of so many tokens each, as many to a forward pass as it may hold."""
        step = max(1, self.forward_tokens // max(1, tokens))
        return list(pairwise([*range(0, count, step), count]))

    def index(self, indices: Any) -> "Tensor":
        """Return indices on the model's device."""
        import torch

        return torch.from_numpy(np.ascontiguousarray(indices, dtype=np.int64)).to(self._trunk.device)


def _depths(count: int, tree: Tree) -> Any:
    """Return the place in the row of each of its tokens, and of those behind it."""
    return np.concatenate([np.arange(count), count + tree.depths])
