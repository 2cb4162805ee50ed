"""The label whose rows' mean answer is nearest (hidden calibration, 2406.16535, on scores, not hidden states)."""

from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from distributed_tuner.heads.base import Features, Head
from distributed_tuner.maths.heads import (
    Standard,
    best_scale,
    centroid_scores,
    centroids,
    log_softmax,
    one_hot,
    standard,
)
from distributed_tuner.values import Array64


class CentroidHead(Head):
    """softmax(-c |z - mean_w|^2) of standardised features, c the scale of least leave-one-out loss.

    Args:
        classes: W, the number of labels.

    Example:
        >>> import numpy as np
        >>> from distributed_tuner.heads.centroid import CentroidHead
        >>> features = np.log([[0.5, 0.2, 0.3], [0.4, 0.2, 0.4], [0.5, 0.4, 0.1], [0.5, 0.45, 0.05]])
        >>> head = CentroidHead(classes=2).fit(features, [0, 0, 1, 1])
        >>> head.predict(features).argmax(axis=1).tolist()
        [0, 0, 1, 1]
    """

    words_needed = True
    least_rows = 2
    shapes = MappingProxyType({"mean": "V", "spread": "V", "centroids": "WV", "scale": "1"})

    def _fit(self, x: Array64, y: npt.NDArray[np.int64], references: Features | None) -> dict[str, Array64]:
        by = standard(x)
        z = by.of(x)
        scale = best_scale(self._out(z, y), y)
        means = centroids(z, y, self.classes)
        return {"mean": by.mean, "spread": by.spread, "centroids": means, "scale": np.array([scale])}

    def _predict(self, x: Array64) -> Array64:
        z = Standard(self._fitted("mean"), self._fitted("spread")).of(x)
        scores = centroid_scores(z, self._fitted("centroids"))
        return np.asarray(np.exp(log_softmax(self._fitted("scale") * scores)))

    def _leave_one_out(self, x: Array64, y: npt.NDArray[np.int64], references: Features | None) -> Array64:
        out = self._out(standard(x).of(x), y)
        return np.asarray(np.exp(log_softmax(best_scale(out, y) * out)))

    def _out(self, z: Array64, y: npt.NDArray[np.int64]) -> Array64:
        """Return each row's scores by centroids without it: z - mean' = (z - mean) n / (n - 1) for its own class."""
        scores = centroid_scores(z, centroids(z, y, self.classes))
        own = one_hot(y, self.classes)
        counts = own.sum(axis=0)
        factor = (counts / np.maximum(counts - 1, 1)) ** 2
        return np.where(own > 0, scores * factor, scores)
