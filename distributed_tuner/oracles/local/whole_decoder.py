"""Decoding of rows that cannot share a sequence: by transformers' own ``generate``, on the rows' embeddings.

Rows of one length make a batch, so that nothing is padded. Not every model's ``generate`` takes embeddings, or gives
each row of a batch what it gives the row alone. So two rows are generated first and compared with the plain pass; where
they differ, each token takes a pass over all before it, which takes longer and is right.
"""

import logging
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from distributed_tuner.oracles.checks.packing import alike
from distributed_tuner.oracles.local.backbone import Trunk
from distributed_tuner.oracles.local.decoder import FAILED, Answers, choose
from distributed_tuner.values import Decoding

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

TOKENS = {"cpu": 2048}  # of a batch, with those that are generated
TOKENS_ELSEWHERE = 32768
COMPARED = 4  # tokens of each of the two rows


class WholeDecoder:
    """Decodes whole rows of one model."""

    def __init__(self, trunk: Trunk, end_ids: tuple[int, ...]) -> None:
        self._trunk = trunk
        self._end_ids = end_ids
        self._generates: bool | None = None

    def decode(self, sequences: "list[tuple[int, Tensor]]", decoding: Decoding, answers: Answers) -> None:
        """Generate behind sequences: each the number of its row and its embeddings (T, D)."""
        import torch

        lengths = [len(sequence) for _, sequence in sequences]
        order = np.argsort(lengths, kind="stable").tolist()
        starts = [0, *(np.flatnonzero(np.diff(np.take(lengths, order))) + 1).tolist(), len(order)]
        most = TOKENS.get(self._trunk.device.type, TOKENS_ELSEWHERE)
        for at, until in pairwise(starts):
            size = max(1, most // (lengths[order[at]] + decoding.max_new_tokens))
            for first, last in pairwise([*range(at, until, size), until]):
                part = [sequences[i] for i in order[first:last]]
                embeds_B_T_D = torch.stack([sequence for _, sequence in part])
                chooser = _Chooser([row for row, _ in part], decoding, answers, self._end_ids)
                if self._may_generate(embeds_B_T_D):
                    self._trunk.generate(embeds_B_T_D, decoding.max_new_tokens, chooser)
                else:
                    self._in_passes(embeds_B_T_D, chooser)

    def _in_passes(self, embeds_B_T_D: "Tensor", chooser: "_Chooser") -> None:
        """Generate with a pass over all tokens for each new one."""
        import torch

        while any(chooser.goes_on):
            read = self._trunk.alone(embeds_B_T_D.clone(), -1)  # some models change what they are given
            tokens_B = chooser(None, self._logits(read)).argmax(dim=-1)
            embeds_B_T_D = torch.cat([embeds_B_T_D, self._trunk.embed(tokens_B)[:, None]], dim=1)

    def _logits(self, read: "Tensor") -> "Tensor":
        head = self._trunk.head
        return read if head.own else head.every_logit(read)

    def _may_generate(self, embeds_B_T_D: "Tensor") -> bool:
        """Tell whether the model's ``generate`` gives what its plain pass does; found once."""
        if self._generates is None:
            why = self._why_not(embeds_B_T_D)
            self._generates = not why
            if why:
                log.warning("%s: answers take a pass for each token, which takes longer: %s", self._trunk.name, why)
        return self._generates

    def _why_not(self, embeds_B_T_D: "Tensor") -> str:
        import torch

        two = embeds_B_T_D[:2] if len(embeds_B_T_D) > 1 else torch.cat([embeds_B_T_D, embeds_B_T_D.flip(1)])
        trial = _Trial()
        try:
            self._trunk.generate(two.clone(), COMPARED, trial)
        except Exception as error:  # whatever the code of a model raises that cannot be asked so
            return (str(error).strip() or type(error).__name__).splitlines()[0]
        made = torch.stack(trial.logits, dim=1)
        ids = made.argmax(dim=-1)[:, :-1]
        read = self._trunk.last(torch.cat([two, self._trunk.embed(ids)], dim=1), made.shape[1])
        wanted = self._logits(read)
        got, wanted = (scores - scores.mean(dim=-1, keepdim=True) for scores in (made.float(), wanted.float()))
        return "" if alike(self._trunk, got, wanted) else "its own generate gives rows of a batch something else"


class _Trial:
    """Takes the likeliest tokens of a batch, and keeps each step's logits (B, V)."""

    def __init__(self) -> None:
        self.goes_on = [True, True]
        self.logits: list[Tensor] = []

    def __call__(self, _ids: Any, logits_B_V: "Tensor") -> "Tensor":
        self.logits.append(logits_B_V.clone())
        return logits_B_V


class _Chooser:
    """Chooses the tokens of a batch: the only logits processor of ``generate``, and what ends it."""

    def __init__(self, rows: list[int], decoding: Decoding, answers: Answers, end_ids: tuple[int, ...]) -> None:
        self._rows = rows
        self._temperature = decoding.temperature
        self._answers = answers
        self._ends = end_ids[0] if end_ids else 0
        self._step = 0
        self.goes_on = [True] * len(rows)

    def __call__(self, _ids: Any, logits_B_V: "Tensor") -> "Tensor":
        """Return scores whose largest is the chosen token's."""
        import torch

        uniform = self._answers.uniform
        drawn = None if uniform is None else uniform[self._rows, self._step]
        tokens = choose(logits_B_V, self._temperature, drawn)
        self._step += 1
        for i, (row, token) in enumerate(zip(self._rows, tokens, strict=True)):
            if self.goes_on[i]:
                self.goes_on[i] = self._answers.take(row, token)
        ids = [self._ends if token == FAILED else token for token in tokens]
        chosen = torch.tensor(ids, device=logits_B_V.device)[:, None]
        return torch.full_like(logits_B_V, float("-inf")).scatter_(1, chosen, 0.0)
