"""One run: what its page shows, as plain data in sections. Texts of models and users are data, cut and never markup."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from distributed_tuner.ledger.curve import MOST
from distributed_tuner.ledger.digest import TrialDigest
from distributed_tuner.report import figure_data, formatting
from distributed_tuner.report.restarts import best_proposal
from distributed_tuner.values import Array64
from distributed_tuner.watch.cards import card
from distributed_tuner.watch.story import Story
from distributed_tuner.watch.watched_run import Seen

MOST_TRIALS = 200
"""Trials that are listed: those under way, then the best."""
SPARKS = 40
"""Points of a trial's small curve."""
_TEXT, _LETTER = 300, 4000  # characters of a text in a line, and of an instruction or answer
_THINNED = (
    f"Curves hold at most {MOST} points a trial: of longer ones the older neighbours are put together, of losses the"
    f" last and of metrics the best is kept. A trial's small curve shows {SPARKS} of these points."
)
_ADOPTED = {"proposal": "adopted a proposal", "source_trial": "took another's prompt", "none": "kept its prompt"}
_DIGITS = 6  # of a number in a curve


def run_page(seen: Seen) -> dict[str, Any]:
    """Return the sections of a run's page."""
    story, summary = seen.story, seen.summary
    assert story is not None
    return {
        "head": _head(seen, story),
        "curves": {"plots": curves(story, summary), "rule": _THINNED},
        "trials": _trials(story, summary),
        "restarts": [_restart(row) for row in reversed(story.last_restarts)],
        "answers": [_answer(row) for row in reversed(story.last_answers)],
        "warnings": _warnings(seen, story),
        "log": [line._asdict() for line in reversed(story.lines(seen.config.metric))],
    }


def curves(story: Story, summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the figures that have something to show."""
    metric = formatting.MetricWords(summary["best"]["metric"])
    drawn = [
        ("dev", f"Highest dev {metric.name} so far", figure_data.dev_metric_data(story, summary, "queries")),
        ("loss", "Train loss of the recommended prompt", figure_data.train_loss_data(story, summary, "queries")),
        ("time", f"Highest dev {metric.name} against time", figure_data.dev_metric_data(story, summary, "seconds")),
        ("candidates", "Candidate losses, as the optimizer sees them", figure_data.candidate_loss_data(story, summary)),
    ]
    return [{"id": name, "title": title, **curve_data(data)} for name, title, data in drawn if data.bands]


def curve_data(data: figure_data.Curves) -> dict[str, Any]:
    """Return lines with bands as lists of numbers."""
    return {
        "x_title": data.x_title,
        "y_title": data.y_title,
        "lines": [
            {
                "name": name,
                "x": rounded(one.x),
                "y": rounded(one.mean),
                "low": rounded(one.low) if one.trials > 1 else [],
                "high": rounded(one.high) if one.trials > 1 else [],
            }
            for name, one in data.bands
        ],
        "marks": [[list(map(float, mark)) for mark in marks] for _, marks in data.marks],
        "level": data.manual,
    }


def rounded(values: Sequence[float] | Array64) -> list[float]:
    """Return numbers with as many digits as a picture shows."""
    return [float(f"{value:.{_DIGITS}g}") for value in values]


def _head(seen: Seen, story: Story) -> dict[str, Any]:
    config, beat, totals = seen.config, seen.beat, seen.summary["totals"]
    running = seen.state == "running"
    return card(seen) | {
        "task": config.task.name or "",
        "model": str(config.model.get("model") or ""),
        "command": config.command,
        "resume": f"python tune.py run --out {_quoted(seen.address)} --resume" if seen.state == "stopped" else "",
        "workers": None if beat is None or not running else beat.workers,
        "busy": None if beat is None or not running else beat.busy,
        "waiting": None if beat is None or not running else beat.waiting,
        "busy_share": _busy_share(seen, story),
        "forwards": formatting.short_count(totals["forwards"]),
        "tokens": formatting.short_count(totals["tokens"]),
        "restarts": totals["restarts"],
        "restarts_adopted": totals["restarts_adopted"],
        "proposer_calls": totals["proposer_calls"],
        "proposer_usd": formatting.money(totals["proposer_usd"]),
        "baseline": formatting.MetricWords(config.metric).value(
            seen.summary["baseline"]["manual_prompt_with_head"]["dev_metric"]
        ),
        "text": formatting.one_line(seen.summary["best"]["text"] or "", _TEXT),
    }


def _quoted(address: str) -> str:
    import shlex

    return shlex.quote(address)


def _busy_share(seen: Seen, story: Story) -> str:
    """Return the share of the time in which oracles computed, of the session so far; empty where it is unknown."""
    workers = seen.beat.workers if seen.beat else None
    session = story.sessions[-1] if story.sessions else None
    if not workers or session is None or session.wall_seconds <= 0:
        return ""
    return f"{min(100.0, 100 * session.oracle_busy_seconds / (workers * session.wall_seconds)):.0f} %"


def _trials(story: Story, summary: Mapping[str, Any]) -> dict[str, Any]:
    metric = formatting.MetricWords(summary["best"]["metric"])
    lines = summary["trials"]
    ordered = sorted(lines, key=lambda line: (line["status"] != "unfinished", -_merit(line)))
    return {
        "lines": [_trial(line, story, metric, summary["best"]["trial_id"]) for line in ordered[:MOST_TRIALS]],
        "left_out": max(0, len(lines) - MOST_TRIALS),
    }


def _merit(line: Mapping[str, Any]) -> float:
    return float("-inf") if line["dev_metric"] is None else float(line["dev_metric"])


def _trial(line: Mapping[str, Any], story: Story, metric: formatting.MetricWords, best: str | None) -> dict[str, Any]:
    name = line["trial_id"]
    status = "running" if line["status"] == "unfinished" else line["status"]
    return {
        "trial": name,
        "method": line["method"],
        "drawn": list(formatting.settings(line["drawn"])),
        "status": status,
        "reason": formatting.one_line(line["reason"], _TEXT),
        "dev": metric.bare(line["dev_metric"]),
        "test": metric.bare(line["test_metric"]),
        "loss": formatting.loss(line["train_loss"]),
        "queries": formatting.count(line["queries"]),
        "wall": formatting.duration(line["wall_seconds"]),
        "usd": formatting.money(line["usd"]),
        "restarts": f"{line['restarts_adopted']} of {line['restarts']}" if line["restarts"] else "",
        "text": formatting.one_line(line["text"] or "", _TEXT),
        "spark": _spark(story.trials.get(name)),
        "best": name == best,
    }


def _spark(trial: TrialDigest | None) -> list[list[float]]:
    """Return the train loss of a trial's recommended prompts, [queries, loss] each."""
    if trial is None:
        return []
    points = trial.evaluations.columns("queries", "train_loss")
    points = points[~np.isnan(points[:, 1])]
    if len(points) > SPARKS:
        points = points[np.unique(np.linspace(0, len(points) - 1, SPARKS).round().astype(int))]
    return [rounded(point) for point in points]


def _restart(row: Any) -> dict[str, Any]:
    best = best_proposal(row)
    return {
        "time": row.time,
        "trial": row.trial_id,
        "stage": row.stage,
        "queries": formatting.count(row.spent.queries),
        "adopted": row.adopted,
        "adopted_words": _ADOPTED[row.adopted],
        "source": row.source_trial or "",
        "incumbent_loss": formatting.loss(row.incumbent_loss),
        "loss": formatting.loss(best.loss if best else None),
        "text": formatting.one_line(row.text or (best.text if best else ""), _TEXT),
        "reason": formatting.one_line(row.reason, _TEXT),
    }


def _answer(row: Any) -> dict[str, Any]:
    return {
        "time": row.time,
        "trial": row.trial_id,
        "stage": "screen" if row.screen else f"stage {row.stage}",
        "proposer": formatting.one_line(row.proposer, 80),
        "problem": formatting.one_line(row.problem, _TEXT),
        "instruction": row.instruction[:_LETTER],
        "answer": row.answer[:_LETTER],
        "cut": max(0, len(row.answer) - _LETTER),
        "texts": [formatting.one_line(text, _TEXT) for text in row.texts[:20]],
    }


def _warnings(seen: Seen, story: Story) -> list[str]:
    told = [*story.data_warnings]
    told += [f"{event.trial_id or 'run'}: {event.message}" for event in story.warnings.values()]
    if seen.problem:
        told.insert(0, seen.problem)
    return [formatting.one_line(text, 500) for text in told[-50:]]
