"""Reading of rows that are to be decoded: their keys and values, and the hidden state that their first token follows.

As in packed_rows.py: a prompt is read once a candidate, and in the suffix layout a text once a run.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from distributed_tuner.oracles.local.attention import Segments, SharedCache, SharedTokens
from distributed_tuner.oracles.local.backbone import Trunk
from distributed_tuner.oracles.local.packed_rows import PackedRows
from distributed_tuner.oracles.local.packing import Indices, laid, plan_even, plan_rows
from distributed_tuner.oracles.local.row_cache import RowBlock, blocks_of, row_block
from distributed_tuner.oracles.tokens.encoding import Encoder
from distributed_tuner.oracles.tokens.prompt_embeddings import PromptRows
from distributed_tuner.values import Batch, Layout

if TYPE_CHECKING:
    from torch import Tensor

Line = tuple[int, ...]


@dataclass(frozen=True, eq=False, slots=True)
class Read:
    """Rows that have been read: their blocks, and the last hidden states (R, H) in the order of the blocks' rows."""

    blocks: list[RowBlock]
    hidden: "Tensor"


class Prefill:
    """Reads the rows of candidates with examples. ``rows`` of a request are numbered candidate * E + example."""

    def __init__(self, trunk: Trunk, encoder: Encoder, rows: PromptRows, packed: PackedRows) -> None:
        self._trunk = trunk
        self._encoder = encoder
        self._rows = rows
        self._packed = packed

    def soft(self, rows_C_L_D: "Tensor", batch: Batch, layout: Layout, numbers: Indices, steps: int) -> list[Read]:
        """Read soft candidates with examples, whose rows of the request are ``numbers`` (C, E)."""
        examples = batch.examples
        if layout == "suffix":
            return self._suffix(rows_C_L_D, batch, numbers, steps)
        lines = [self._encoder.line(example, layout == "prefix") for example in examples]
        return self._behind(self._rows.head(rows_C_L_D, layout), lines, numbers, steps)

    def text(self, text: str, batch: Batch, numbers: Indices, steps: int) -> list[Read]:
        """Read a prompt in words with examples, whose rows of the request are ``numbers`` (1, E)."""
        head_1_S_D = self._trunk.embed(list(self._encoder.prompt(text)))[None]
        lines = [self._encoder.line(example, False) for example in batch.examples]
        return self._behind(head_1_S_D, lines, numbers, steps)

    def _behind(self, head_C_S_D: "Tensor", lines: list[Line], numbers: Indices, steps: int) -> list[Read]:
        """Read lines that each follow their candidate's head."""
        import torch

        length = head_C_S_D.shape[1]
        lengths = np.array([len(line) for line in lines])
        found = []
        for at, until in self._packed.steps(len(head_C_S_D), length + int(lengths.sum())):
            count = until - at
            plan = plan_rows(lengths.tolist(), count, start=count * length)
            blocks = [self._trunk.block(block, SharedTokens(0, length) if length else None) for block in plan.blocks]
            if length:
                blocks.insert(0, self._trunk.block(plan_even(count, 1, length)))
            positions = np.concatenate([np.tile(np.arange(length), count), length + plan.offset])
            line_N_D = self._trunk.embed(laid(lines, plan))
            chosen = blocks_of(lengths.tolist(), steps)
            ends = np.concatenate([(plan.first[:, rows] + lengths[rows] - 1).reshape(-1) for rows in chosen])
            segments = Segments(tuple(blocks), keep=True, answers=self._packed.index(ends))
            embeds = torch.cat([head_C_S_D[at:until].flatten(0, 1), line_N_D])
            hidden = self._trunk.forward(embeds, self._packed.index(positions), segments)
            shared = _shared(segments.kept, count, length) if length else None
            made = [
                row_block(
                    segments.kept,
                    _right_aligned(plan.first[:, rows], lengths[rows]),
                    np.tile(lengths[rows], (count, 1)),
                    steps,
                    shared,
                    numbers[at:until, rows],
                    np.tile(length + lengths[rows], (count, 1)),
                )
                for rows in chosen
            ]
            found.append(Read(made, hidden))
        return found

    def _suffix(self, rows_C_L_D: "Tensor", batch: Batch, numbers: Indices, steps: int) -> list[Read]:
        """Read [prompt][cue] of every candidate behind each text."""
        import torch

        texts = [self._encoder.ids(example.text, True) for example in batch.examples]
        by_cue: dict[str, list[int]] = {}
        for j in sorted(range(len(texts)), key=lambda j: (len(texts[j]), j)):
            by_cue.setdefault(batch.examples[j].cue, []).append(j)
        found = []
        for cue, examples in by_cue.items():
            cue_C_c_D = self._trunk.embed(list(self._encoder.ids(cue, False))).expand(len(rows_C_L_D), -1, -1)
            sequence_C_S_D = torch.cat([rows_C_L_D, cue_C_c_D], dim=1)
            count, slots, width = sequence_C_S_D.shape
            for at, until in self._packed.steps(len(examples), count * slots):
                chosen = examples[at:until]
                shared = self._packed.shared_texts([texts[j] for j in chosen], batch.split != "test")
                before = np.array([len(texts[j]) for j in chosen])
                plan = plan_even(len(chosen), count, slots)
                ends = plan.starts() + slots - 1
                block = self._trunk.block(plan, shared)
                segments = Segments((block,), keep=True, answers=self._packed.index(ends))
                positions = np.repeat(before, count)[:, None] + np.arange(slots)
                embeds = sequence_C_S_D.reshape(count * slots, width).repeat(len(chosen), 1)
                hidden = self._trunk.forward(embeds, self._packed.index(positions.reshape(-1)), segments)
                made = row_block(
                    segments.kept,
                    plan.places().reshape(len(chosen), count, slots),
                    np.full((len(chosen), count), slots),
                    steps,
                    shared,
                    numbers[:, chosen].T,
                    np.repeat(before[:, None] + slots, count, axis=1),
                )
                found.append(Read([made], hidden))
        return found


def part_of(batch: Batch, examples: Sequence[int]) -> Batch:
    """Return a batch of some of its examples."""
    return replace(batch, examples=tuple(batch.examples[j] for j in examples))


def _shared(kept: "Sequence[tuple[Tensor, Tensor]]", groups: int, length: int) -> SharedCache:
    """Return the keys and values of the first ``groups`` x ``length`` tokens as what groups share."""
    keys, values = (
        [
            part[: groups * length].view(groups, length, *part.shape[1:]).transpose(1, 2).contiguous()
            for part in (pair[which] for pair in kept)
        ]
        for which in (0, 1)
    )
    return SharedCache(keys, values, None)


def _right_aligned(first: Indices, lengths: Indices) -> Indices:
    """Return where the tokens of rows lie (G, M, S), padding first (which points at a row's start)."""
    longest = int(lengths.max())
    offsets = np.arange(longest)[None, :] - (longest - lengths)[:, None]
    found: Indices = first[:, :, None] + np.maximum(offsets, 0)[None]
    return found
