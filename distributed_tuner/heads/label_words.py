"""The label words as they are: what BBT and ZOT read."""

import numpy as np
import numpy.typing as npt

from distributed_tuner.heads.base import Features, Head
from distributed_tuner.maths.heads import log_softmax
from distributed_tuner.values import Array64


class LabelWordsHead(Head):
    """The softmax over the label words' scores. Nothing is fitted."""

    def _fit(self, x: Array64, y: npt.NDArray[np.int64], references: Features | None) -> dict[str, Array64]:
        return {}

    def _predict(self, x: Array64) -> Array64:
        return np.asarray(np.exp(log_softmax(x[:, : self.classes])))

    def _leave_one_out(self, x: Array64, y: npt.NDArray[np.int64], references: Features | None) -> Array64:
        return self._predict(x)
