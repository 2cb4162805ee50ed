"""The contract of every head: fit, predict, leave one out, save and restore. It owns what a missing answer means.

Letters: E examples, V answer words of which the first W are the label words.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from distributed_tuner.custom import promised
from distributed_tuner.errors import HeadError, PartError
from distributed_tuner.values import Array64

Features = npt.NDArray[Any]
"""Scores (E, V) of answer words, log-probabilities up to a constant of the row; the label words come first."""


class Head(ABC):
    """Reads label probabilities from a model's answer features.

    **Missing answers.** A row with a feature that is not finite is a failed query: no fit sees it, and its
    probabilities are NaN.

    **State.** What was fitted is a few arrays, ``state_dict``; a head that is built alike and given them predicts the
    same bits.

    **A head of your own** (docs/extending.md) is a subclass that is made with the keyword argument ``classes`` (W),
    then its own settings. It calls ``super().__init__(classes)`` first, and writes ``_fit`` (rows (E, V) and labels
    (E,) into a dict of float64 arrays, the state), ``_predict`` (rows into probabilities (E, W), by
    ``self._fitted(name)``) and ``_leave_one_out`` (the probabilities (E, W) of each row by a head that was fitted to
    the others). ``shapes`` names the arrays that predicting needs, by the letters W, V, N and 1; ``words_needed`` asks
    for words in addition to the label words. A row's features are known up to a constant: nothing may depend on it.

    Example: a bias that repairs a wrong label prior.

    >>> import numpy as np
    >>> from distributed_tuner.config.head import BiasHeadConfig
    >>> from distributed_tuner.heads import build
    >>> features = np.array([[3.0, 0.0], [2.0, 0.0], [0.5, 0.0], [0.0, 0.0]])  # all for label 0, or undecided
    >>> head = build(BiasHeadConfig(kind="bias"), classes=2).fit(features, [0, 0, 1, 1])
    >>> head.predict(features).argmax(axis=1).tolist()
    [0, 0, 1, 1]
    """

    words_needed: ClassVar[bool] = False
    """Whether it reads words in addition to the label words."""
    least_rows: ClassVar[int] = 0
    """Rows of each class that a fit needs at least."""
    shapes: ClassVar[Mapping[str, str]] = {}
    """Of the arrays that predicting needs: W classes, V words, N rows, 1."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self._state: dict[str, Array64] = {}

    def fit(self, features: Features, labels: npt.ArrayLike, references: Features | None = None) -> Self:
        """Fit to labelled rows.

        Args:
            features: scores of the answer words, shape (E, V), log-probabilities up to a constant of the row.
            labels: label indices, shape (E,), from 0 to W - 1.
            references: answers (R, V) to texts without content, for heads that are fitted to these alone.

        Returns:
            The head itself.

        Raises:
            HeadError: there are too few rows of a class, or no references where they are needed.
        """
        x, y = self._rows(features, labels)
        with promised(f"the head {type(self).__name__}", "be fitted to answers"):
            state = self._fit(x, y, references)
            self._state = {name: np.asarray(value, dtype=np.float64) for name, value in state.items()}
        return self

    def predict(self, features: Features) -> Array64:
        """Predict label probabilities.

        Args:
            features: scores of the answer words, shape (E, V).

        Returns:
            Probabilities, shape (E, W), above 0, rows with sum 1; NaN in a row with a feature that is not finite.

        Raises:
            HeadError: the head is not fitted, or was fitted to rows of another width.
        """
        return self._of_finite(features, lambda x: self._predict(x))

    def leave_one_out(self, features: Features, labels: npt.ArrayLike, references: Features | None = None) -> Array64:
        """Predict each row by a head that is fitted to all others.

        Args:
            features: scores of the answer words, shape (E, V).
            labels: label indices, shape (E,).
            references: as in ``fit``.

        Returns:
            Probabilities, shape (E, W), as those of ``predict``.

        Raises:
            HeadError: as in ``fit``.
        """
        x, y = self._rows(features, labels)
        return self._of_finite(features, lambda _: self._leave_one_out(x, y, references))

    def state_dict(self) -> dict[str, Array64]:
        """Return what was fitted, as arrays; copies."""
        return {name: value.copy() for name, value in self._state.items()}

    def load_state_dict(self, state: Mapping[str, Array64], words: int | None = None) -> None:
        """Load the ``state_dict`` of a head with the same settings. ``words``: V, where it is known.

        Raises:
            HeadError: it is another head's.
        """
        self._state = {name: np.array(value, dtype=np.float64) for name, value in state.items()}
        sizes = {"1": 1, "W": self.classes} | ({} if words is None else {"V": words})
        for name, letters in self.shapes.items():
            array = self._state.get(name)
            if array is None or not _fits(array, letters, sizes):
                wanted = ", ".join(str(sizes.get(letter, letter)) for letter in letters)
                raise HeadError(
                    f"{type(self).__name__} needs {name!r}, finite numbers of shape ({wanted}), but its file has"
                    f" {'none' if array is None else f'an array of shape {array.shape}'}; take the files of one run"
                )

    # ------------------------------------------------------------------------------------------------ members' part
    @abstractmethod
    def _fit(self, x: Array64, y: npt.NDArray[np.int64], references: Features | None) -> dict[str, Array64]: ...

    @abstractmethod
    def _predict(self, x: Array64) -> Array64: ...

    @abstractmethod
    def _leave_one_out(self, x: Array64, y: npt.NDArray[np.int64], references: Features | None) -> Array64: ...

    def _fitted(self, name: str) -> Array64:
        if name not in self._state:
            raise HeadError(f"a head predicts once it is fitted, but {type(self).__name__} is not: call fit")
        return self._state[name]

    # ------------------------------------------------------------------------------------------------ parts
    def _rows(self, features: Features, labels: npt.ArrayLike) -> tuple[Array64, npt.NDArray[np.int64]]:
        """Return the rows that are whole, with their labels; enough of each class."""
        x, y = np.asarray(features, dtype=np.float64), np.asarray(labels, dtype=np.int64)
        if x.ndim != 2 or len(x) != len(y) or x.shape[1] < self.classes:
            raise HeadError(
                f"a head is fitted to a row of at least {self.classes} features for each label, but got features of"
                f" shape {x.shape} and {len(y)} labels"
            )
        if len(y) and (y.min() < 0 or y.max() >= self.classes):
            raise HeadError(f"labels must be in [0, {self.classes}), got {y.min()}..{y.max()}")
        whole = np.asarray(np.isfinite(x).all(axis=1))
        x, y = x[whole], y[whole]
        counts = np.bincount(y, minlength=self.classes)
        if counts.min() < self.least_rows:
            raise HeadError(
                f"this head needs {self.least_rows} answered rows of every label, but label {int(counts.argmin())} has"
                f" {int(counts.min())} (of {len(whole)} rows, {int((~whole).sum())} without an answer); give more"
                " shots, or choose head: label_words"
            )
        return x, y

    def _of_finite(self, features: Features, read: Any) -> Array64:
        """Return probabilities of the rows that are whole, NaN for the others."""
        x = np.asarray(features, dtype=np.float64)
        whole = np.isfinite(x).all(axis=1)
        found = np.full((len(x), self.classes), np.nan)
        if whole.any():
            with promised(f"the head {type(self).__name__}", "read answers"):
                chances = np.asarray(read(x[whole]), dtype=np.float64)
            if chances.shape != (int(whole.sum()), self.classes):
                raise PartError(
                    f"a head gives every row a probability for each of {self.classes} labels, but"
                    f" {type(self).__name__} gave {int(whole.sum())} rows an array of shape {chances.shape}; mend it"
                    " there, or choose another"
                )
            found[whole] = chances
        return found


def _fits(array: Array64, letters: str, sizes: dict[str, int]) -> bool:
    """Tell whether an array is whole and has a shape; ``sizes`` takes in what its letters stand for."""
    if array.ndim != len(letters) or not np.isfinite(array).all():
        return False
    return all(sizes.setdefault(letter, size) == size for letter, size in zip(letters, array.shape, strict=True))
