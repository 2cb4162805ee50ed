"""Rows from their first token to their last, each by the model's own forward pass: what is right of any model.

Nothing is shared, padded or put beside anything else. Sequences of one length make a batch, as those of all candidates
with one example do.
"""

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from distributed_tuner.oracles.local.backbone import Trunk
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

    def soft(self, rows_C_L_D: "Tensor", batch: Batch, spec: PromptSpec) -> "Tensor":
        """Return what the label words are read from (C, E, H)."""
        import torch

        if self._trunk.masked:
            return torch.stack([self._masked(rows_C_L_D, batch, e, spec.layout) for e in batch.examples], dim=1)
        return self._last([self._rows.sequence(rows_C_L_D, e, spec.layout) for e in batch.examples])

    def text(self, text: str, batch: Batch) -> "Tensor":
        """Return the same (1, E, H) with a prompt in words."""
        import torch

        if self._trunk.masked:
            none = self._trunk.table.new_empty((1, 0, self._rows.width))
            return torch.stack([self._masked(none, batch, e, "prefix", text) for e in batch.examples], dim=1)
        prompt = self._encoder.prompt(text)
        lines = [[*prompt, *self._encoder.line(example, False)] for example in batch.examples]
        return self._last([self._trunk.embed(line)[None] for line in lines])

    def _last(self, sequences: "list[Tensor]") -> "Tensor":
        """Return what is read behind each example's sequences (C, T, D), as (C, E, H)."""
        import torch

        lengths = [sequence.shape[1] for sequence in sequences]
        order = np.argsort(lengths, kind="stable")
        starts = [0, *(np.flatnonzero(np.diff(np.take(lengths, order))) + 1), len(order)]
        found = []
        for at, until in pairwise(starts):
            alike_C_G_T_D = torch.stack([sequences[j] for j in order[at:until]], dim=1)
            flat = alike_C_G_T_D.flatten(0, 1)
            read = torch.cat([self._trunk.alone(flat[a:b], -1) for a, b in self._steps(flat)])
            found.append(read.view(*alike_C_G_T_D.shape[:2], -1))
        back = torch.from_numpy(np.argsort(order)).to(self._trunk.device)
        return torch.cat(found, dim=1)[:, back]

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
        step = max(1, tokens // (OWN_HEAD_SHARE if self._trunk.own_head else 1) // length)
        return list(pairwise([*range(0, count, step), count]))
