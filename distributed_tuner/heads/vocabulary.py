"""A small linear model on many words' scores: what else the model would have liked to say tells the label as well."""

from types import MappingProxyType
from typing import Literal

import numpy as np
import numpy.typing as npt

from distributed_tuner.heads.base import Features, Head
from distributed_tuner.maths.heads import fit_ridge, log_softmax, standard, unstandardised
from distributed_tuner.values import Array64

STRENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
LABEL_SHARE = 0.1  # of the kernel, for the label words among themselves: their part must not shrink as V grows


class VocabularyHead(Head):
    """Ridge regression of one-hot labels on standardised features, its scores scaled to log-odds.

    What it has fitted is one matrix: scores(x) = x @ weights + intercept of the features as they come. Strength and
    scale are those of least leave-one-out loss; both are closed forms or a table, so that a fit on some hundred rows
    takes milliseconds whatever V is.

    Args:
        classes: W, the number of labels.
        strength: weight of the L2 penalty; "auto": of 0.01, 0.03, ..., 30, the one of least leave-one-out loss.

    Example:
        >>> import numpy as np
        >>> from distributed_tuner.heads.vocabulary import VocabularyHead
        >>> features = np.log([[0.5, 0.2, 0.3], [0.4, 0.2, 0.4], [0.5, 0.4, 0.1], [0.5, 0.45, 0.05]])
        >>> head = VocabularyHead(classes=2).fit(features, [0, 0, 1, 1])
        >>> head.predict(features).argmax(axis=1).tolist()
        [0, 0, 1, 1]
    """

    words_needed = True
    least_rows = 2
    shapes = MappingProxyType({"weights": "VW", "intercept": "W"})

    def __init__(self, classes: int, strength: float | Literal["auto"] = "auto") -> None:
        super().__init__(classes)
        self._strengths = STRENGTHS if strength == "auto" else (strength,)

    def _fit(self, x: Array64, y: npt.NDArray[np.int64], references: Features | None) -> dict[str, Array64]:
        parts = self._parts(x)
        ridge = fit_ridge(_joined(x, parts), y, self.classes, self._strengths)
        weights, intercept, at = np.zeros((x.shape[1], self.classes)), ridge.intercept, 0
        for words, share in parts:
            found, moved = unstandardised(share * ridge.weights[at : at + words], standard(x[:, :words]))
            weights[:words] += found
            intercept, at = intercept + moved, at + words
        return {"weights": weights, "intercept": intercept, "strength": np.array([ridge.strength])}

    def _predict(self, x: Array64) -> Array64:
        return np.asarray(np.exp(log_softmax(x @ self._fitted("weights") + self._fitted("intercept"))))

    def _leave_one_out(self, x: Array64, y: npt.NDArray[np.int64], references: Features | None) -> Array64:
        ridge = fit_ridge(_joined(x, self._parts(x)), y, self.classes, self._strengths)
        return np.asarray(np.exp(log_softmax(ridge.out)))

    def _parts(self, x: Array64) -> list[tuple[int, float]]:
        """Return what the regression sees, as how many of the first words, and how much they are scaled: all words, and
        the label words among themselves."""
        words, labels = x.shape[1], self.classes
        columns = words + labels
        return [
            (words, float(np.sqrt((1 - LABEL_SHARE) * columns / words))),
            (labels, float(np.sqrt(LABEL_SHARE * columns / labels))),
        ]


def _joined(x: Array64, parts: list[tuple[int, float]]) -> Array64:
    return np.concatenate([share * standard(x[:, :words]).of(x[:, :words]) for words, share in parts], axis=1)
