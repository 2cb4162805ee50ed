"""The label words as they are: what BBT and ZOT read."""

import numpy as np
import numpy.typing as npt

from distributed_tuner.heads.base import Features, Head
from distributed_tuner.maths.heads import log_softmax
from distributed_tuner.values import Array64


class LabelWordsHead(Head):
    """The softmax over the label words' scores. Nothing is fitted.

    Args:
        classes: W, the number of labels.

    Example:
        >>> import numpy as np
        >>> from distributed_tuner.heads.label_words import LabelWordsHead
        >>> features = np.log([[0.9, 0.1], [0.3, 0.7]])
        >>> head = LabelWordsHead(classes=2).fit(features, [0, 1])
        >>> head.predict(features).argmax(axis=1).tolist()
        [0, 1]
    """

    def _fit(self, x: Array64, y: npt.NDArray[np.int64], references: Features | None) -> dict[str, Array64]:
        return {}

    def _predict(self, x: Array64) -> Array64:
        return np.asarray(np.exp(log_softmax(x[:, : self.classes])))

    def _leave_one_out(self, x: Array64, y: npt.NDArray[np.int64], references: Features | None) -> Array64:
        return self._predict(x)
