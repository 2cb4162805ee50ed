"""``summary.json``: the numbers of a run for machines. Tables and figures for people are left to the other pages."""

import json
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from distributed_tuner.ledger.digest import Digest
from distributed_tuner.ledger.rows import CostRow, MeasureRow
from distributed_tuner.maths.intervals import wilson
from distributed_tuner.report.choice import Choice, choose, untuned
from distributed_tuner.report.trials import PENDING, UNFINISHED, TrialSummary, best_trial, summarize_trials
from distributed_tuner.runs.recorded_config import Recorded
from distributed_tuner.storage.files import write_text
from distributed_tuner.values import Cost


def summarize(digest: Digest, config: Mapping[str, Any] | Recorded) -> dict[str, Any]:
    """Return the summary of a run, ready for JSON.

    ``config`` is the run's resolved config; each of its keys may be missing. Scores that were never measured are None.
    ``status`` is the last run_end's, or "unfinished" when there is none. ``totals`` count what the trials' budgets
    paid for; ``totals.measurement`` is what test scores, the manual prompt, the calibration and the sanity check cost
    on top. ``totals.counts`` are what else the oracles' answers told, by name, such as ``cached_forwards``.
    ``queries_saved`` and ``forwards_saved`` are what racing left unasked; None for trials that were not raced.
    ``best`` is what the run returns: ``kept`` says whether that is the best trial's prompt or the manual one, because
    the paired test's ``p_value`` was above ``significance``; ``tuned`` is the best trial's own then, and ``trial_id``
    the trial that it was weighed against.
    ``ensemble`` is what the trial's best prompts come to that are read together, None where there is none: how many
    ``members``, ``score`` (loss by cross-validation over train and dev), dev and test, and what ``a_row`` of test takes
    beside the ``single`` prompt. It is measured on test for the best trial of every split.
    ``test_interval`` is the 95 % interval of a test accuracy or share of exact matches, of one test set; None
    of other metrics.
    ``text`` is a prompt in words, None for a soft one; ``template`` and ``label_words`` are those that a screen found
    instead of the task's. ``usd`` includes ``proposer_usd``, which no budget pays for:
    what requests to proposers cost (``proposer_calls``, ``proposer_failures`` of which had no usable answer;
    ``proposals_cut`` proposals were longer than the prompt). ``restarts`` are restart stages, ``restarts_adopted``
    those that ended with another prompt. Means and standard deviations (n - 1; None below two trials) of
    ``methods`` leave failed trials out.
    """
    config = Recorded.of(config)
    trials = summarize_trials(digest, config)
    metric = config.metric
    best = best_trial(trials)
    within = _Intervals(metric, config.task.test)
    return {
        "status": digest.end.status if digest.end else UNFINISHED,
        "best": within.added(_best(best, choose(best, digest, config), digest, config, metric, within))
        | {"ensemble": _ensemble(best, digest, config, within)},
        "baseline": {
            what: within.added(_baseline(digest, what))
            for what in ("manual_prompt", "manual_prompt_with_head", "bag_of_words")
        },
        "totals": _totals(digest, trials),
        "methods": [_method(name, trials) for name in _methods(trials)],
        "trials": [
            within.added(_trial(trial)) | {"ensemble": _ensemble(trial, digest, config, within)} for trial in trials
        ],
    }


def write_summary(path: Path | str, summary: Mapping[str, Any]) -> None:
    """Write ``summary`` to ``path`` as JSON, so that a reader sees the old file or the new one and never half of it."""
    write_text(Path(path), json.dumps(summary, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


class _Intervals:
    """Says how sure test accuracies, and shares of exact matches, are: Wilson's 95 % interval of one test set of
    ``examples`` rows."""

    def __init__(self, metric: str, examples: int | None) -> None:
        self._examples = (examples or 0) if metric in ("accuracy", "exact_match") else 0

    def added(self, line: dict[str, Any]) -> dict[str, Any]:
        """Return a line with ``test_interval``, [low, high]; None where there is none."""
        known = line.get("test_metric")
        interval = list(wilson(known, self._examples)) if self._examples and known is not None else None
        return line | {"test_interval": interval}


def _best(
    trial: TrialSummary | None,
    choice: Choice,
    digest: Digest,
    config: Recorded,
    metric: str,
    within: _Intervals,
) -> dict[str, Any]:
    """Return the prompt that the run returns. Where it is the manual one, ``tuned`` is the best trial's own."""
    tuned = {
        "trial_id": trial.trial_id if trial else None,
        "method": trial.method if trial else None,
        "train_loss": trial.train_loss if trial else None,
        "dev_loss": trial.dev_loss if trial else None,
        "dev_metric": trial.dev_metric if trial else None,
        "test_metric": trial.test_metric if trial else None,
        "test_metric_label_words": trial.test_metric_label_words if trial else None,
        "metric": metric,
        "text": trial.text if trial else None,
        **_wording(trial, digest),
    }
    about = {
        "kept": choice.kept,
        "p_value": choice.p_value,
        "significance": choice.level,
        "head": config.settings.head.kind if config.settings.head else "label_words",
    }
    if choice.kept == "tuned" or trial is None:
        return tuned | about | {"tuned": None}
    dev, test = (untuned(digest, split, trial.split_seed) for split in ("dev", "test"))
    manual = {
        "method": "manual prompt",
        "train_loss": None,
        "dev_loss": dev.loss if dev else None,
        "dev_metric": dev.metric if dev else None,
        "test_metric": test.metric if test else None,
        "test_metric_label_words": test.label_words_metric if test else None,
        "text": None,
        **_wording(None, digest),
    }
    return tuned | manual | about | {"tuned": within.added(tuned)}


def _ensemble(
    trial: TrialSummary | None, digest: Digest, config: Recorded, within: _Intervals
) -> dict[str, Any] | None:
    """Return what a trial's prompts are worth that are best read together; None where its best is alone."""
    found = next((row for row in digest.ensembles if trial is not None and row.trial_id == trial.trial_id), None)
    if trial is None or found is None or not found.members:
        return None
    tests = {row.what: row for row in digest.measures if row.trial_id == trial.trial_id and row.split == "test"}
    test, single = tests.get("ensemble"), tests.get("selected")
    return within.added(
        {
            "members": found.members,
            "score": found.score,
            "dev_loss": found.dev_loss,
            "dev_metric": found.dev_metric,
            "test_loss": test.loss if test else None,
            "test_metric": test.metric if test else None,
            "a_row": _a_row(test, config.task.test),
            "single": _a_row(single, config.task.test),
        }
    )


def _a_row(test: MeasureRow | None, rows: int | None) -> dict[str, float] | None:
    """Return what reading one row of test took; None where it was not measured, or answered from a cache."""
    if test is None or not rows or not test.cost.forwards:
        return None
    return {"forwards": test.cost.forwards / rows, "tokens": test.cost.tokens / rows}


def _wording(trial: TrialSummary | None, digest: Digest) -> dict[str, Any]:
    """Return the template and the label words that a trial's screen found instead of the task's; None where it found
    none."""
    found = next((row for row in digest.screens if trial is not None and row.trial_id == trial.trial_id), None)
    template, words = (found.template, found.label_words) if found else ("", [])
    return {"template": template or None, "label_words": words or None}


def _baseline(digest: Digest, what: str) -> dict[str, Any]:
    """Average a baseline over the splits of different seeds. ``queries``: what fitting took; testing is left out."""
    rows = [row for row in digest.measures if row.what == what]
    splits = len({row.split_seed for row in rows})
    fitting = [
        row.cost.queries for row in digest.measures if row.what.startswith("manual_prompt") and row.split == "dev"
    ]
    queries = {"manual_prompt": 0, "bag_of_words": 0}.get(what, round(sum(fitting) / max(1, splits)))
    return {
        "dev_metric": mean(row.metric for row in rows if row.split == "dev"),
        "test_metric": mean(row.metric for row in rows if row.split == "test"),
        "queries": queries,
    }


def _totals(digest: Digest, trials: list[TrialSummary]) -> dict[str, Any]:
    spent = sum((trial.spent.value() for trial in trials), Cost())
    costs = [
        row.cost for rows in (digest.measures, digest.calibrations, digest.parities, digest.layouts) for row in rows
    ]
    measured = sum((cost.value() for cost in costs), Cost())
    ends = [session.end for session in digest.sessions if session.end]
    return {
        "queries": spent.queries,
        "forwards": spent.forwards,
        "tokens": spent.tokens,
        "queries_saved": sum(trial.queries_saved or 0 for trial in trials),
        "forwards_saved": sum(trial.forwards_saved or 0 for trial in trials),
        **_proposing(digest),
        "restarts": sum(trial.restarts for trial in trials),
        "restarts_adopted": sum(trial.restarts_adopted for trial in trials),
        "usd": spent.usd + sum(trial.proposer_usd for trial in trials),
        "wall_seconds": sum(session.wall_seconds for session in digest.sessions),
        "oracle_busy_seconds": sum(session.oracle_busy_seconds for session in digest.sessions),
        "oracle_busy_fraction": _busy_fraction(digest),
        "oracle_actors": max((end.oracle_actors for end in ends), default=None),
        "tiles": sum(end.tiles for end in ends),
        "retries": sum(end.retries for end in ends),
        "counts": dict(sum((Counter(end.counts) for end in ends), Counter[str]())),
        "failed_candidates": sum(trial.failed for trial in trials),
        "measurement": CostRow.of(measured).model_dump(),
    }


def _proposing(digest: Digest) -> dict[str, Any]:
    rows = digest.calls
    return {
        "proposer_calls": len(rows),
        "proposals_cut": sum(row.cut for row in rows),
        "proposer_failures": sum(row.problem != "" for row in rows),
        "proposer_input_tokens": sum(row.input_tokens for row in rows),
        "proposer_output_tokens": sum(row.output_tokens for row in rows),
        "proposer_seconds": sum(row.seconds for row in rows),
        "proposer_usd": sum(row.usd for row in rows),
    }


def _busy_fraction(digest: Digest) -> float | None:
    """Return busy seconds over (actors x wall seconds) of the sessions that ended; None when none tells."""
    ends = [session.end for session in digest.sessions if session.end]
    available = sum(end.oracle_actors * end.wall_seconds for end in ends)
    return sum(end.oracle_busy_seconds for end in ends) / available if available > 0 else None


def _methods(trials: list[TrialSummary]) -> list[str]:
    return list(dict.fromkeys(trial.method for trial in trials if trial.status != PENDING))


def _method(name: str, trials: list[TrialSummary]) -> dict[str, Any]:
    mine = [trial for trial in trials if trial.method == name and trial.status != PENDING]
    counted = [trial for trial in mine if trial.counts]
    return {
        "method": name,
        "trials": len(mine),
        "failed": sum(trial.status == "failed" for trial in mine),
        "dev_metric_mean": mean(trial.dev_metric for trial in counted),
        "dev_metric_std": spread(trial.dev_metric for trial in counted),
        "test_metric_mean": mean(trial.test_metric for trial in counted),
        "test_metric_std": spread(trial.test_metric for trial in counted),
        "train_loss_mean": mean(trial.train_loss for trial in counted),
        "queries_mean": mean(trial.spent.queries for trial in counted),
        "queries_saved_mean": mean(trial.queries_saved for trial in counted),
        "proposer_calls_mean": mean(trial.proposer_calls for trial in counted),
        "restarts_mean": mean(trial.restarts for trial in counted),
        "restarts_adopted_mean": mean(trial.restarts_adopted for trial in counted),
        "wall_seconds_mean": mean(trial.wall_seconds for trial in counted),
    }


def _trial(trial: TrialSummary) -> dict[str, Any]:
    return {
        "trial_id": trial.trial_id,
        "method": trial.method,
        "seed": trial.seed,
        "split_seed": trial.split_seed,
        "drawn": dict(trial.drawn),
        "config": dict(trial.config),
        "train_loss": trial.train_loss,
        "dev_loss": trial.dev_loss,
        "dev_metric": trial.dev_metric,
        "test_metric": trial.test_metric,
        "test_metric_label_words": trial.test_metric_label_words,
        "score": trial.score,
        "text": trial.text,
        "queries": trial.spent.queries,
        "forwards": trial.spent.forwards,
        "tokens": trial.spent.tokens,
        "queries_saved": trial.queries_saved,
        "forwards_saved": trial.forwards_saved,
        "proposer_calls": trial.proposer_calls,
        "proposer_usd": trial.proposer_usd,
        "restarts": trial.restarts,
        "restarts_adopted": trial.restarts_adopted,
        "usd": trial.spent.usd + trial.proposer_usd,
        "wall_seconds": trial.wall_seconds,
        "failed_candidates": trial.failed,
        "tied_loss": trial.tied,
        "status": trial.status,
        "reason": trial.reason,
    }


def mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of the known values; None when there is none."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def spread(values: Iterable[float | None]) -> float | None:
    """Return the standard deviation (n - 1) of the known values; None below two."""
    known = [value for value in values if value is not None]
    return statistics.stdev(known) if len(known) > 1 else None
