"""Decoding of rows that cannot share a sequence: by transformers' own ``generate``, on the rows' embeddings.

Rows of one length make a batch, so that nothing is padded. Which token follows is chosen as elsewhere (decoder.py).
"""

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from distributed_tuner.errors import ModelError
from distributed_tuner.oracles.local.backbone import Trunk
from distributed_tuner.oracles.local.decoder import FAILED, Answers, choose
from distributed_tuner.values import Decoding

if TYPE_CHECKING:
    from torch import Tensor

TOKENS = {"cpu": 2048}  # of a batch, with those that are generated
TOKENS_ELSEWHERE = 32768


def decode_whole(
    trunk: Trunk, sequences: "list[tuple[int, Tensor]]", decoding: Decoding, answers: Answers, end_ids: tuple[int, ...]
) -> None:
    """Generate behind sequences: each the number of its row and its embeddings (T, D).

    Raises:
        ModelError: the model cannot generate behind embeddings.
    """
    import torch

    lengths = [len(sequence) for _, sequence in sequences]
    order = np.argsort(lengths, kind="stable").tolist()
    starts = [0, *(np.flatnonzero(np.diff(np.take(lengths, order))) + 1).tolist(), len(order)]
    most = TOKENS.get(trunk.device.type, TOKENS_ELSEWHERE)
    for at, until in pairwise(starts):
        size = max(1, most // (lengths[order[at]] + decoding.max_new_tokens))
        for first, last in pairwise([*range(at, until, size), until]):
            part = [sequences[i] for i in order[first:last]]
            chooser = _Chooser([row for row, _ in part], decoding, answers, end_ids)
            try:
                trunk.generate(torch.stack([one for _, one in part]), decoding.max_new_tokens, chooser)
            except (ValueError, TypeError, NotImplementedError, AttributeError) as error:
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                raise ModelError(
                    f"answers are generated behind embeddings, which {trunk.name} cannot do ({reason}); choose another"
                    " model of docs/models.md"
                ) from error


class _Chooser:
    """Chooses the tokens of a batch of ``generate``: its only logits processor, and what ends it."""

    def __init__(self, rows: list[int], decoding: Decoding, answers: Answers, end_ids: tuple[int, ...]) -> None:
        self._rows = rows
        self._temperature = decoding.temperature
        self._answers = answers
        self._ends = end_ids[0] if end_ids else 0
        self._step = 0
        self.goes_on = [True] * len(rows)

    def __call__(self, _ids: Any, logits_R_V: "Tensor") -> "Tensor":
        """Return scores whose largest is the chosen token's."""
        uniform = self._answers.uniform
        drawn = None if uniform is None else uniform[self._rows, self._step]
        tokens = choose(logits_R_V, self._temperature, drawn)
        self._step += 1
        for i, (row, token) in enumerate(zip(self._rows, tokens, strict=True)):
            if self.goes_on[i]:
                self.goes_on[i] = self._answers.take(row, token)
        chosen = logits_R_V.new_tensor([max(token, 0) if token != FAILED else self._ends for token in tokens])
        scores = logits_R_V.new_full(logits_R_V.shape, float("-inf"))
        return scores.scatter_(1, chosen.long()[:, None], 0.0)
