"""Callbacks for programs: a typed event for each step, evaluation and restart while a prompt is tuned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class StepEvent:
    """One step of an optimizer.

    Attributes:
        trial_id: the trial.
        stage: the stage's number, from 0.
        step: the step's number in its stage, from 0.
        loss: mean of the candidates' finite losses; None where there was none.
        best_loss: the lowest of them.
        queries: queries that the trial has spent so far.
        elapsed: seconds since the trial's first query.
        metrics: the optimizer's own numbers, such as ``sigma`` or ``gradient_norm``.
    """

    trial_id: str
    stage: int
    step: int
    loss: float | None
    best_loss: float | None
    queries: int
    elapsed: float
    metrics: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EvaluationEvent:
    """The recommended prompt, scored on train and dev.

    Attributes:
        trial_id: the trial.
        stage: the stage's number, from 0.
        step: steps that the stage had made.
        train_loss: mean loss on train, read by the head.
        dev_loss: mean loss on dev.
        dev_metric: the task's first metric on dev, such as accuracy.
        selected: whether it is the trial's best prompt from here on.
        text: the prompt, where it is in words.
        queries: queries that the trial has spent so far.
        elapsed: seconds since the trial's first query.
    """

    trial_id: str
    stage: int
    step: int
    train_loss: float | None
    dev_loss: float | None
    dev_metric: float | None
    selected: bool
    text: str | None
    queries: int
    elapsed: float


@dataclass(frozen=True, slots=True)
class RestartEvent:
    """A restart stage has ended.

    Attributes:
        trial_id: the trial.
        stage: the stage's number, from 0.
        adopted: "proposal", "source_trial" or "none".
        text: the adopted prompt in words; empty where none was adopted.
        scored: the prompts that were scored, each with its loss (None where it failed).
        reason: why nothing was adopted; empty where something was.
        queries: queries that the trial has spent so far.
        elapsed: seconds since the trial's first query.
    """

    trial_id: str
    stage: int
    adopted: str
    text: str
    scored: Sequence[tuple[str, float | None]]
    reason: str
    queries: int
    elapsed: float


@dataclass(frozen=True, slots=True)
class EndEvent:
    """A trial has ended.

    Attributes:
        trial_id: the trial.
        status: "done", "stopped", "interrupted" or "failed".
        queries: queries that it has spent.
        elapsed: seconds since its first query.
    """

    trial_id: str
    status: str
    queries: int
    elapsed: float


class Callback:
    """Base class of callbacks: override what you want to hear of.

    Callbacks run in the calling process, between two steps. One that raises ``KeyboardInterrupt`` ends the run as
    Ctrl-C does: ``tune`` returns what there is. Any other exception ends it as an error.

    Example:
        >>> class StopEarly(Callback):
        ...     def on_evaluation(self, event):
        ...         if event.dev_metric is not None and event.dev_metric > 0.95:
        ...             raise KeyboardInterrupt
    """

    def on_step(self, event: StepEvent) -> None:
        """Hear of a step of an optimizer."""

    def on_evaluation(self, event: EvaluationEvent) -> None:
        """Hear of a recommended prompt that was scored on train and dev."""

    def on_restart(self, event: RestartEvent) -> None:
        """Hear of a restart stage that has ended."""

    def on_end(self, event: EndEvent) -> None:
        """Hear of a trial that has ended."""
