"""Sameness of two runs: everything in their ledgers that must not depend on machines, deaths or time."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from distributed_tuner import oracles
from distributed_tuner.ledger.reader import Ledger, collect
from distributed_tuner.ledger.rows import FeedbackRow, RestartRow, Row
from distributed_tuner.oracles.base import LossOracle
from distributed_tuner.oracles.codec import codec_of
from distributed_tuner.oracles.wrappers.tiled import TiledOracle
from distributed_tuner.preflight.prepare import prepare
from distributed_tuner.stages.trial import Trial


def run_without_ray(path: Path, proposers: Callable[[LossOracle], Any] | None = None) -> Ledger:
    """Run a space's trials one after the other in this process. ``proposers``: what gives trials theirs."""
    prepared = prepare(path, [])
    config = prepared.experiment.oracle
    oracle = TiledOracle(oracles.build(config), config.tile)
    prepared = prepared.with_answer_words(codec_of(oracle).answer_words)
    rows: list[Row] = []
    for plan, task in zip(prepared.plans, prepared.tasks, strict=True):
        asked = None if proposers is None else proposers(oracle)
        trial = Trial(plan.trial_id, plan.experiment, task, oracle, index=plan.index, proposers=asked)
        while not trial.done:
            rows.extend(trial.advance())
    return collect(rows)


def numbers(ledger: Ledger) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """Return everything of the trials' rows that must not depend on machines, deaths or interruptions, by its name."""
    steps = {
        ("step", r.trial_id, r.stage, r.step): (
            r.loss,
            r.best_loss,
            r.failed,
            r.metrics,
            _counts(r.cost),
            _counts(r.spent),
        )
        for r in ledger.steps
    }
    evaluations = {
        ("evaluation", r.trial_id, r.stage, r.step, r.screen): (
            r.train_loss,
            r.dev_loss,
            r.dev_metrics,
            r.score,
            r.selected,
            _counts(r.cost),
            _counts(r.spent),
        )
        for r in ledger.evaluations
    }
    told: list[FeedbackRow | RestartRow] = [*ledger.feedbacks, *ledger.restarts]
    restarts = {
        (r.type, r.trial_id, r.stage): (r.model_dump(exclude={"time", "elapsed", "cost", "spent"}), _counts(r.spent))
        for r in told
    }
    tests = {
        ("test", r.trial_id, r.split): (r.loss, r.metrics, _counts(r.cost))
        for r in ledger.measures
        if r.what == "selected"  # the driver measures the others
    }
    ensembles = {("ensemble", r.trial_id): (r.members, r.score, r.dev_metrics) for r in ledger.ensembles}
    return {**steps, **evaluations, **restarts, **tests, **ensembles}


def _counts(cost: Any) -> tuple[int, int, int]:
    return (cost.queries, cost.forwards, cost.tokens)
