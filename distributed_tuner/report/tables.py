"""The rows of the report's tables, already spelled. Laying them out is left to the template, numbers to `summary`."""

import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from distributed_tuner.ledger.digest import Digest
from distributed_tuner.report import formatting, significance
from distributed_tuner.report.shown_trials import IN_TABLE, shown_trials
from distributed_tuner.runs.recorded_config import Recorded, RecordedBudget


class Headline(NamedTuple):
    """The first thing to read. ``outcome`` colours it: better, tie, worse, unmeasured."""

    sentence: str
    verdict: str
    outcome: significance.Outcome


class Tile(NamedTuple):
    """One large number with its name and a note."""

    label: str
    value: str
    note: str


class Cell(NamedTuple):
    """Text and sort key of a table cell. ``parts`` are shown instead of the text, each kept on one line."""

    text: str
    key: float | str
    parts: tuple[str, ...] = ()


class MethodLine(NamedTuple):
    """Averages of one method over its trials; the manual prompt is a line of its own."""

    method: str
    trials: str
    dev: str
    test: str
    train_loss: str
    queries: str
    wall: str
    adopted: str
    calls: str
    best: bool
    baseline: bool = False


class TrialLine(NamedTuple):
    """One trial."""

    cells: tuple[Cell, ...]
    status: str
    reason: str
    best: bool


class CostLine(NamedTuple):
    """One kind of cost: what a trial may spend, what one spent at most, what all spent, and measuring on top."""

    kind: str
    limit: str
    most: str
    total: str
    measurement: str


class EventLine(NamedTuple):
    """One event, ``when`` counted from the start of the run."""

    when: str
    trial: str
    kind: str
    message: str


TRIAL_COLUMNS = ("Trial", "Method", "Seed", "Split", "Drawn", "Train loss", "Dev", "Test", "Queries", "Tokens", "Time")
_SAVED_AT = TRIAL_COLUMNS.index("Queries") + 1
_COSTS = (
    ("queries", "Queries", formatting.count),
    ("forwards", "Forwards", formatting.count),
    ("tokens", "Tokens", formatting.count),
    ("seconds", "Wall clock", formatting.duration),
    ("usd", "US dollars", formatting.money),
)
_COUNTS = {
    "absent_examples": "Examples without a label word among the top logprobs",
    "absent_labels": "Label words absent from the top logprobs",
    "cache_failures": "Caches that could not be used",
    "cached_forwards": "Forwards answered from the cache",
    "cut_answers": "Answers that the server ended before their tokens were used up",
    "failed_answers": "Answers in words that failed",
    "refused_examples": "Forwards that the server refused",
    "short_answers": "Answers without a label word, and of fewer tokens than were asked for",
    "unmatched_answers": "Answers that name no label word",
    "unusable_answers": "Answers without scores or a text",
}


def headline(summary: Mapping[str, Any], config: Recorded) -> Headline:
    """Return what the run found, in two sentences."""
    best = summary["best"]
    name, manual = significance.reference(summary)
    metric = formatting.MetricWords(best["metric"])
    nothing = significance.nothing_learnt(summary)
    if nothing and best["trial_id"] is None:
        return Headline(nothing, "No trial has scored a prompt on dev.", "unmeasured")
    if best["trial_id"] is None:
        return Headline("No prompt has been selected yet.", "No trial has scored a prompt on dev.", "unmeasured")
    weighed = significance.weigh(summary, config)
    trial = next(trial for trial in summary["trials"] if trial["trial_id"] == best["trial_id"])
    tuned = best.get("tuned") or best
    scores = (
        f"{metric.name} {metric.value(tuned['dev_metric'])} on dev and {metric.value(tuned['test_metric'])} on test"
    )
    against = f"{metric.value(manual['dev_metric'])} and {metric.value(manual['test_metric'])} for {name}"
    price = f"{formatting.count(trial['queries'])} queries and {formatting.duration(trial['wall_seconds'])}"
    if nothing:
        return Headline(
            f"{nothing} The best prompt has {scores}, against {against}.", significance.sentence(weighed, metric), "tie"
        )
    if best.get("kept") == "manual_prompt":
        text = (
            f"Tuning is not shown to have helped, so the run returns {name}: the best tuned prompt, by"
            f" {tuned['method']}, has {scores}, against {against}, for {price}; on dev, row by row, p ="
            f" {best['p_value']:.2g} where {best['significance']:g} is asked for."
        )
        return Headline(
            text, significance.sentence(weighed, metric), "tie" if weighed.outcome == "better" else weighed.outcome
        )
    text = f"The best prompt is by {best['method']}: {scores}, against {against}, for {price}."
    return Headline(text, significance.sentence(weighed, metric) + _below_bag(summary, metric), weighed.outcome)


def _below_bag(summary: Mapping[str, Any], metric: formatting.MetricWords) -> str:
    """Return a warning where a bag of words without any model is as good; nothing where it is not."""
    bag = (summary["baseline"].get("bag_of_words") or {}).get("test_metric")
    best = summary["best"]["test_metric"]
    if bag is None or best is None or best > bag:
        return ""
    return f" A bag of words on the same rows, without any model, has {metric.value(bag)}: the model adds nothing here."


def tiles(summary: Mapping[str, Any], config: Recorded) -> list[Tile]:
    """Return the large numbers under the headline."""
    best, totals = summary["best"], summary["totals"]
    metric = formatting.MetricWords(best["metric"])
    name, manual = significance.reference(summary)
    examples = config.task.test
    size = f" on {examples:,} examples" if examples else ""
    busy = totals["oracle_busy_fraction"]
    actors = totals["oracle_actors"]
    return [
        Tile(f"Test {metric.name}", metric.value(best["test_metric"]), f"best{size}"),
        Tile(_label(name), metric.value(manual["test_metric"]), f"test {metric.name}"),
        Tile(
            "Queries", formatting.short_count(totals["queries"]), f"{formatting.short_count(totals['tokens'])} tokens"
        ),
        Tile("Wall clock", formatting.duration(totals["wall_seconds"]), _trials_note(summary)),
        Tile(
            "Oracles busy",
            formatting.UNKNOWN if busy is None else f"{100 * busy:.0f} %",
            f"{formatting.duration(totals['oracle_busy_seconds'])}" + (f" on {_actors(actors)}" if actors else ""),
        ),
        Tile("Cost", formatting.money(totals["usd"]), _cost_note(totals)),
    ]


def method_lines(summary: Mapping[str, Any]) -> list[MethodLine]:
    """Return the baselines, then the methods by falling dev metric, then what the best prompts come to together."""
    metric = formatting.MetricWords(summary["best"]["metric"])
    best = summary["best"]["method"]
    first = [
        _baseline_line(
            formatting.BASELINES[name], line, metric, best == "manual prompt" and name == "manual_prompt_with_head"
        )
        for name, line in summary["baseline"].items()
        if name == "manual_prompt" or line["test_metric"] is not None or line["dev_metric"] is not None
    ]
    ranked = sorted(summary["methods"], key=lambda line: -_number(line["dev_metric_mean"]))
    together = summary["best"].get("ensemble")
    last = [] if together is None else [_ensemble_line(together, metric)]
    return [*first, *(_method_line(line, metric, best) for line in ranked), *last]


def _ensemble_line(line: Mapping[str, Any], metric: formatting.MetricWords) -> MethodLine:
    none = formatting.UNKNOWN
    dev, test = metric.bare(line["dev_metric"]), metric.bare(line["test_metric"])
    return MethodLine(formatting.ensemble(line), none, dev, test, none, none, none, none, none, False, True)


def _baseline_line(name: str, line: Mapping[str, Any], metric: formatting.MetricWords, best: bool) -> MethodLine:
    none = formatting.UNKNOWN
    dev, test = metric.bare(line["dev_metric"]), metric.bare(line["test_metric"])
    return MethodLine(
        name, none, dev, test, none, formatting.count(line.get("queries", 0)), none, none, none, best, True
    )


def _label(name: str) -> str:
    """Return the name of what a prompt is weighed against as a tile's label."""
    return "Manual, same head" if "head" in name else "Manual prompt"


def trial_columns(summary: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the columns of the trials' table: `TRIAL_COLUMNS`, and "Saved" after the queries where one was raced."""
    return (*TRIAL_COLUMNS[:_SAVED_AT], "Saved", *TRIAL_COLUMNS[_SAVED_AT:]) if _raced(summary) else TRIAL_COLUMNS


def trial_lines(summary: Mapping[str, Any]) -> list[TrialLine]:
    """Return the trials in their order, of very many those with the best dev metric; cells follow `trial_columns`."""
    metric = formatting.MetricWords(summary["best"]["metric"])
    raced, best = _raced(summary), summary["best"]["trial_id"]
    return [_trial_line(trial, metric, best, raced) for trial in shown_trials(summary["trials"], best, IN_TABLE)]


def cost_lines(summary: Mapping[str, Any], config: Recorded) -> list[CostLine]:
    """Return one line a kind of cost. Limits hold for every trial by itself; measuring is not bought from them."""
    budget = config.settings.budget or RecordedBudget()
    totals, lines = summary["totals"], []
    for name, label, spell in _COSTS:
        # A budget of seconds is one of wall-clock time, as a user waits for it; measuring knows device time alone.
        field = "wall_seconds" if name == "seconds" else name
        most = max((_budgeted(trial, field) for trial in summary["trials"]), default=None)
        limit = getattr(budget, name)
        lines.append(
            CostLine(
                label,
                "none" if limit is None else spell(limit),
                spell(most),
                spell(_budgeted(totals, field)),
                spell(totals["measurement"][name]) + (" of device time" if name == "seconds" else ""),
            )
        )
    if totals["proposer_calls"]:
        lines += _proposer_lines(summary, config)
    return [*lines, *_count_lines(totals["counts"])]


def calibration(digest: Digest) -> str | None:
    """Return what the calibration of precision found, at its worst; None where there was none."""
    if not digest.calibrations:
        return None
    worst = min(digest.calibrations, key=lambda row: math.inf if row.snr is None else row.snr)
    ratio = "no rounding noise" if worst.snr is None else f"signal-to-noise {worst.snr:.2g}"
    swamped = worst.snr is not None and worst.snr < worst.limit
    outcome = f"below {worst.limit:g}, so {worst.used}" if swamped else "passed"
    return f"{worst.where}: {ratio}, {outcome}"


def event_lines(digest: Digest) -> list[EventLine]:
    """Return the events in the order they happened, what the sanity check noted, and settings that surveys measured."""
    start = digest.sessions[0].first if digest.sessions else 0.0
    noted = [
        *((row.time, row.trial_id or "", row.kind.replace("_", " "), row.message) for row in digest.events),
        *((row.time, "", "parity", row.note) for row in digest.parities if row.note),
        *((row.time, row.trial_id, "survey", formatting.survey(row)) for row in digest.surveys),
        *((row.time, row.trial_id, "screen", formatting.screen(row)) for row in digest.screens),
    ]
    return [
        EventLine(formatting.duration(max(0.0, at - start)), *line) for at, *line in sorted(noted, key=lambda n: n[0])
    ]


def _budgeted(costs: Mapping[str, Any], field: str) -> Any:
    """Return a cost as far as a budget pays for it: dollars without those for proposers."""
    return costs["usd"] - costs["proposer_usd"] if field == "usd" else costs[field]


def _count_lines(counts: Mapping[str, int]) -> list[CostLine]:
    """Return the counts in the oracles' answers, for trials and measurement together."""
    unknown = formatting.UNKNOWN
    return [
        CostLine(
            _COUNTS.get(name, name.replace("_", " ").capitalize()), unknown, unknown, formatting.count(number), unknown
        )
        for name, number in sorted(counts.items())
    ]


def _proposer_lines(summary: Mapping[str, Any], config: Recorded) -> list[CostLine]:
    """Return the cost of proposers, which have their own limits outside the budgets."""
    lines = []
    for name, field, label, spell in (
        ("calls", "proposer_calls", "Requests to proposers", formatting.count),
        ("usd", "proposer_usd", "US dollars for proposers", formatting.money),
    ):
        settings = [trial.config for trial in config.trials if trial.config is not None]
        proposers = [proposer for one in settings for proposer in one.proposers]
        limits = {getattr(proposer, name) for proposer in proposers}
        limit = limits.pop() if len(limits) == 1 else None
        most = max(trial[field] for trial in summary["trials"])
        shown = "varies" if limits else "none" if limit is None else spell(limit)
        lines.append(CostLine(label, shown, spell(most), spell(summary["totals"][field]), formatting.UNKNOWN))
    return lines


def _method_line(line: Mapping[str, Any], metric: formatting.MetricWords, best: str | None) -> MethodLine:
    failed = f" ({line['failed']} failed)" if line["failed"] else ""
    none = formatting.UNKNOWN
    return MethodLine(
        method=line["method"],
        trials=f"{line['trials']}{failed}",
        dev=metric.bare(line["dev_metric_mean"], line["dev_metric_std"]),
        test=metric.bare(line["test_metric_mean"], line["test_metric_std"]),
        train_loss=formatting.loss(line["train_loss_mean"]),
        queries=formatting.count(line["queries_mean"]),
        wall=formatting.duration(line["wall_seconds_mean"]),
        adopted=f"{line['restarts_adopted_mean']:.3g} of {line['restarts_mean']:.3g}"
        if line["restarts_mean"]
        else none,
        calls=f"{line['proposer_calls_mean']:.3g}" if line["restarts_mean"] else none,
        best=line["method"] == best,
    )


def _raced(summary: Mapping[str, Any]) -> bool:
    return any(trial["queries_saved"] is not None for trial in summary["trials"])


def _trial_line(trial: Mapping[str, Any], metric: formatting.MetricWords, best: str | None, raced: bool) -> TrialLine:
    drawn = formatting.settings(trial["drawn"])
    cells: tuple[Cell, ...] = (
        Cell(trial["trial_id"], trial["trial_id"]),
        Cell(trial["method"], trial["method"]),
        Cell(_shown(trial["seed"]), _number(trial["seed"])),
        Cell(_shown(trial["split_seed"]), _number(trial["split_seed"])),
        Cell(formatting.UNKNOWN, ", ".join(drawn), drawn),
        Cell(formatting.loss(trial["train_loss"]), _number(trial["train_loss"])),
        Cell(metric.bare(trial["dev_metric"]), _number(trial["dev_metric"])),
        Cell(metric.bare(trial["test_metric"]), _number(trial["test_metric"])),
        Cell(formatting.count(trial["queries"]), trial["queries"]),
        Cell(formatting.short_count(trial["tokens"]), trial["tokens"]),
        Cell(formatting.duration(trial["wall_seconds"]), trial["wall_seconds"]),
    )
    if raced:
        saved = Cell(formatting.count(trial["queries_saved"]), _number(trial["queries_saved"]))
        cells = (*cells[:_SAVED_AT], saved, *cells[_SAVED_AT:])
    return TrialLine(cells, trial["status"], trial["reason"], trial["trial_id"] == best)


def pretty_json(value: object) -> str:
    """Return ``value`` as indented JSON; what JSON does not know is spelled as text."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def _shown(value: object) -> str:
    return formatting.UNKNOWN if value is None else str(value)


def _number(value: float | None) -> float:
    """Return a key to sort by: what is unknown comes last when the largest comes first."""
    return -1e308 if value is None else float(value)


def _actors(number: int) -> str:
    return f"{number} actor" if number == 1 else f"{number} actors"


def _cost_note(totals: Mapping[str, Any]) -> str:
    proposers = f"{formatting.money(totals['proposer_usd'])} for proposers, " if totals["proposer_calls"] else ""
    return f"{proposers}{formatting.money(totals['measurement']['usd'])} to measure"


def _trials_note(summary: Mapping[str, Any]) -> str:
    number = len(summary["trials"])
    return f"{number} trial" if number == 1 else f"{number} trials"
