"""Log-likelihoods of continuations, and the scores of label words and answer words, from what a model has read."""

from typing import TYPE_CHECKING

import numpy as np

from distributed_tuner.oracles.local.output_head import OutputHead
from distributed_tuner.oracles.tokens.continuations import Continuations, Indices
from distributed_tuner.oracles.tokens.encoding import Encoder
from distributed_tuner.values import Batch

if TYPE_CHECKING:
    from torch import Tensor


def log_likelihoods(
    head: OutputHead, read_C_A_H: "Tensor", continuations: Continuations, row_sums: bool = True
) -> "Tensor":
    """Return the sums (C, E, W) of the log-probabilities of each continuation's tokens given the row, in float32.

    row_sums: False leaves out the sum over all words at the row's end, which takes time and is the same number for all
    continuations of a row.
    """
    import torch

    def index(places: Indices) -> "Tensor":
        return torch.from_numpy(np.ascontiguousarray(places)).to(read_C_A_H.device)

    count, answers = read_C_A_H.shape[:2]
    places = index(continuations.places.reshape(-1))
    wanted = np.arange(answers) if row_sums else np.setdiff1d(np.arange(answers), continuations.ends)
    log_sums = read_C_A_H.new_zeros((count, answers), dtype=torch.float32)
    if len(wanted):
        log_sums = log_sums.index_copy(1, index(wanted), head.log_sums(read_C_A_H[:, index(wanted)]))
    logits = head.token_logits(read_C_A_H[:, places], index(continuations.tokens.reshape(-1)))
    found = (logits - log_sums[:, places]).view(count, *continuations.real.shape)
    real = torch.from_numpy(continuations.real).to(found.device)
    return torch.where(real, found, 0.0).sum(dim=-1)


def scores(head: OutputHead, read: "Tensor", encoder: Encoder, batch: Batch) -> "Tensor":
    """Return the scores (C, E, V) of label words and answer words, or the log-likelihoods (C, E, 1) of targets.

    ``read``: what is read at each row's end (C, E, H), or there and behind it (C, A, H).

    A label word's score is its token's logit. By the rule "sum" it is the sum of its tokens' log-probabilities, by
    "mean" their mean; an answer word has its log-probability then. By "sum" a row's scores may all be shifted by one
    number, as logits are. The log-likelihood of a target is a token's or an example's, as the batch has it.
    """
    import torch

    continuations, ids = encoder.continuations(batch), encoder.answer_ids(batch)
    if continuations is None:
        return head.label_logits(read, ids)
    of_targets = batch.question == "targets"
    mean = batch.per == "token" if of_targets else batch.label_rule == "mean"
    found = log_likelihoods(head, read, continuations, row_sums=mean or of_targets)
    if mean:
        found = found / torch.from_numpy(continuations.lengths).to(found)
    if not ids:
        return found
    ends_C_E_H = read[:, torch.from_numpy(continuations.ends).to(read.device)]
    words = head.label_logits(ends_C_E_H, ids)
    if mean:
        words = words - head.log_sums(ends_C_E_H)[..., None]
    return torch.cat([found, words], dim=-1)
