"""Generated answers to a request: which rows are read and decoded in which way."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from distributed_tuner.oracles.decoding import decoding_of, draws
from distributed_tuner.oracles.local.backbone import Trunk
from distributed_tuner.oracles.local.decoder import Answers, decode
from distributed_tuner.oracles.local.packed_rows import PackedRows
from distributed_tuner.oracles.local.prefill import Prefill, Read, part_of
from distributed_tuner.oracles.local.whole_decoder import WholeDecoder
from distributed_tuner.oracles.tokens.encoding import Encoder
from distributed_tuner.oracles.tokens.prompt_embeddings import PromptRows
from distributed_tuner.values import Request, Text

if TYPE_CHECKING:
    from torch import Tensor


class Generator:
    """Generates the answers to requests with one causal model."""

    def __init__(self, trunk: Trunk, encoder: Encoder, rows: PromptRows, packed: PackedRows, tokenizer: Any) -> None:
        self._trunk = trunk
        self._encoder = encoder
        self._rows = rows
        self._prefill = Prefill(trunk, encoder, rows, packed)
        self._tokenizer = tokenizer
        self._end_ids = trunk.end_ids or _end_ids(tokenizer)
        self._whole = WholeDecoder(trunk, self._end_ids)

    def answers(self, request: Request, rows_C_L_D: "Tensor | None") -> Answers:
        """Return the answers in the order candidate * E + example.

        ``rows_C_L_D``: of the soft candidates, in their order; None: there are none.
        """
        batch, spec, decoding = request.batch, request.prompt, decoding_of(request.batch)
        count = len(batch.examples)
        numbers = np.arange(len(request.candidates) * count).reshape(-1, count)
        soft = [i for i, candidate in enumerate(request.candidates) if not isinstance(candidate, Text)]
        steps = decoding.max_new_tokens - 1
        reads: list[Read] = []
        whole: list[tuple[int, Tensor]] = []
        if rows_C_L_D is not None:
            near, far = self._parted([spec.length + n for n in self._encoder.lengths(batch, spec.layout)], steps)
            if near:
                part = part_of(batch, near)
                reads += self._prefill.soft(rows_C_L_D, part, spec.layout, numbers[np.ix_(soft, near)], steps)
            for j in far:
                sequences = self._rows.sequence(rows_C_L_D, batch.examples[j], spec.layout)
                whole += zip(numbers[soft, j].tolist(), sequences, strict=True)
        for i, candidate in enumerate(request.candidates):
            if not isinstance(candidate, Text):
                continue
            near, far = self._parted(self._encoder.text_lengths(batch, candidate.text), steps)
            if near:
                reads += self._prefill.text(candidate.text, part_of(batch, near), numbers[i : i + 1, near], steps)
            prompt = self._encoder.prompt(candidate.text)
            for j in far:
                line = [*prompt, *self._encoder.line(batch.examples[j], False)]
                whole.append((int(numbers[i, j]), self._trunk.embed(line)))
        answers = Answers(numbers.size, decoding, self._tokenizer, self._end_ids, self._uniform(request))
        if reads:
            if self._trunk.linear != "plain":
                self._trunk.head.pack()
            decode(self._trunk, reads, decoding, answers)
        if whole:
            self._whole.decode(whole, decoding, answers)
        return answers

    def _uniform(self, request: Request) -> Any:
        decoding = decoding_of(request.batch)
        if decoding.temperature == 0:
            return None
        return np.stack([draws(decoding, one, e.uid) for one in request.candidates for e in request.batch.examples])

    def _parted(self, lengths: Sequence[int], steps: int) -> tuple[list[int], list[int]]:
        """Return which examples may share a sequence with others to their answers' ends, and which may not."""
        near = [length + steps <= self._encoder.reach for length in lengths]
        return [j for j, is_near in enumerate(near) if is_near], [j for j, is_near in enumerate(near) if not is_near]


def _end_ids(tokenizer: Any) -> tuple[int, ...]:
    known = tokenizer.eos_token_id
    return () if known is None else (int(known),)
