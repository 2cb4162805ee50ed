"""Sampling from a softmax by its inverse distribution function."""

from typing import Any

import numpy as np
import numpy.typing as npt


def sample(logits: npt.NDArray[Any], temperature: float, uniform: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return one index of each row, with the probabilities softmax(logits / temperature).

    An index is the first whose cumulative probability is above the row's uniform number, so that one number decides and
    rounding of the logits hardly ever matters.

    Args:
        logits: (R, V), finite or minus infinity.
        temperature: above 0.
        uniform: (R,) in [0, 1).

    Returns:
        (R,), each in 0 ... V - 1.
    """
    scaled = logits.astype(np.float64) / temperature
    weights = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    cumulative = weights.cumsum(axis=-1)
    below = cumulative <= (uniform * cumulative[..., -1])[..., None]
    chosen: npt.NDArray[np.int64] = np.minimum(below.sum(axis=-1), logits.shape[-1] - 1)
    return chosen
