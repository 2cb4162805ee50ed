"""One number a label: what the model says too often is taken away."""

from types import MappingProxyType
from typing import Literal

import numpy as np
import numpy.typing as npt

from distributed_tuner.heads.base import Features, Head
from distributed_tuner.maths.heads import fit_bias, log_softmax, without_each
from distributed_tuner.maths.losses import cross_entropy
from distributed_tuner.values import Array64

STRENGTHS = (0.003, 0.01, 0.03, 0.1, 0.3)


class BiasHead(Head):
    """softmax(m + b), b fitted by cross-entropy with an L2 penalty; "auto": of least leave-one-out loss.

    Args:
        classes: W, the number of labels.
        strength: weight of the L2 penalty; "auto": of 0.003, 0.01, ..., 0.3, the one of least leave-one-out loss.

    Example:
        >>> import numpy as np
        >>> from distributed_tuner.heads.bias import BiasHead
        >>> features = np.log([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.5, 0.5]])
        >>> head = BiasHead(classes=2).fit(features, [0, 0, 1, 1])
        >>> head.predict(features).argmax(axis=1).tolist()
        [0, 0, 1, 1]
    """

    least_rows = 1
    shapes = MappingProxyType({"bias": "W"})

    def __init__(self, classes: int, strength: float | Literal["auto"] = "auto") -> None:
        super().__init__(classes)
        self._strengths = STRENGTHS if strength == "auto" else (strength,)

    def _fit(self, x: Array64, y: npt.NDArray[np.int64], references: Features | None) -> dict[str, Array64]:
        m = x[:, : self.classes]
        strength, _ = self._chosen(m, y)
        return {"bias": fit_bias(m, y, strength), "strength": np.array([strength])}

    def _predict(self, x: Array64) -> Array64:
        return np.asarray(np.exp(log_softmax(x[:, : self.classes] + self._fitted("bias"))))

    def _leave_one_out(self, x: Array64, y: npt.NDArray[np.int64], references: Features | None) -> Array64:
        _, out = self._chosen(x[:, : self.classes], y)
        return np.asarray(np.exp(log_softmax(out)))

    def _chosen(self, m: Array64, y: npt.NDArray[np.int64]) -> tuple[float, Array64]:
        """Return the strength and each row's scores without it."""
        weights = without_each(len(m))
        outs = {s: m + fit_bias(np.broadcast_to(m, (len(m), *m.shape)), y, s, weights) for s in self._strengths}
        strength = min(self._strengths, key=lambda s: float(cross_entropy(outs[s], y).mean()))
        return strength, outs[strength]
