"""Metrics of generated texts. Higher is better; those of one row lie in [0, 1].

A metric of a row is averaged over a set. One of a whole set (chrF, and functions of the user's) is computed over it. A
metric that raises or returns no number gives NaN, and a problem that names the example.
"""

import functools
import importlib.util
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distributed_tuner.config.task import CustomMetricConfig, MetricConfig, metric_name
from distributed_tuner.custom import imported, raised
from distributed_tuner.errors import ConfigError, TaskError
from distributed_tuner.maths.jackknife import pseudo_values
from distributed_tuner.maths.text_overlap import rouge_l, token_f1
from distributed_tuner.tasks.base import Task
from distributed_tuner.values import Array64, Example

OfRow = Callable[[str, str], float]
OfSet = Callable[[list[str], list[str], list[str]], float]


def exact_match(prediction: str, target: str) -> float:
    """Return 1 where both are the same text, 0 else."""
    return float(prediction == target)


def chrf(predictions: list[str], targets: list[str], inputs: list[str]) -> float:
    """Return chrF of a corpus, character 6-grams with beta 2, in [0, 1] (Popovic 2015), as sacrebleu computes it."""
    from sacrebleu.metrics.chrf import CHRF

    return float(CHRF().corpus_score(predictions, [targets]).score) / 100


ROW_METRICS: Mapping[str, OfRow] = {"exact_match": exact_match, "token_f1": token_f1, "rouge_l": rouge_l}
SET_METRICS: Mapping[str, OfSet] = {"chrf": chrf}
TEXT_METRICS = (*ROW_METRICS, *SET_METRICS)
DEFAULT_TEXT_METRICS: tuple[MetricConfig, ...] = ("exact_match", "token_f1")


@dataclass(frozen=True, slots=True)
class Value:
    """A metric of a set; NaN where it could not be computed, and the problem in words."""

    value: float
    problem: str = ""


class TextMetrics:
    """Metrics of a task with targets, the one that selects first.

    Raises:
        ConfigError: one of the user's cannot be imported.
    """

    def __init__(self, metrics: Sequence[MetricConfig]) -> None:
        self._names = tuple(map(metric_name, metrics))
        own = [metric for metric in metrics if isinstance(metric, CustomMetricConfig)]
        self._own: dict[str, OfSet] = {metric.class_name: _function(metric) for metric in own}

    @property
    def first_is_of_rows(self) -> bool:
        """Whether the metric that selects is the mean of its values of single rows."""
        return self._names[0] in ROW_METRICS

    def first(self, texts: Sequence[str | None], examples: Sequence[Example]) -> Value:
        """Return the metric that selects, of a set. A text that is None, a failed answer, counts as empty."""
        return self._of_set(self._names[0], texts, examples)

    def scores(self, texts: Sequence[str | None], examples: Sequence[Example]) -> dict[str, float]:
        """Return all metrics of a set by their names."""
        return {name: self._of_set(name, texts, examples).value for name in self._names}

    def row_losses(self, texts: Sequence[str | None], examples: Sequence[Example]) -> Array64:
        """Return 1 minus the metric that selects for each row, (E,): of a whole set's its pseudo-values."""
        name = self._names[0]
        if name in ROW_METRICS:
            return 1.0 - self._of_rows(name, texts, examples)
        rows = range(len(examples))
        if len(rows) < 2:
            return np.full(len(rows), 1.0 - self.first(texts, examples).value)
        without = [
            self._of_set(name, [texts[j] for j in rows if j != i], [examples[j] for j in rows if j != i]).value
            for i in rows
        ]
        return 1.0 - pseudo_values(self.first(texts, examples).value, np.array(without))

    def worst(self, texts: Sequence[str | None], examples: Sequence[Example], most: int) -> list[int]:
        """Return places of at most so many rows whose texts are not right, the worst first: by the metric that selects,
        or by their words where that is of whole sets."""
        name = self._names[0] if self.first_is_of_rows else "token_f1"
        values = self._of_rows(name, texts, examples)
        return [int(i) for i in np.argsort(values, kind="stable") if values[i] < 1][:most]

    # ------------------------------------------------------------------------------------------------ parts
    def _of_rows(self, name: str, texts: Sequence[str | None], examples: Sequence[Example]) -> Array64:
        pairs = zip(texts, examples, strict=True)
        return np.array([ROW_METRICS[name](_bare(text), _bare(example.target)) for text, example in pairs])

    def _of_set(self, name: str, texts: Sequence[str | None], examples: Sequence[Example]) -> Value:
        if not examples:
            raise TaskError("a score needs one example at least, but there is none")
        if name in ROW_METRICS:
            return Value(float(self._of_rows(name, texts, examples).mean()))
        found = _called(self._function(name), texts, examples)
        if isinstance(found, float):
            return Value(found)
        alone = ((e, _called(self._function(name), [text], [e])) for text, e in zip(texts, examples, strict=True))
        at = next((f" of example {e.name} ({why})" for e, why in alone if isinstance(why, str)), "")
        return Value(math.nan, f"the metric {name}{at or f' ({found})'} could not be computed")

    def _function(self, name: str) -> OfSet:
        return self._own[name] if name in self._own else SET_METRICS[name]


def require_metrics(task: Task) -> None:
    """Try a task's metrics on its own targets, as if they had been generated.

    Raises:
        ConfigError: one cannot be imported, raises, or returns no number; chrF lacks its package.
    """
    if "chrf" in task.metrics and importlib.util.find_spec("sacrebleu") is None:
        raise ConfigError(
            "task.metric: chrf is computed by the package sacrebleu, which this Python does not have; pip install"
            " 'distributed-prompt-tuner[metrics]', or choose another metric"
        )
    own = [metric for metric in task.text_metrics if isinstance(metric, CustomMetricConfig)]
    functions = {metric.class_name: _function(metric) for metric in own}
    targets = [example.target for example in task.train]
    for name, function in functions.items():
        found = _called(function, targets, task.train)
        if isinstance(found, str):
            raise ConfigError(
                f"a metric takes (predictions, targets, inputs), lists of texts, and returns a number, but {name} of"
                f" train's own targets gives none: {found}; mend it there"
            )


def _called(function: OfSet, texts: Sequence[str | None], examples: Sequence[Example]) -> float | str:
    """Return a metric of a set, or why there is none."""
    try:
        found: Any = function(
            [_bare(text) for text in texts], [_bare(e.target) for e in examples], [e.text for e in examples]
        )
        value = float(found)
    except Exception as error:
        return raised(error)
    return value if math.isfinite(value) else f"it returned {found!r}, which is no finite number"


def _function(metric: CustomMetricConfig) -> OfSet:
    return functools.partial(imported(metric), **metric.settings)


def _bare(text: str | None) -> str:
    """Return a text without the spaces around it."""
    return "" if text is None else text.strip()
