"""The list of runs: a line for each, as plain data."""

from collections.abc import Sequence
from typing import Any

from distributed_tuner.maths.intervals import wilson
from distributed_tuner.report import formatting
from distributed_tuner.report.trials import PENDING
from distributed_tuner.runs.recorded_config import Recorded, RecordedBudget
from distributed_tuner.watch.listed import Listed, ListedPrompt, ListedTrial
from distributed_tuner.watch.watched_run import Seen

STATES = {
    "starting": "no row yet",
    "running": "running",
    "done": "done",
    "stopped": "stopped, can be resumed",
    "failed": "failed",
    "silent": "silent",
}
"""What a state is called on the page."""
_LIVE = ("starting", "running", "silent")
_LEAST_SHARE = 0.02  # of a budget, before the time that is left is told
_ENDED = ("done", "stopped", "failed")


def cards(seen: Sequence[Seen]) -> dict[str, Any]:
    """Return the list, runs that are going on first."""
    ordered = sorted(seen, key=lambda one: (one.state not in _LIVE, one.run))
    return {"runs": [card(one) for one in ordered]}


def card(seen: Seen) -> dict[str, Any]:
    """Return the line of one run; numbers are spelled."""
    listed, config = seen.listed, seen.config
    metric, best = formatting.MetricWords(listed.best.metric), listed.found
    share = budget_share(listed.trials, config)
    return {
        "run": seen.run,
        "title": config.settings.name or seen.run or seen.address,
        "address": seen.address,
        **state(seen),
        "metric": metric.name,
        "dev": with_interval(metric, best.dev_metric, dev_interval(best, config)),
        "test": with_interval(metric, best.test_metric, best.test_interval),
        "best_trial": best.trial_id or "",
        "not_better": listed.best.tuned is not None,
        "share": share,
        "spent": spent(listed),
        "usd": formatting.money(listed.totals.usd),
        "queries": formatting.count(listed.totals.queries),
        "wall": formatting.duration(listed.totals.wall_seconds),
        "left": time_left(seen, share),
        "trials": trial_counts(listed.trials),
    }


def state(seen: Seen) -> dict[str, Any]:
    """Return how a run stands, and what is wrong with it."""
    said = STATES[seen.state]
    if seen.state == "silent" and seen.quiet is not None:
        said = f"silent for {formatting.duration(seen.quiet)}"
    if seen.share < 1:
        said = f"reading the ledger: {100 * seen.share:.0f} %"
    return {"state": seen.state, "state_words": said, "problem": seen.problem}


def dev_interval(best: ListedPrompt, config: Recorded) -> tuple[float, float] | None:
    """Return Wilson's 95 % interval of a dev accuracy; None of other metrics."""
    known, examples = best.dev_metric, config.task.dev
    if known is None or not examples or not 0 <= known <= 1 or best.metric != "accuracy":
        return None
    return wilson(known, examples)


def with_interval(
    metric: formatting.MetricWords, value: float | None, interval: tuple[float, float] | None
) -> dict[str, str]:
    """Return a metric and its interval, spelled; the interval is empty where there is none."""
    known = value is not None and interval is not None
    return {
        "value": metric.value(value),
        "interval": f"{metric.bare(interval[0])} to {metric.bare(interval[1])}" if known and interval else "",
    }


def budget_share(trials: Sequence[ListedTrial], config: Recorded) -> float | None:
    """Return the share of all trials' budgets that is spent, each by the limit that it is nearest to.

    A trial that has ended has no more to spend. None where no budget is recorded.
    """
    plans = config.trials
    if not plans or len(plans) != len(trials):
        return None
    budgets = [(plan.config.budget if plan.config else None) or config.settings.budget for plan in plans]
    if not any(budgets):
        return None
    shares = [trial_share(trial, budget) for trial, budget in zip(trials, budgets, strict=True)]
    return sum(shares) / len(shares)


def trial_share(trial: ListedTrial, budget: RecordedBudget | None) -> float:
    """Return the share of a trial's budget that is spent, from 0 to 1."""
    if trial.status in _ENDED:
        return 1.0
    if budget is None:
        return 0.0
    limits = [
        (trial.queries, budget.queries),
        (trial.forwards, budget.forwards),
        (trial.tokens, budget.tokens),
        (trial.wall_seconds, budget.seconds),
        (trial.usd, budget.usd),
    ]
    return min(1.0, max((spent / limit for spent, limit in limits if limit), default=0.0))


def spent(listed: Listed) -> str:
    """Return what the trials' budgets have paid for."""
    totals = listed.totals
    said = f"{formatting.count(totals.queries)} queries, {formatting.short_count(totals.tokens)} tokens"
    return f"{said}, {formatting.money(totals.usd)}" if totals.usd else said


def time_left(seen: Seen, share: float | None) -> str:
    """Return the time that is left at the rate so far; empty where that cannot be told."""
    if seen.state != "running" or share is None or not _LEAST_SHARE <= share < 1 or seen.share < 1:
        return ""
    return formatting.duration(seen.listed.totals.wall_seconds * (1 - share) / share)


def trial_counts(trials: Sequence[ListedTrial]) -> str:
    """Return how many trials there are in each status: "3 of 8 ended, 2 running"."""
    ended = sum(trial.status not in (PENDING, "unfinished") for trial in trials)
    going = sum(trial.status == "unfinished" for trial in trials)
    failed = sum(trial.status == "failed" for trial in trials)
    said = [f"{ended} of {len(trials)} ended"]
    if going:
        said.append(f"{going} under way")
    if failed:
        said.append(f"{failed} failed")
    return ", ".join(said)
