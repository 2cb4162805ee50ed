"""The cells of one method on one draw of one task: trials in this process, which go on from what is kept of them.

A run to a larger budget goes on from where the run to a smaller one stood before its last evaluation, so that both are
what runs of their own would be.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.study.kept import Kept, Standing
from benchmarks.study.plan import Job
from benchmarks.study.rows import Row
from benchmarks.study.untuned import Untuned
from distributed_tuner.config.budget import BudgetConfig
from distributed_tuner.config.experiment import Experiment
from distributed_tuner.config.stage import RestartStageConfig
from distributed_tuner.ledger.rows import EvalRow, MeasureRow
from distributed_tuner.ledger.rows import Row as LedgerRow
from distributed_tuner.oracles.base import LossOracle
from distributed_tuner.report.choice import Choice, weigh
from distributed_tuner.stages.trial import Trial

SAVED_EVERY = 30.0  # seconds


@dataclass(frozen=True, eq=False, slots=True)
class Ended:
    """A trial that has spent its budget. before: how it stood before what ended it. losses: of the selected prompt, of
    train and dev. measured: on test; None where no evaluation had a finite loss."""

    trial: Trial
    before: Standing
    losses: tuple[float | None, ...]
    measured: MeasureRow | None


def tuned_rows(job: Job, oracle: LossOracle, untuned: Untuned, kept: Kept) -> list[Row]:
    """Return the rows of all of a job's budgets, those that are kept left as they are."""
    rows = {row.budget: row for row in kept.rows()}
    for budget in job.budgets:
        if budget not in rows:
            ended = run_trial(job, budget, oracle, kept)
            rows[budget] = _row(job, budget, ended, untuned, oracle.info.dtype)
            kept.write_rows([rows[known] for known in sorted(rows)])
            kept.write_standing(budget, ended.before)
    if not job.goes_on:
        kept.forget_standing()
    return [rows[budget] for budget in job.budgets]


def run_trial(job: Job, budget: int, oracle: LossOracle, kept: Kept) -> Ended:
    """Run a trial to one budget, from where it or a smaller one is known to have stood."""
    task = job.prepared.tasks[0]
    experiment = job.experiment.model_copy(update={"budget": BudgetConfig(queries=budget)})
    trial = Trial(job.name, experiment, task, oracle, index=job.split)
    losses: tuple[float | None, ...] = ()
    known = kept.standing()
    if known is not None and known[0] <= budget:
        trial.load_state_dict(known[1].state)
        losses = known[1].losses
    before = now = Standing.of(trial.state_dict(), losses)
    measured, saved = None, time.monotonic()
    while not trial.done:
        before, now = now, Standing.of(trial.state_dict(), losses)
        rows = trial.advance()
        losses = _losses(rows, losses)
        measured = next((row for row in rows if isinstance(row, MeasureRow)), measured)
        if time.monotonic() - saved > SAVED_EVERY and not trial.done:
            kept.write_standing(budget, now)
            saved = time.monotonic()
    return Ended(trial, before, losses, measured)


def _losses(rows: Sequence[LedgerRow], losses: tuple[float | None, ...]) -> tuple[float | None, ...]:
    """Return the losses of the prompt that is selected after these rows."""
    for row in rows:
        if isinstance(row, EvalRow) and row.selected:
            losses = tuple(row.losses)
    return losses


def _row(job: Job, budget: int, ended: Ended, untuned: Untuned, dtype: str) -> Row:
    task, best, spent, measured = job.plain_task, ended.trial.selected, ended.trial.progress(), ended.measured
    choice = _choice(job.experiment, len(task.dev), ended, untuned)
    tuned = None if measured is None else measured.metric
    return Row(
        task=job.task,
        method=job.method,
        shots=job.shots,
        split=job.split,
        budget=budget,
        queries=int(spent["queries"]),
        forwards=int(spent["forwards"]),
        tokens=int(spent["tokens"]),
        seconds=round(spent["elapsed"], 1),
        train_loss=None if best is None else _finite(best.train_loss),
        score=None if best is None else _finite(best.score),
        dev_metric=None if best is None else _finite(best.dev_metric),
        test_metric=tuned,
        test_label_words=None if measured is None else measured.label_words_metric,
        p_value=None if choice.p_value is None else _finite(choice.p_value),
        returned="tuned" if choice.kept == "tuned" else "manual",
        returned_metric=tuned if choice.kept == "tuned" else untuned.test_metric,
        test_rows=len(task.test),
        metric=task.metric,
        dtype=dtype,
    )


def _choice(experiment: Experiment, dev_rows: int, ended: Ended, untuned: Untuned) -> Choice:
    """Return what a run of this experiment would return, as the report has it."""
    if ended.measured is None:
        return Choice("manual_prompt")
    stages = [stage for stage in experiment.stages if not isinstance(stage, RestartStageConfig)]
    by_score = all(stage.select == "cross_validation" for stage in stages)
    if experiment.significance is None or not by_score or untuned.test_metric is None:
        return Choice("tuned")
    return weigh(untuned.dev_losses(dev_rows), ended.losses[-dev_rows:], experiment.significance)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
