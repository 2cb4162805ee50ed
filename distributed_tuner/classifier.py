"""A classifier for scikit-learn: a frozen language model with a tuned prompt, behind fit and predict."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d, validate_data

from distributed_tuner.api import QUERIES, tune
from distributed_tuner.callbacks import Callback
from distributed_tuner.config.task import label_key
from distributed_tuner.python_messages import spelled_as_arguments
from distributed_tuner.values import Array64

LABEL = "label of the row"  # the column of labels, next to those of the texts


class PromptClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """Classifies texts with a frozen language model, whose prompt is tuned by ``fit``.

    A clone shares the model, which is never trained. Each label needs two rows at least; of a label with many rows,
    ``shots`` steer the search and as many select the prompt.

    Args:
        model: as of ``tune``: a hub id or directory, a (model, tokenizer) pair, an oracle's settings, or an oracle.
        tokenizer: of a transformers model that is handed in alone.
        label_words: label -> word that the model should say. None: the labels themselves.
        label_rule: as of ``tune``: ``"sum"`` or ``"mean"`` for label words of several tokens.
        template: a row as the model reads it; the column of a list of texts is ``text``, those of an array ``x0``,
            ``x1``, ... None: the columns, a line each, then ``Label:{label_word}``.
        instruction, shots, prompt, optimizer, head, objective, budget, settings, pool, callbacks: as of ``tune``.
        random_state: the seed of the split and of the search.
        progress: whether to show a progress bar. None: in terminals and notebooks.

    Attributes:
        classes_: the labels, sorted, shape (W,).
        result_: the ``Result`` of the last fit: prompt, head, history, report.
        n_features_in_: columns of a row; 1 of a list of texts.

    Example:
        >>> from distributed_tuner import Analytic, PromptClassifier
        >>> texts = ["a good film", "a good plot", "a bad film", "a bad plot"] * 4
        >>> classifier = PromptClassifier(Analytic(), budget=60).fit(texts, [1, 1, 0, 0] * 4)
        >>> classifier.predict_proba(["a good story"]).shape
        (1, 2)
    """

    def __init__(
        self,
        model: Any = "smollm2-135m",
        *,
        tokenizer: Any = None,
        label_words: Mapping[Any, str] | None = None,
        label_rule: str | None = None,
        template: str | None = None,
        instruction: str | None = None,
        shots: int | None = None,
        prompt: Any = None,
        optimizer: Any = None,
        head: Any = None,
        objective: Any = None,
        budget: Any = QUERIES,
        settings: Mapping[str, Any] | None = None,
        pool: Any = None,
        random_state: int | None = 0,
        progress: bool | None = False,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.label_words = label_words
        self.label_rule = label_rule
        self.template = template
        self.instruction = instruction
        self.shots = shots
        self.prompt = prompt
        self.optimizer = optimizer
        self.head = head
        self.objective = objective
        self.budget = budget
        self.settings = settings
        self.pool = pool
        self.random_state = random_state
        self.progress = progress
        self.callbacks = callbacks

    def fit(self, X: Any, y: Any) -> Self:
        """Tune a prompt on texts and their labels.

        Args:
            X: texts (N,), or rows of several columns: a DataFrame, or an array (N, columns).
            y: labels (N,).

        Raises:
            ValueError: there is one class, or a label has too few rows (``TaskError``).
        """
        rows = self._rows(X, y, reset=True)
        labels = column_or_1d(y, warn=True)
        check_classification_targets(labels)
        check_consistent_length(rows, labels)
        self.classes_ = np.unique(labels)
        if len(self.classes_) < 2:
            raise ValueError(
                f"a classifier needs rows of at least 2 classes, but all are of one class: {self.classes_[0]!r}"
            )
        data = [row | {LABEL: label} for row, label in zip(rows, labels.tolist(), strict=True)]
        named = ("label_words", "label_rule", "template", "instruction", "shots", "prompt", "optimizer", "head")
        shared = ("objective", "tokenizer", "budget", "settings", "pool", "progress", "callbacks")
        with spelled_as_arguments(seed="random_state"):
            self.result_ = tune(
                self.model,
                data,
                text=tuple(rows[0]),
                label=LABEL,
                seed=0 if self.random_state is None else self.random_state,
                **{name: getattr(self, name) for name in (*named, *shared)},
            )
        places = {label_key(label): place for place, label in enumerate(self.result_.labels)}
        self._order = [places[label_key(label)] for label in self.classes_.tolist()]
        return self

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Return the likeliest label of each row.

        Args:
            X: as of ``fit``.

        Returns:
            Labels (N,).

        Raises:
            NotFittedError: ``fit`` was not called.
            ValueError: the model could not answer a row.
        """
        likely = self.predict_proba(X)
        if not np.isfinite(likely).all():
            row = int(np.argmax(~np.isfinite(likely).all(axis=1)))
            raise ValueError(
                f"every row needs an answer of the model, but row {row} has none; take it out, or ask again"
            )
        found: npt.NDArray[Any] = self.classes_[np.argmax(likely, axis=1)]
        return found

    def predict_proba(self, X: Any) -> Array64:
        """Return label probabilities.

        Args:
            X: as of ``fit``.

        Returns:
            Probabilities (N, W), in the order of ``classes_``; NaN where the model could not answer.

        Raises:
            NotFittedError: ``fit`` was not called.
        """
        check_is_fitted(self, "result_")
        return self.result_.predict_proba(self._rows(X, reset=False))[:, self._order]

    def _rows(self, X: Any, y: Any = "no_validation", *, reset: bool) -> list[dict[str, Any]]:
        """Return rows as mappings of their columns. A list of texts has one column."""
        if not hasattr(X, "columns") and _is_text(X):
            texts = list(X)
            if reset:
                self.n_features_in_ = 1
                self.__dict__.pop("feature_names_in_", None)
            elif self.n_features_in_ != 1:
                raise ValueError(
                    f"X has 1 feature, a list of texts, but {type(self).__name__} is expecting {self.n_features_in_}"
                    " features as input"
                )
            return [{"text": text} for text in texts]
        cells = (
            validate_data(self, X, y, reset=reset, dtype=None)
            if reset
            else validate_data(self, X, reset=False, dtype=None)
        )
        rows = (cells[0] if isinstance(cells, tuple) else cells).tolist()
        names = getattr(self, "feature_names_in_", None)
        columns = [f"x{i}" for i in range(self.n_features_in_)] if names is None else [str(name) for name in names]
        return [dict(zip(columns, row, strict=True)) for row in rows]

    def __sklearn_clone__(self) -> Self:
        return type(self)(**self.get_params(deep=False))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.classifier_tags.poor_score = True  # of numbers, which a language model reads as words
        return tags


def _is_text(X: Any) -> bool:
    """Tell whether X is a list, an array or a series of texts."""
    if isinstance(X, str) or not hasattr(X, "__len__") or not hasattr(X, "__iter__"):
        return False
    if getattr(X, "ndim", 1) != 1:
        return False
    return len(X) > 0 and all(isinstance(text, str) for text in X)
