"""The gradient of a prompt's loss by its rows, through a frozen model: one backward pass for every few examples.

The loss is not written a second time for torch: its slopes by the label words' logits come from ``maths.losses`` and go
backwards through the model, which is all that autograd is used for.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from distributed_tuner.config.oracle import TransformersOracleConfig
from distributed_tuner.errors import ModelError
from distributed_tuner.oracles.base import bias_of, mean_loss_slopes, require_coordinates
from distributed_tuner.values import Array, Batch, Request

if TYPE_CHECKING:
    import torch
    from torch import Tensor

BACKWARD_TOKENS = {"cpu": 1024}  # a backward pass's, which keeps what every layer made, not one layer's alone
BACKWARD_TOKENS_ELSEWHERE = 4096


def no_graph(config: TransformersOracleConfig) -> "AbstractContextManager[None]":
    """Return the context that losses are computed in.

    Tensors of inference mode cannot take part in a later backward pass, and keys and values of texts are kept for
    both: so a differentiable oracle does without it.
    """
    import torch

    return torch.no_grad() if config.gradients else torch.inference_mode()


def require_white_box(request: Request, config: TransformersOracleConfig) -> None:
    """Check that gradients, where they are asked for, can be given.

    Raises:
        ModelError: the oracle was built without gradients, or a candidate is a text in words.
    """
    require_coordinates(request)
    if request.gradient and not config.gradients:
        raise ModelError(
            "gradients need a model that was kept differentiable, but oracle.gradients is false; set oracle.gradients:"
            " true"
        )


def groups(batch: Batch, tokens: Sequence[int], device: str) -> list[Batch]:
    """Cut a batch into runs of examples that one backward pass holds, one example at least.

    tokens: of each example with its prompt. The cut follows from the lengths alone.
    """
    limit = BACKWARD_TOKENS.get(device, BACKWARD_TOKENS_ELSEWHERE)
    starts, held = [0], 0
    for j, count in enumerate(tokens):
        if held and held + count > limit:
            starts.append(j)
            held = 0
        held += count
    ends = [*starts[1:], len(tokens)]
    return [replace(batch, examples=batch.examples[at:until]) for at, until in zip(starts, ends, strict=True)]


def logits_and_gradient(
    rows_L_D: Array, parts: Sequence[Batch], logits_of: "Callable[[Tensor, Batch], Tensor]", device: "torch.device"
) -> tuple[Array, Array]:
    """Return label-word logits (E, W) of all parts' examples, and the gradient (L, D) of their mean loss by the rows.

    ``logits_of`` maps rows (1, L, D), float32, and a part to logits (1, E, W). The gradient is summed in float32,
    whatever the model computes in. Of a profiled objective it is that at the bias of all parts together, for which
    several parts are computed once more beforehand.
    """
    import torch

    whole = replace(parts[0], examples=tuple(example for part in parts for example in part.examples))
    leaf = torch.from_numpy(rows_L_D).to(device)[None].requires_grad_()
    bias = None
    if not whole.objective.plain and len(parts) > 1:
        with torch.no_grad():
            known = [_host(logits_of(leaf, part)) for part in parts]
        bias = bias_of(np.concatenate(known, axis=1)[0], whole)
    found = []
    with torch.enable_grad():
        for part in parts:
            logits = logits_of(leaf, part)
            found.append(_host(logits))
            shift = bias_of(found[-1][0], part) if bias is None else bias
            slopes = mean_loss_slopes(found[-1] + shift, part) * (len(part.examples) / len(whole.examples))
            torch.autograd.backward(logits, torch.from_numpy(slopes).to(logits))
    assert leaf.grad is not None
    return np.concatenate(found, axis=1)[0], leaf.grad[0].cpu().numpy()


def _host(logits: "Tensor") -> Array:
    host: Array = logits.detach().float().cpu().numpy()
    return host
