"""Coordinates of a candidate, solved from its rows."""

import numpy as np

from distributed_tuner.oracles.base import LossOracle
from distributed_tuner.oracles.codec import codec_of
from distributed_tuner.values import Array, Candidate, Point, PromptSpec


def coordinates(model: LossOracle, candidate: Candidate, prompt: PromptSpec) -> Array:
    """Return x, shape (P,), of a soft candidate: its rows are base + unit * x, solved for x."""
    codec = codec_of(model)
    rows = codec.materialize(candidate, prompt)
    base = codec.materialize(Point(np.zeros(rows.size, dtype=np.float32)), prompt)
    unit = model.info.embedding_std if prompt.scale == "embedding" else 1.0
    x: Array = ((rows - base) / np.float32(unit)).reshape(-1)
    return x
