"""The cells of one method on one draw of one task: trials in this process, which go on from what is kept of them.

A run to a larger budget goes on from where the run to a smaller one stood before its last evaluation, so that both are
what runs of their own would be.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks.study.kept import Kept, Standing
from benchmarks.study.plan import Job
from benchmarks.study.rows import Row
from benchmarks.study.settings import ensemble_of
from benchmarks.study.untuned import Untuned
from distributed_tuner.config.budget import BudgetConfig
from distributed_tuner.config.experiment import Experiment
from distributed_tuner.config.stage import RestartStageConfig
from distributed_tuner.ledger.rows import EvalRow, MeasureRow
from distributed_tuner.ledger.rows import Row as LedgerRow
from distributed_tuner.oracles.base import LossOracle
from distributed_tuner.report.choice import Choice, weigh
from distributed_tuner.runs.final_scores import measure_ensemble
from distributed_tuner.runs.members import asked_members
from distributed_tuner.stages.trial import Trial

SAVED_EVERY = 30.0  # seconds


@dataclass(frozen=True, eq=False, slots=True)
class Ended:
    """A trial that has spent its budget. before: how it stood before what ended it. losses: of the selected prompt, of
    train and dev. measured: on test; None where no evaluation had a finite loss. ensemble: its members on test; None
    where the selected prompt alone is better."""

    trial: Trial
    before: Standing
    losses: tuple[float | None, ...]
    measured: MeasureRow | None
    ensemble: MeasureRow | None = None


def tuned_rows(job: Job, oracle: LossOracle, untuned: Untuned, kept: Kept) -> list[Row]:
    """Return the rows of all of a job's budgets, those that are kept left as they are."""
    rows = kept.rows()
    for budget in job.budgets:
        if budget not in {row.budget for row in rows}:
            ended = run_trial(job, budget, oracle, kept)
            rows = sorted([*rows, *_rows(job, budget, ended, untuned, oracle.info.dtype)], key=lambda row: row.budget)
            kept.write_rows(rows)
            kept.write_standing(budget, ended.before)
    if not job.goes_on:
        kept.forget_standing()
    return [row for row in rows if row.budget in job.budgets]


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
    return Ended(trial, before, losses, measured, _measured_ensemble(job, trial, oracle))


def _measured_ensemble(job: Job, trial: Trial, oracle: LossOracle) -> MeasureRow | None:
    """Score a trial's ensemble on test."""
    if not trial.ensemble or not job.plain_task.test:
        return None
    plan = job.prepared.plans[0]
    members = asked_members(job.prepared, plan, trial.screened, trial.ensemble)
    return measure_ensemble(oracle, members, job.split, trial.trial_id)


def _losses(rows: Sequence[LedgerRow], losses: tuple[float | None, ...]) -> tuple[float | None, ...]:
    """Return the losses of the prompt that is selected after these rows."""
    for row in rows:
        if isinstance(row, EvalRow) and row.selected:
            losses = tuple(row.losses)
    return losses


def _rows(job: Job, budget: int, ended: Ended, untuned: Untuned, dtype: str) -> list[Row]:
    """Return the row of the selected prompt, and that of the ensemble where the method has one."""
    row = _row(job, budget, ended, untuned, dtype)
    if job.experiment.ensemble is None:
        return [row]
    row_of_ensemble = replace(row, method=ensemble_of(job.method), test_label_words=None)
    if ended.ensemble is None:
        return [row, row_of_ensemble]
    metric = ended.ensemble.metric
    together = replace(
        row_of_ensemble,
        train_loss=None,
        score=None,
        dev_metric=None,
        test_metric=metric,
        p_value=None,
        returned="tuned",
        returned_metric=metric,
        members=len(ended.trial.ensemble),
    )
    return [row, together]


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
