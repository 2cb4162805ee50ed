"""An oracle of one's own: a classifier by hashed words, whose weights are the soft prompt. It stands for any model."""

import zlib

import numpy as np

from distributed_tuner.oracles.custom import Oracle
from distributed_tuner.values import Array, Request, Text


class HashedWords(Oracle):
    """Scores are phi(text) . x_w: each label has its own coordinates x_w, one a hashed word.

    A prompt in words has no say here: all its label words score alike.
    """

    def __init__(self, *, width: int = 16) -> None:
        self.width = width

    def score(self, request: Request) -> Array:
        features_E_D = np.stack([self._features(example.text) for example in request.batch.examples])
        words = len(request.batch.label_words)
        scores = np.zeros((len(request.candidates), len(features_E_D), words), dtype=np.float32)
        for i, candidate in enumerate(request.candidates):
            if not isinstance(candidate, Text):
                rows_W_D = self.rows(candidate, request.prompt)[:words]  # prompt.length is the number of labels
                scores[i] = features_E_D @ rows_W_D.T
        return scores

    def _features(self, text: str) -> Array:
        phi = np.zeros(self.width, dtype=np.float32)
        for word in text.lower().split():
            phi[zlib.crc32(word.encode()) % self.width] += 1.0
        return phi
