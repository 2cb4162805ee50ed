"""Biases that need no labels: from the texts at hand, or from texts that say nothing."""

from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from distributed_tuner.errors import HeadError
from distributed_tuner.heads.base import Features, Head
from distributed_tuner.maths.heads import batch_bias, content_free_bias, log_softmax
from distributed_tuner.values import Array64


class UnlabelledHead(Head):
    """softmax(m + b), b from answers alone."""

    shapes = MappingProxyType({"bias": "W"})

    def _predict(self, x: Array64) -> Array64:
        return np.asarray(np.exp(log_softmax(log_softmax(x[:, : self.classes]) + self._fitted("bias"))))


class BatchHead(UnlabelledHead):
    """b = minus the mean log-probability over the rows (batch calibration, 2309.17249).

    Args:
        classes: W, the number of labels.

    Example:
        >>> import numpy as np
        >>> from distributed_tuner.heads.unlabelled import BatchHead
        >>> features = np.log([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.5, 0.5]])
        >>> head = BatchHead(classes=2).fit(features, [0, 0, 0, 0])
        >>> head.predict(features).argmax(axis=1).tolist()
        [0, 0, 1, 1]
    """

    def _fit(self, x: Array64, y: npt.NDArray[np.int64], references: Features | None) -> dict[str, Array64]:
        if not len(x):
            raise HeadError("batch calibration needs an answered row, but there is none")
        return {"bias": batch_bias(x[:, : self.classes])}

    def _leave_one_out(self, x: Array64, y: npt.NDArray[np.int64], references: Features | None) -> Array64:
        scores = log_softmax(x[:, : self.classes])
        others = (scores.sum(axis=0) - scores) / max(1, len(scores) - 1)
        return np.asarray(np.exp(log_softmax(scores - others)))


class ContentFreeHead(UnlabelledHead):
    """b = minus the log-probability of each label for texts without content (contextual calibration, 2102.09690), or of
    random words of the domain (2305.19148).

    Args:
        classes: W, the number of labels.

    Example:
        >>> import numpy as np
        >>> from distributed_tuner.heads.unlabelled import ContentFreeHead
        >>> features = np.log([[0.9, 0.1], [0.7, 0.3]])
        >>> head = ContentFreeHead(classes=2).fit(features, [0, 1], references=np.log([[0.8, 0.2]]))
        >>> head.predict(features).argmax(axis=1).tolist()
        [0, 1]
    """

    def _fit(self, x: Array64, y: npt.NDArray[np.int64], references: Features | None) -> dict[str, Array64]:
        known = None if references is None else np.asarray(references, dtype=np.float64)[:, : self.classes]
        known = None if known is None else known[np.isfinite(known).all(axis=1)]
        if known is None or not len(known):
            raise HeadError("this calibration goes by answers to texts without content, but there are none")
        return {"bias": content_free_bias(known)}

    def _leave_one_out(self, x: Array64, y: npt.NDArray[np.int64], references: Features | None) -> Array64:
        return ContentFreeHead(self.classes).fit(x, y, references)._predict(x)
