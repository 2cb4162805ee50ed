"""The ensemble of a trial: the best of the prompts that it has evaluated, each with its head, read together."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from distributed_tuner.ledger.rows import EnsembleRow, Row
from distributed_tuner.maths.heads import mean_log_probabilities
from distributed_tuner.oracles.base import labels_of
from distributed_tuner.stages.reading import BOTH, Read, losses_of, predicted
from distributed_tuner.tasks.base import Task
from distributed_tuner.tasks.metrics import score
from distributed_tuner.values import Array, Array64, Candidate


@dataclass(frozen=True, eq=False, slots=True)
class Member:
    """A prompt that was evaluated: its rows (L, D) or its words, its wording, and what reads it.

    score: as of ``Read``. out: label probabilities (N, W) of train and dev, as of ``Read``. head: what was fitted.
    """

    prompt: Array | str
    template: str
    label_words: tuple[str, ...]
    score: float
    train_loss: float
    dev_loss: float
    dev_metric: float
    out: Array64
    head: Mapping[str, Array64]

    @property
    def scores(self) -> dict[str, float | None]:
        """Its own scores, as in an exported prompt."""
        found = {"train_loss": self.train_loss, "dev_loss": self.dev_loss, "dev_metric": self.dev_metric}
        return {**{name: one if math.isfinite(one) else None for name, one in found.items()}, "test_metric": None}

    @property
    def is_whole(self) -> bool:
        """Tell whether the parts are of their kinds, as of one that was read from a file."""
        rows = isinstance(self.prompt, np.ndarray) and self.prompt.ndim == 2
        words = isinstance(self.template, str) and isinstance(self.label_words, tuple)
        fit = isinstance(self.head, dict) and all(isinstance(one, np.ndarray) for one in self.head.values())
        return (rows or isinstance(self.prompt, str)) and words and fit


@dataclass(frozen=True, slots=True)
class Together:
    """Score of an ensemble. loss: mean over the rows that any member predicts."""

    loss: float
    metrics: dict[str, float]


class Archive:
    """The best prompts of a trial's looks, ``size`` at most, and which of them are the ensemble.

    ``kept``: gives what is kept of a candidate. Size 0: nothing is.
    """

    def __init__(self, size: int, kept: Callable[[Candidate], Array | str]) -> None:
        self._size = size
        self._kept = kept
        self._members: tuple[Member, ...] = ()
        self.chosen: tuple[Member, ...] = ()
        """The ensemble, best first; none where the best prompt alone is better."""
        self._told: tuple[Member, ...] = ()

    def offer(self, candidate: Candidate, task: Task, read: Read) -> None:
        """Take in a prompt that was evaluated, where it is one of the best and none that is here already."""
        full = len(self._members) >= self._size
        if not math.isfinite(read.score) or (full and (not self._size or read.score >= self._members[-1].score)):
            return
        if any(np.array_equal(one.out, read.out, equal_nan=True) for one in self._members):  # the same prompt again
            return
        member = Member(
            self._kept(candidate),
            task.template,
            task.label_words,
            read.score,
            read.train_loss,
            read.dev_loss,
            read.dev_metrics.get(task.metric, math.nan),
            read.out,
            dict(read.state),
        )
        best = sorted((*self._members, member), key=lambda one: one.score)
        self._members = tuple(best[: self._size])
        chosen = self._members[: size_of_least_loss([one.out for one in self._members], _labels(task))]
        chosen = chosen if len(chosen) > 1 else ()
        if chosen != self.chosen:
            self.chosen = chosen

    def news(self, trial_id: str, task: Task) -> list[Row]:
        """Return the ledger row of the ensemble if it has changed since the last row."""
        chosen, told = self.chosen, self._told
        self._told = chosen
        if chosen is told or not (chosen or told):
            return []
        if not chosen:
            return [EnsembleRow(trial_id=trial_id, members=0)]
        labels, rows = _labels(task), len(task.train)
        known = _known(chosen[0].out)
        both = read_together([one.out[known] for one in chosen], labels[known], task.metrics)
        dev = read_together([one.out[rows:] for one in chosen], labels[rows:], task.metrics)
        return [
            EnsembleRow(
                trial_id=trial_id,
                members=len(chosen),
                score=both.loss,
                dev_loss=dev.loss,
                dev_metric=dev.metrics[task.metric],
                dev_metrics=dev.metrics,
            )
        ]

    def state_dict(self) -> dict[str, Any]:
        """Return the members, and how many of them are the ensemble."""
        return {"members": self._members, "chosen": len(self.chosen)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the archive."""
        self._members = tuple(state["members"])
        self.chosen = self._told = chosen_of(state)


def chosen_of(state: Mapping[str, Any]) -> tuple[Member, ...]:
    """Return the ensemble of an archive's ``state_dict``."""
    return tuple(state["members"])[: state["chosen"]]


def _labels(task: Task) -> npt.NDArray[np.int64]:
    """Return the labels of train and dev, in that order."""
    return np.concatenate([labels_of(task.batch(split)) for split in BOTH])


def _known(out: Array64) -> npt.NDArray[np.bool_]:
    """Return the mask (N,) of rows that a member predicts: those that its prompt does not show."""
    return np.asarray(np.isfinite(out).all(axis=-1))


def size_of_least_loss(outs: Sequence[Array64], labels: npt.NDArray[np.int64]) -> int:
    """Return the number of first members with the lowest joint loss, on the rows that the first one predicts."""
    rows = _known(outs[0])
    found = [
        float(losses_of(mean_log_probabilities(np.stack(outs[:count])[:, rows]), labels[rows]).mean())
        for count in range(1, len(outs) + 1)
    ]
    return 1 + int(np.argmin(found))


def read_together(chances: Sequence[Array64], labels: npt.NDArray[np.int64], metrics: Sequence[str]) -> Together:
    """Read the label probabilities (E, W) of several prompts as one.

    A row without an answer of some member, such as one that stands in its prompt, is read by the others; a row without
    any answer counts as wrong and has no loss.
    """
    joined = mean_log_probabilities(np.stack(chances))
    losses = losses_of(joined, labels)
    told = np.isfinite(losses)
    loss = float(losses[told].mean()) if told.any() else math.nan
    return Together(loss, score(metrics, predicted(joined, labels), labels))
