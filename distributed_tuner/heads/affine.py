"""A factor and a number a label (supervised calibration, 2505.23783), where the factors earn their keep."""

from types import MappingProxyType
from typing import Literal

import numpy as np
import numpy.typing as npt

from distributed_tuner.heads.base import Features, Head
from distributed_tuner.heads.bias import BiasHead
from distributed_tuner.maths.heads import fit_affine, log_softmax, without_each
from distributed_tuner.maths.losses import cross_entropy
from distributed_tuner.values import Array64

STRENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0)


class AffineHead(Head):
    """softmax(a * log softmax(m) + b), fitted with a penalty on |a - 1|^2 and |b|^2.

    Falls back to the bias alone unless the factors gain more than a standard error of the mean leave-one-out loss.

    Args:
        classes: W, the number of labels.
        strength: weight of the L2 penalty; "auto": of 0.01, 0.03, ..., 1, the one of least leave-one-out loss.

    Example:
        >>> import numpy as np
        >>> from distributed_tuner.heads.affine import AffineHead
        >>> features = np.log([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.5, 0.5]])
        >>> head = AffineHead(classes=2).fit(features, [0, 0, 1, 1])
        >>> head.predict(features).argmax(axis=1).tolist()
        [0, 0, 1, 1]
    """

    least_rows = 1
    shapes = MappingProxyType({"factor": "W", "bias": "W"})

    def __init__(self, classes: int, strength: float | Literal["auto"] = "auto") -> None:
        super().__init__(classes)
        self._strengths = STRENGTHS if strength == "auto" else (strength,)
        self._bias = BiasHead(classes)

    def _fit(self, x: Array64, y: npt.NDArray[np.int64], references: Features | None) -> dict[str, Array64]:
        strength, _ = self._chosen(x, y)
        if strength is None:
            bias = self._bias.fit(x, y).state_dict()["bias"]
            return {"factor": np.ones(self.classes), "bias": bias, "strength": np.zeros(1)}
        factor, bias = fit_affine(self._scores(x), y, strength)
        return {"factor": factor, "bias": bias, "strength": np.array([strength])}

    def _predict(self, x: Array64) -> Array64:
        return np.asarray(np.exp(log_softmax(self._fitted("factor") * self._scores(x) + self._fitted("bias"))))

    def _leave_one_out(self, x: Array64, y: npt.NDArray[np.int64], references: Features | None) -> Array64:
        return self._chosen(x, y)[1]

    def _scores(self, x: Array64) -> Array64:
        return log_softmax(x[:, : self.classes])

    def _chosen(self, x: Array64, y: npt.NDArray[np.int64]) -> tuple[float | None, Array64]:
        """Return the strength, None where the bias alone is as good, and each row's probabilities without it."""
        m, weights, rows = self._scores(x), without_each(len(x)), np.arange(len(x))
        outs: dict[float, Array64] = {}
        for strength in self._strengths:
            a, b = fit_affine(np.broadcast_to(m, (len(m), *m.shape)), y, strength, weights)
            outs[strength] = log_softmax(a * m + b)
        best = min(self._strengths, key=lambda s: float(cross_entropy(outs[s], y).mean()))
        plain = self._bias.leave_one_out(x, y)
        gains = outs[best][rows, y] - np.log(plain[rows, y])
        if len(gains) < 2 or gains.mean() <= gains.std(ddof=1) / len(gains) ** 0.5:
            return None, plain
        return best, np.asarray(np.exp(outs[best]))
