"""Objectives of a search: the loss after the best head for a candidate ("profiled"), or the plain loss.

The head's gain is taken out of the loss at every candidate, so that no query is spent on learning it.
"""

import numpy as np
import numpy.typing as npt

from distributed_tuner.errors import HeadError
from distributed_tuner.heads.vocabulary import VocabularyHead
from distributed_tuner.maths.heads import bias_penalty, fit_bias, profile_bias, without_each
from distributed_tuner.maths.losses import cross_entropy, cross_entropy_slope, hinge, hinge_slope
from distributed_tuner.values import Array, Array64, Half, LossName, Objective

SMOOTH = {"cross_entropy": (cross_entropy, cross_entropy_slope), "hinge": (hinge, hinge_slope)}
"""Losses with a slope."""


def profiled(
    logits_C_E_W: Array, features_C_E_V: Half | None, labels: npt.NDArray[np.int64], objective: Objective
) -> tuple[Array64, Array64]:
    """Return losses (C,) and example losses (C, E) of an objective that fits a head.

    A candidate with an answer that is not finite has NaN losses.
    """
    finite = np.asarray(np.isfinite(logits_C_E_W).all(axis=(1, 2)))
    losses, examples = np.full(len(finite), np.nan), np.full(logits_C_E_W.shape[:2], np.nan)
    if objective.head == "bias" and objective.score == "train":
        m = logits_C_E_W[finite].astype(np.float64)
        b, losses[finite] = profile_bias(m, labels, objective.strength)
        examples[finite] = cross_entropy(m + b[:, None, :], labels)
        return losses, examples
    for index in np.flatnonzero(finite):  # E fits each, too large to be made for all at once
        if objective.head == "bias":
            losses[index], examples[index] = _without_each(logits_C_E_W[index], labels, objective)
        elif features_C_E_V is not None:
            losses[index], examples[index] = _after_words(
                features_C_E_V[index], labels, logits_C_E_W.shape[2], objective
            )
    return losses, examples


def has_slope(loss: LossName, objective: Objective) -> bool:
    """Tell whether a loss can be followed downhill through the label words' scores: ``loss_and_slope`` has it then."""
    return loss in SMOOTH and (objective.plain or (objective.head == "bias" and objective.score == "train"))


def loss_and_slope(
    m_E_W: Array64, labels: npt.NDArray[np.int64], loss: LossName, objective: Objective
) -> tuple[float, Array64]:
    """Return the loss of one candidate's logits, and its slope by them, (E, W).

    Of a profiled objective the slope is that at the best bias, with the bias held fixed (envelope theorem).
    """
    loss_of, slope_of = SMOOTH[loss]
    if objective.plain:
        return float(loss_of(m_E_W, labels).mean()), slope_of(m_E_W, labels) / len(labels)
    b, left = profile_bias(m_E_W, labels, objective.strength)
    return float(left), cross_entropy_slope(m_E_W + b, labels) / len(labels)


def _without_each(m: Array, labels: npt.NDArray[np.int64], objective: Objective) -> tuple[float, Array64]:
    """Return the loss of one candidate's rows, each after the bias that fits the others best."""
    m64 = m.astype(np.float64)
    b = fit_bias(np.broadcast_to(m64, (len(m64), *m64.shape)), labels, objective.strength, without_each(len(m64)))
    examples = cross_entropy(m64 + b, labels)
    return float(examples.mean()), examples


def _after_words(
    features: Half, labels: npt.NDArray[np.int64], classes: int, objective: Objective
) -> tuple[float, Array64]:
    head = VocabularyHead(classes)
    try:
        if objective.score == "leave_one_out":
            chances = head.leave_one_out(features, labels)
        else:
            chances = head.fit(features, labels).predict(features)
    except HeadError:  # too few answered rows: a failed query
        return float("nan"), np.full(len(labels), np.nan)
    examples: Array64 = -np.log(chances[np.arange(len(labels)), labels])
    return float(examples.mean()), examples


def bounds(
    logits_C_E_W: Array, seen_C: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], objective: Objective
) -> Array64:
    """Return lower bounds (C,) of the losses by the examples that each candidate was seen on, its first ``seen_C``.

    min_b of a part of the sum is no more than min_b of the whole, since no cross-entropy is negative.
    """
    examples = logits_C_E_W.shape[1]
    seen_C_E = np.arange(examples) < seen_C[:, None]
    m = np.where(seen_C_E[..., None], logits_C_E_W, 0.0)
    weights = seen_C_E / examples
    b = fit_bias(m, labels, objective.strength, weights)
    losses = (cross_entropy(m + b[:, None, :], labels) * weights).sum(axis=1)
    return np.asarray(losses + bias_penalty(b, objective.strength))
