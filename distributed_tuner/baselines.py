"""Baselines that need no model: a bag of words on the same rows. No tuned prompt should be below it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from distributed_tuner.tasks.base import Task
from distributed_tuner.tasks.metrics import score
from distributed_tuner.values import Example, Split

STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0)  # C of the logistic regression
FOLDS = 5


def bag_of_words(task: Task, on: Sequence[Split] = ("train", "dev")) -> Any:
    """Return a logistic regression on the words of the texts, fitted to some splits; its strength by cross-validation.

    An sklearn pipeline from texts to label indices. Where a label has a single row, C is 1.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.pipeline import make_pipeline

    examples = [example for split in on for example in task.examples(split)]
    labels = [example.label for example in examples]
    words = TfidfVectorizer(lowercase=True, token_pattern=r"(?u)\b\w+\b", sublinear_tf=True)
    model = make_pipeline(words, LogisticRegression(max_iter=1000))
    folds = min(FOLDS, int(np.bincount(labels)[np.unique(labels)].min()))
    if folds < 2:
        return model.fit(_texts(examples), labels)
    shuffled = StratifiedKFold(folds, shuffle=True, random_state=0)
    search = GridSearchCV(model, {"logisticregression__C": STRENGTHS}, cv=shuffled)
    return search.fit(_texts(examples), labels)


def bag_of_words_scores(task: Task, split: Split, on: Sequence[Split] = ("train", "dev")) -> dict[str, float]:
    """Return the task's metrics of a bag of words on a split. Of texts without a word the commonest label is predicted.

    On dev the bag is fitted to train alone.
    """
    fitted_to = [one for one in on if one != split]
    examples = task.examples(split)
    labels = np.array([example.label for example in examples])
    return score(task.metrics, _predicted(task, fitted_to, examples), labels)


def _predicted(task: Task, on: Sequence[Split], examples: Sequence[Example]) -> npt.NDArray[np.int64]:
    try:
        return np.asarray(bag_of_words(task, on).predict(_texts(examples)), dtype=np.int64)
    except ValueError:  # no text has a word, or there is one label
        known = [example.label for split in on for example in task.examples(split)]
        return np.full(len(examples), int(np.bincount(known).argmax()))


def _texts(examples: Sequence[Example]) -> list[str]:
    return [example.text for example in examples]
