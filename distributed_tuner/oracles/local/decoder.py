"""Decoding: answers of a causal model, one token of all rows at a time; rows that have ended leave the batch.

Rows are read as prefill.py has it. Those that cannot share a sequence are decoded by transformers' own ``generate``
(whole_decoder.py). Which token follows is decided by the logits and, where it is sampled, by numbers that belong to the
candidate and the example, so that the other rows of the batch matter only by rounding.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from distributed_tuner.maths.sampling import sample
from distributed_tuner.oracles.decoding import stops, trimmed
from distributed_tuner.oracles.local.attention import Segments
from distributed_tuner.oracles.local.backbone import Trunk
from distributed_tuner.oracles.local.prefill import Read
from distributed_tuner.values import Array64, Decoding

if TYPE_CHECKING:
    from torch import Tensor

FAILED = -1  # in place of a token where the logits are no numbers
LOGITS = 2**24  # that are made at once


class Answers:
    """The tokens of a request's rows as far as they have come, and which rows go on.

    ``uniform`` (R, max_new_tokens): the numbers that samples are drawn by; None: greedy.
    """

    def __init__(
        self, count: int, decoding: Decoding, tokenizer: Any, end_ids: Sequence[int], uniform: Array64 | None
    ) -> None:
        self.uniform = uniform
        self._decoding = decoding
        self._tokenizer = tokenizer
        self._end_ids = frozenset(end_ids)
        self._ids: list[list[int]] = [[] for _ in range(count)]
        self._failed = [False] * count
        self._may_end: dict[int, bool] = {}

    @property
    def output_tokens(self) -> int:
        """Number of tokens that were generated, those that end a text included."""
        return sum(map(len, self._ids))

    def take(self, row: int, token: int) -> bool:
        """Take a row's next token; tell whether the row goes on."""
        if token == FAILED:
            self._failed[row] = True
            return False
        ids = self._ids[row]
        ids.append(token)
        if token in self._end_ids or len(ids) >= self._decoding.max_new_tokens:
            return False
        return not (self._may_complete(token) and stops(self._decoded(ids), self._decoding.stop))

    def texts(self) -> list[str | None]:
        """Return each row's text; None of a failed one."""
        return [
            None if failed else trimmed(self._decoded(ids), self._decoding.stop)
            for ids, failed in zip(self._ids, self._failed, strict=True)
        ]

    def _may_complete(self, token: int) -> bool:
        """Tell whether a stop string may end with a token: one that holds its last character.

        A space may be lost where a token is decoded alone, and half a character is not shown.
        """
        if not self._decoding.stop:
            return False
        if token not in self._may_end:
            piece = self._decoded([token])
            self._may_end[token] = "\ufffd" in piece or any(
                one[-1] in piece or one[-1] == " " for one in self._decoding.stop
            )
        return self._may_end[token]

    def _decoded(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True)
        return text


def choose(logits_R_V: "Tensor", temperature: float, uniform_R: Array64 | None) -> list[int]:
    """Return each row's next token; FAILED where its logits are no numbers."""
    best_R = logits_R_V.argmax(dim=-1)
    finite = logits_R_V.gather(-1, best_R[:, None])[:, 0].isfinite()  # a NaN is the largest
    if uniform_R is None:
        chosen: list[int] = best_R.where(finite, FAILED).tolist()
        return chosen
    known = finite.cpu().numpy()
    found = np.full(len(known), FAILED)
    if known.any():
        found[known] = sample(logits_R_V.float().cpu().numpy()[known], temperature, uniform_R[known])
    return [int(token) for token in found]


def decode(trunk: Trunk, reads: Sequence[Read], decoding: Decoding, answers: Answers) -> None:
    """Generate behind rows that have been read, until all have ended."""
    import torch

    blocks = [block for read in reads for block in read.blocks]
    rows = np.concatenate([block.rows for block in blocks])
    places = np.concatenate([block.tokens for block in blocks])
    hidden = torch.cat([read.hidden for read in reads])
    for step in range(decoding.max_new_tokens):
        drawn = None if answers.uniform is None else answers.uniform[rows, step]
        tokens = _next(trunk, hidden, decoding.temperature, drawn)
        goes_on = np.array([answers.take(row, token) for row, token in zip(rows.tolist(), tokens, strict=True)])
        if not goes_on.any():
            return
        if not goes_on.all():
            for block in blocks:
                block.drop(rows[~goes_on])
            blocks = [block for block in blocks if block.count]
        # A block that was made smaller has its rows in another order.
        known = {row: (token, place) for row, token, place in zip(rows.tolist(), tokens, places.tolist(), strict=True)}
        rows = np.concatenate([block.rows[block.live] for block in blocks])
        next_ids = [known[row][0] for row in rows.tolist()]
        positions = np.array([known[row][1] for row in rows.tolist()])
        places = positions + 1
        at = torch.from_numpy(positions).to(trunk.device)
        hidden = trunk.forward(trunk.embed(next_ids), at, Segments((), decoded=blocks))
        for block in blocks:
            block.filled += 1


def _next(trunk: Trunk, hidden_R_H: "Tensor", temperature: float, uniform_R: Array64 | None) -> list[int]:
    """Return the next token behind each hidden state; some of them are turned into logits at a time."""
    found: list[int] = []
    size = max(1, LOGITS // len(trunk.table))
    for at in range(0, len(hidden_R_H), size):
        drawn = None if uniform_R is None else uniform_R[at : at + size]
        found += choose(trunk.head.every_logit(hidden_R_H[at : at + size]), temperature, drawn)
    return found
