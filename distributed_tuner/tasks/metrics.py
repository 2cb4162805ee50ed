"""Scores of predicted label indices, in numpy alone. Higher is better; all are fractions, not percentages."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from distributed_tuner.errors import TaskError

Labels = Sequence[int] | npt.NDArray[np.integer]


def accuracy(predictions: Labels, labels: Labels) -> float:
    """Return the share of predictions that equal their label, in [0, 1]."""
    return float(np.mean(np.asarray(predictions) == np.asarray(labels)))


def f1(predictions: Labels, labels: Labels) -> float:
    """Return the F1 of label 1, in [0, 1]; 0 where label 1 is neither predicted nor present."""
    predicted, true = np.asarray(predictions) == 1, np.asarray(labels) == 1
    total = int(predicted.sum() + true.sum())
    return 2 * int((predicted & true).sum()) / total if total else 0.0


def matthews(predictions: Labels, labels: Labels) -> float:
    """Return the correlation of predictions and labels, in [-1, 1], for any number of classes (Gorodkin 2004, R_K).

    0 where all predictions or all labels are the same, as the correlation is then undefined.
    """
    classes = np.union1d(predictions, labels)
    x = (np.asarray(predictions)[:, None] == classes).astype(np.float64)
    y = (np.asarray(labels)[:, None] == classes).astype(np.float64)
    x -= x.mean(axis=0)
    y -= y.mean(axis=0)
    scale = float(np.sqrt((x * x).sum() * (y * y).sum()))
    return float((x * y).sum()) / scale if scale > 0 else 0.0


LABEL_METRICS = {"accuracy": accuracy, "f1": f1, "matthews": matthews}


def score(names: Sequence[str], predictions: Labels, labels: Labels) -> dict[str, float]:
    """Return every metric of ``names`` for ``predictions`` and ``labels``, label indices of shape (E,) with E >= 1.

    Raises TaskError for an unknown name, no examples, or lengths that differ.
    """
    if len(predictions) != len(labels) or len(labels) == 0:
        raise TaskError(f"a score needs as many predictions as labels, got {len(predictions)} and {len(labels)}")
    unknown = [name for name in names if name not in LABEL_METRICS]
    if unknown:
        raise TaskError(f"unknown metric {unknown[0]!r}: choose from {', '.join(LABEL_METRICS)}")
    return {name: LABEL_METRICS[name](predictions, labels) for name in names}
