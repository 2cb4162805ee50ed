"""Rows from their first token to their last, each by the model's own forward pass: what is right of any model.

Nothing is shared, padded or put beside anything else. Sequences of one length make a batch, as those of all candidates
with one example do.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from distributed_tuner.oracles.local.backbone import Trunk
from distributed_tuner.oracles.tokens.continuations import Tree, starts
from distributed_tuner.oracles.tokens.encoding import Encoder
from distributed_tuner.oracles.tokens.prompt_embeddings import PromptRows
from distributed_tuner.values import Batch, Example, Layout, PromptSpec

if TYPE_CHECKING:
    from torch import Tensor

TOKENS = {"cpu": 2048}  # of a forward pass, whose scores are written out
TOKENS_ELSEWHERE = 8192
OWN_HEAD_SHARE = 4  # times fewer where logits are made of every word at every place


class WholeRows:
    """Computes the rows of a request one by one, or those of one length together."""

    def __init__(self, trunk: Trunk, encoder: Encoder, rows: PromptRows) -> None:
        self._trunk = trunk
        self._encoder = encoder
        self._rows = rows

    def soft(self, rows_C_L_D: "Tensor", batch: Batch, spec: PromptSpec, trees: Sequence[Tree] = ()) -> "Tensor":
        """Return what answers are read from (C, A, H).

        ``trees``: what stands behind each example's row, in a causal model; nothing where left out, and A is E.
        """
        import torch

        if self._trunk.masked:
            return torch.stack([self._masked(rows_C_L_D, batch, e, spec.layout) for e in batch.examples], dim=1)
        return self._last([self._rows.sequence(rows_C_L_D, e, spec.layout) for e in batch.examples], trees)

    def text(self, text: str, batch: Batch, trees: Sequence[Tree] = ()) -> "Tensor":
        """Return the same (1, A, H) with a prompt in words."""
        import torch

        if self._trunk.masked:
            none = self._trunk.table.new_empty((1, 0, self._rows.width))
            return torch.stack([self._masked(none, batch, e, "prefix", text) for e in batch.examples], dim=1)
        prompt = self._encoder.prompt(text)
        lines = [[*prompt, *self._encoder.line(example, False)] for example in batch.examples]
        return self._last([self._trunk.embed(line)[None] for line in lines], trees)

    def _last(self, sequences: "list[Tensor]", trees: Sequence[Tree]) -> "Tensor":
        """Return what is read behind each example's sequences (C, T, D), as (C, A, H).

        Of a tree each path from the row to a leaf is a sequence of its own. What several read is read of the first.
        """
        import torch

        trees = trees or [Tree()] * len(sequences)
        ends = starts([1 + len(tree.tokens) for tree in trees])
        lines: list[Tensor] = []
        reads: list[list[int]] = []  # of each line's last places, which of A they are
        for sequence, tree, end in zip(sequences, trees, ends.tolist(), strict=True):
            for path in tree.paths:
                if path:
                    tokens = self._trunk.embed([tree.tokens[place] for place in path]).expand(len(sequence), -1, -1)
                lines.append(torch.cat([sequence, tokens], dim=1) if path else sequence)
                reads.append([end, *(end + 1 + place for place in path)])
        kinds: dict[tuple[int, int], list[int]] = {}
        for j, (line, read) in enumerate(zip(lines, reads, strict=True)):
            kinds.setdefault((line.shape[1], len(read)), []).append(j)
        found, places = [], []
        for (_, last), alike in sorted(kinds.items()):
            flat = torch.stack([lines[j] for j in alike], dim=1).flatten(0, 1)
            read_B_n_H = torch.cat([self._trunk.last(flat[a:b], last) for a, b in self._steps(flat)])
            found.append(read_B_n_H.view(-1, len(alike) * last, read_B_n_H.shape[-1]))
            places += [place for j in alike for place in reads[j]]
        _, first = np.unique(places, return_index=True)
        return torch.cat(found, dim=1)[:, torch.from_numpy(first).to(self._trunk.device)]

    def _masked(
        self, rows_C_L_D: "Tensor", batch: Batch, example: Example, layout: Layout, prompt: str = ""
    ) -> "Tensor":
        """Return what is read at an example's mask (C, H)."""
        import torch

        count, length, _ = rows_C_L_D.shape
        line = self._encoder.line_masked(example, batch, prompt)
        before, behind = (self._trunk.embed(list(part)) for part in (line.ids[: line.start], line.ids[line.start :]))
        added = None
        middle_C_L_D = rows_C_L_D
        if layout == "add":
            middle_C_L_D = self._trunk.embed(self._rows.filler(length)).expand(count, -1, -1)
            added = torch.nn.functional.pad(rows_C_L_D, (0, 0, len(before), len(behind)))
        embeds = torch.cat([before.expand(count, -1, -1), middle_C_L_D, behind.expand(count, -1, -1)], dim=1)
        place = line.mask + (length if line.mask >= line.start else 0)
        return torch.cat(
            [
                self._trunk.alone(embeds[a:b], place, None if added is None else added[a:b])
                for a, b in self._steps(embeds)
            ]
        )

    def _steps(self, embeds_B_T_D: "Tensor") -> list[tuple[int, int]]:
        """Return ranges of sequences, as many as a forward pass may hold."""
        count, length, _ = embeds_B_T_D.shape
        tokens = TOKENS.get(self._trunk.device.type, TOKENS_ELSEWHERE)
        step = max(1, tokens // (OWN_HEAD_SHARE if self._trunk.head.own else 1) // length)
        return list(pairwise([*range(0, count, step), count]))
