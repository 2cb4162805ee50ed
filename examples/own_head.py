"""A head of one's own: the label words' scores less their mean over the rows, as sharp as ``temperature`` says."""

from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from distributed_tuner.heads.base import Features, Head
from distributed_tuner.maths.heads import log_softmax
from distributed_tuner.values import Array64


class CentredHead(Head):
    """softmax((log softmax(m) - mean) / temperature), the mean taken over the rows of each label alike."""

    least_rows = 2  # so that each label has a row left when one is left out
    shapes = MappingProxyType({"mean": "W"})

    def __init__(self, *, classes: int, temperature: float = 1.0) -> None:
        super().__init__(classes)
        self._temperature = temperature

    def _fit(self, x: Array64, y: npt.NDArray[np.int64], references: Features | None) -> dict[str, Array64]:
        scores = self._scores(x)
        return {"mean": np.mean([scores[y == label].mean(axis=0) for label in range(self.classes)], axis=0)}

    def _predict(self, x: Array64) -> Array64:
        return self._read(self._scores(x), self._fitted("mean"))

    def _leave_one_out(self, x: Array64, y: npt.NDArray[np.int64], references: Features | None) -> Array64:
        rows = np.arange(len(x))
        means = [self._fit(x[rows != row], y[rows != row], None)["mean"] for row in rows]
        return self._read(self._scores(x), np.stack(means))

    def _scores(self, x: Array64) -> Array64:
        return log_softmax(x[:, : self.classes])

    def _read(self, scores: Array64, mean: Array64) -> Array64:
        return np.exp(log_softmax((scores - mean) / self._temperature))
