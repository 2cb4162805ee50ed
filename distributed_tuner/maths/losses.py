"""Losses and predictions from label-word logits, as ZOT (Sec. 3.1) and BBT (Sec. 4.1) use them.

The softmax and the margin are over the W label words, not over the vocabulary. Averaging over examples, metrics and the
choice of label words are left to others. Arithmetic is float64 whatever comes in.
"""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array64: TypeAlias = npt.NDArray[np.float64]
Indices: TypeAlias = npt.NDArray[np.int64]

HINGE_MARGIN = 2.0


def cross_entropy(logits: npt.NDArray[Any], labels: npt.ArrayLike) -> Array64:
    """Return ``-log softmax(logits)[label]`` per example.

    logits: (..., W). labels: integers in [0, W) that broadcast to (...). Result: (...), in nats; not finite where the
    logits do not allow a finite value. Raises IndexError for a label outside [0, W).
    """
    logit = np.asarray(logits, dtype=np.float64)
    with np.errstate(invalid="ignore"):  # inf - inf is a failed query, which the NaN says already
        shifted = logit - logit.max(axis=-1, keepdims=True)
        log_sum = np.log(np.exp(shifted).sum(axis=-1))
        return np.asarray(log_sum - _of_label(shifted, labels)[..., 0])


def hinge(logits: npt.NDArray[Any], labels: npt.ArrayLike, margin: float = HINGE_MARGIN) -> Array64:
    """Return ``sum_{j != y} max(0, logit_j - logit_y + margin)`` per example.

    Shapes and errors as in ``cross_entropy``.
    """
    logit = np.asarray(logits, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        excess = np.maximum(0.0, logit - _of_label(logit, labels) + margin)
        return np.asarray(excess.sum(axis=-1) - _of_label(excess, labels)[..., 0])  # j = y adds the margin itself


def zero_one(logits: npt.NDArray[Any], labels: npt.ArrayLike) -> Array64:
    """Return 0 where the label has the highest logit, first of ties, and 1 elsewhere: their mean is 1 - accuracy.

    Shapes and errors as in ``cross_entropy``; NaN where a logit is NaN.
    """
    logit = np.asarray(logits, dtype=np.float64)
    label = np.broadcast_to(np.asarray(labels, dtype=np.int64), logit.shape[:-1])
    _of_label(logit, labels)
    return np.where(np.isnan(logit).any(axis=-1), np.nan, (predictions(logit) != label).astype(np.float64))


def cross_entropy_slope(logits: npt.NDArray[Any], labels: npt.ArrayLike) -> Array64:
    """Return the derivative ``softmax(logits) - onehot(label)`` of ``cross_entropy`` by its logits, (..., W)."""
    logit = np.asarray(logits, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        exponentials = np.exp(logit - logit.max(axis=-1, keepdims=True))
        return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True) - _one_hot(logit, labels))


def hinge_slope(logits: npt.NDArray[Any], labels: npt.ArrayLike, margin: float = HINGE_MARGIN) -> Array64:
    """Return the derivative of ``hinge`` by its logits, (..., W); 0 at a kink, NaN where the logits are not numbers."""
    logit = np.asarray(logits, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        excess = logit - _of_label(logit, labels) + margin
    one_hot = _one_hot(logit, labels)
    active = np.where(np.isnan(excess), np.nan, (excess > 0) & (one_hot == 0))
    return np.asarray(active - one_hot * active.sum(axis=-1, keepdims=True))


def predictions(logits: npt.NDArray[Any]) -> Indices:
    """Return the index of the highest logit, first of ties. logits: (..., W); result: (...)."""
    return np.asarray(np.argmax(logits, axis=-1), dtype=np.int64)


def _one_hot(values: Array64, labels: npt.ArrayLike) -> Array64:
    """Return 1 at each label and 0 elsewhere, in the shape of ``values``."""
    width = values.shape[-1]
    return np.broadcast_to(np.eye(width)[np.asarray(labels, dtype=np.int64)], values.shape)


def _of_label(values: Array64, labels: npt.ArrayLike) -> Array64:
    """Return ``values[..., label]`` with the last axis kept at length 1."""
    label = np.asarray(labels, dtype=np.int64)
    width = values.shape[-1]
    if label.size and (label.min() < 0 or label.max() >= width):
        raise IndexError(f"labels must be in [0, {width}), got {label.min()}..{label.max()}; check the label words")
    index = np.broadcast_to(label, values.shape[:-1])[..., None]
    return np.take_along_axis(values, index, axis=-1)
