"""The labels of the rows that were answered most alike (kNN prompting, 2303.13217)."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import numpy as np
import numpy.typing as npt

from distributed_tuner.errors import HeadError
from distributed_tuner.heads.base import Features, Head
from distributed_tuner.maths.heads import divergences, log_softmax, nearest_shares
from distributed_tuner.maths.losses import cross_entropy
from distributed_tuner.values import Array64

KS = (1, 3, 5, 7, 9)


class NeighboursHead(Head):
    """Shares of each label among the k rows of least divergence KL(new || known). k of least leave-one-out loss.

    Args:
        classes: W, the number of labels.
        neighbours: k; "auto": of 1, 3, ..., 9, the one of least leave-one-out loss.

    Example:
        >>> import numpy as np
        >>> from distributed_tuner.heads.neighbours import NeighboursHead
        >>> features = np.log([[0.5, 0.2, 0.3], [0.4, 0.2, 0.4], [0.5, 0.4, 0.1], [0.5, 0.45, 0.05]])
        >>> head = NeighboursHead(classes=2).fit(features, [0, 0, 1, 1])
        >>> head.predict(features).argmax(axis=1).tolist()
        [0, 0, 1, 1]
    """

    words_needed = True
    least_rows = 2
    shapes = MappingProxyType({"known": "NV", "labels": "N", "k": "1"})

    def __init__(self, classes: int, neighbours: int | Literal["auto"] = "auto") -> None:
        super().__init__(classes)
        self._ks = KS if neighbours == "auto" else (neighbours,)

    def load_state_dict(self, state: Mapping[str, Array64], words: int | None = None) -> None:
        super().load_state_dict(state, words)
        labels, k = self._state["labels"], self._state["k"][0]
        if not (np.isin(labels, range(self.classes)).all() and 1 <= k <= len(labels)):
            raise HeadError(
                f"a head of neighbours needs labels from 0 to {self.classes - 1} and a k from 1 to {len(labels)}, but"
                f" its file has others (k {k:g}); take the files of one run"
            )

    def _fit(self, x: Array64, y: npt.NDArray[np.int64], references: Features | None) -> dict[str, Array64]:
        k, _ = self._chosen(x, y)
        return {"known": log_softmax(x), "labels": y.astype(np.float64), "k": np.array([float(k)])}

    def _predict(self, x: Array64) -> Array64:
        labels = self._fitted("labels").astype(np.int64)
        return nearest_shares(divergences(x, self._fitted("known")), labels, self.classes, int(self._fitted("k")[0]))

    def _leave_one_out(self, x: Array64, y: npt.NDArray[np.int64], references: Features | None) -> Array64:
        return self._chosen(x, y)[1]

    def _chosen(self, x: Array64, y: npt.NDArray[np.int64]) -> tuple[int, Array64]:
        distances = divergences(x, x)
        np.fill_diagonal(distances, np.inf)  # a row is not its own neighbour
        outs = {k: nearest_shares(distances, y, self.classes, min(k, len(x) - 1)) for k in self._ks}
        k = min(self._ks, key=lambda k: float(cross_entropy(np.log(outs[k]), y).mean()))
        return k, outs[k]
