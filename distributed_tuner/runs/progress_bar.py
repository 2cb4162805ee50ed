"""Progress bar for Python programs, with callbacks; notes of the run become log messages."""

import logging
import sys
import warnings
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from distributed_tuner.callbacks import Callback, EndEvent, EvaluationEvent, RestartEvent, StepEvent
from distributed_tuner.config.space import TrialPlan
from distributed_tuner.ledger.rows import EvalRow, RestartRow, Row, StepRow

log = logging.getLogger(__name__)

WARNING = "warning: "


class Bar:
    """Shows the trials' queries and the best dev metric (an ``Observer``), and tells the callbacks.

    shown: whether there is a bar; None: in terminals and notebooks alone. metric: its name.
    """

    def __init__(
        self, plans: Sequence[TrialPlan], metric: str, callbacks: Sequence[Callback] = (), shown: bool | None = None
    ) -> None:
        budgets = [plan.experiment.budget.queries for plan in plans]
        self._total = None if None in budgets else sum(budget for budget in budgets if budget is not None)
        self._metric = metric
        self._callbacks = callbacks
        self._shown = _is_watched() if shown is None else shown
        self._progress: dict[str, dict[str, float]] = {}
        self._bar: Any = None

    def __enter__(self) -> Self:
        if self._shown:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of notebooks without widgets, where the bar is text
                from tqdm.auto import tqdm

                self._bar = tqdm(total=self._total, desc="tuning", unit="query", dynamic_ncols=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def note(self, message: str) -> None:
        if message.startswith(WARNING):
            log.warning("%s", message.removeprefix(WARNING))
        else:
            log.info("%s", message)

    def row(self, trial_id: str, row: Row) -> None:
        match row:
            case StepRow():
                step = StepEvent(
                    trial_id=trial_id,
                    stage=row.stage,
                    step=row.step,
                    loss=row.loss,
                    best_loss=row.best_loss,
                    queries=row.spent.queries,
                    elapsed=row.elapsed,
                    metrics=dict(row.metrics),
                )
                for callback in self._callbacks:
                    callback.on_step(step)
            case EvalRow():
                evaluation = EvaluationEvent(
                    trial_id=trial_id,
                    stage=row.stage,
                    step=row.step,
                    train_loss=row.train_loss,
                    dev_loss=row.dev_loss,
                    dev_metric=row.dev_metric,
                    selected=row.selected,
                    text=row.text,
                    queries=row.spent.queries,
                    elapsed=row.elapsed,
                )
                for callback in self._callbacks:
                    callback.on_evaluation(evaluation)
            case RestartRow():
                restart = RestartEvent(
                    trial_id=trial_id,
                    stage=row.stage,
                    adopted=row.adopted,
                    text=row.text,
                    scored=tuple((text.text, text.loss) for text in row.scored),
                    reason=row.reason,
                    queries=row.spent.queries,
                    elapsed=row.elapsed,
                )
                for callback in self._callbacks:
                    callback.on_restart(restart)

    def update(self, trial_id: str, progress: dict[str, float]) -> None:
        self._progress[trial_id] = progress
        if self._bar is not None:
            best = [one["dev_metric"] for one in self._progress.values() if one["dev_metric"] == one["dev_metric"]]
            if best:
                self._bar.set_postfix_str(f"best dev {self._metric} {max(best):.4f}", refresh=False)
            self._bar.update(int(sum(one["queries"] for one in self._progress.values())) - self._bar.n)

    def status(self, trial_id: str, status: str) -> None:
        if status == "running":
            return
        progress = self._progress.get(trial_id, {})
        event = EndEvent(trial_id, status, int(progress.get("queries", 0)), progress.get("elapsed", 0.0))
        for callback in self._callbacks:
            callback.on_end(event)


def _is_watched() -> bool:
    """Tell whether somebody sees a bar: in a terminal, or in a notebook."""
    shell = sys.modules.get("IPython")
    if shell is not None and getattr(shell.get_ipython(), "kernel", None) is not None:
        return True
    return sys.stderr is not None and sys.stderr.isatty()
