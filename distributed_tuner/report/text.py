"""Text output of the command line: a run's summary and a space's projection, as plain lines."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from distributed_tuner.report.formatting import BASELINES, count, duration, ensemble, money, one_line, reading
from distributed_tuner.report.significance import nothing_learnt, reference
from distributed_tuner.values import Cost

if TYPE_CHECKING:
    from distributed_tuner.preflight.prepared import Prepared


def summary_lines(summary: dict[str, Any]) -> Iterator[str]:
    """Yield the table of methods with the baselines above it, how restarts ended where there were any, and the best
    trial. Queries saved have a column, if any were."""
    metric = summary["best"]["metric"]
    counts = {"queries": "queries_mean"}
    if summary["totals"]["queries_saved"]:
        counts["saved"] = "queries_saved_mean"
    counts["seconds"] = "wall_seconds_mean"
    baselines = {
        BASELINES[name]: line
        for name, line in summary["baseline"].items()
        if name == "manual_prompt" or line["test_metric"] is not None or line["dev_metric"] is not None
    }
    names = [*baselines, *(method["method"] for method in summary["methods"]), ensemble({"members": 10})]
    width = max(16, *(len(name) + 2 for name in names))
    yield ""
    yield f"{'method':<{width}}{'trials':>7}{_columns(counts)}{'dev ' + metric:>18}{'test ' + metric:>18}"
    for name, line in baselines.items():
        shown = _columns(count(line.get("queries", 0)) if unit == "queries" else "-" for unit in counts)
        yield _row(f"{name:<{width}}", "-", shown, (line["dev_metric"], None), (line["test_metric"], None))
    for method in summary["methods"]:
        yield _row(
            f"{method['method']:<{width}}",
            str(method["trials"]),
            _columns(_whole(method[name]) for name in counts.values()),
            (method["dev_metric_mean"], method["dev_metric_std"]),
            (method["test_metric_mean"], method["test_metric_std"]),
        )
    best, totals = summary["best"], summary["totals"]
    together = best.get("ensemble")
    if together is not None:
        shown = _columns("-" for _ in counts)
        name = f"{ensemble(together):<{width}}"
        yield _row(name, "-", shown, (together["dev_metric"], None), (together["test_metric"], None))
    if nothing := nothing_learnt(summary):
        yield ""
        yield nothing
    if best["trial_id"] is not None or totals["restarts"]:
        yield ""
    if totals["restarts"]:
        failed = f" ({count(totals['proposer_failures'])} failed)" if totals["proposer_failures"] else ""
        yield (
            f"restarts: {count(totals['restarts_adopted'])} of {count(totals['restarts'])} adopted a prompt,"
            f" after {count(totals['proposer_calls'])} requests to proposers{failed}, {money(totals['proposer_usd'])}"
        )
    if best["trial_id"] is not None:
        name, manual = reference(summary)
        tuned = best.get("tuned") or best
        yield (
            f"best tuned: {best['trial_id']}, dev {metric} {_score(tuned['dev_metric'])}, test {metric}"
            f" {_within(tuned)} ({name}: {_within(manual)})"
        )
        if best.get("kept") == "manual_prompt":
            yield (
                f"tuning is not shown to have helped (p = {best['p_value']:.2g} on dev, {best['significance']:g} is"
                f" asked for): the run returns {name}"
            )
        if together is not None:
            yield f"{ensemble(together)}: test {metric} {_within(together)}{reading(together)}"
        if best["text"]:
            yield f"its prompt: {one_line(best['text'], 500)}"
        if best.get("template"):
            yield f"its template: {best['template']!r}"
        if best.get("label_words"):
            yield f"its label words: {', '.join(word.strip() for word in best['label_words'])}"


def projection_lines(prepared: "Prepared") -> Iterator[str]:
    """Yield what each trial will cost, and the sum."""
    yield f"{prepared.experiment.name}: {len(prepared.plans)} trial(s), valid at both ends of every range"
    yield ""
    yield f"{'trial':<24}{'steps':>7}{'queries':>9}{'forwards':>11}{'tokens':>13}{'seconds':>10}{'USD':>10}"
    for plan, projection in zip(prepared.plans, prepared.projections, strict=True):
        steps = "+".join(str(stage.steps) for stage in projection.plans if stage.steps)
        yield _cost_row(plan.trial_id, steps, projection.search)
    measured = sum((projection.measurement for projection in prepared.projections), prepared.baseline)
    screened = any(plan.experiment.screen is not None for plan in prepared.plans)
    yield _cost_row("tests, at most" if screened else "test and manual prompt", "-", measured)
    if prepared.ensembles.queries:
        yield _cost_row("test of prompts together", "-", prepared.ensembles)
    if prepared.calibration.queries:
        yield _cost_row("calibration, at most", "-", prepared.calibration)
    if prepared.parity.queries:
        yield _cost_row("sanity check", "-", prepared.parity)
    beside = measured + prepared.ensembles + prepared.calibration + prepared.parity
    total = sum((projection.search for projection in prepared.projections), beside)
    yield _cost_row("all", "-", total)
    pool = prepared.experiment.oracle.pool
    yield ""
    actors = f"{pool.max}" if pool.min == pool.max else f"at most {pool.max}"
    yield (
        f"about {duration(total.seconds / pool.max)} on {actors} oracle actor(s) with devices like this machine's,"
        f" {money(total.usd)} at the prices of oracle.price"
    )
    if total.output_tokens:
        yield f"{count(total.output_tokens)} of these tokens, at most, are generated (task.decoding.max_new_tokens)"
    if prepared.proposer_calls:
        yield f"at most {count(prepared.proposer_calls)} requests to proposers, whose tokens are not counted here"
    yield from prepared.notes
    for warning in prepared.warnings:
        yield f"warning: {warning}"


def _row(name: str, trials: str, counts: str, dev: tuple[Any, Any], test: tuple[Any, Any]) -> str:
    return f"{name}{trials:>7}{counts}{_with_spread(*dev):>18}{_with_spread(*test):>18}"


def _columns(words: Iterable[str]) -> str:
    return "".join(f"{word:>9}" for word in words)


def _cost_row(name: str, steps: str, cost: Cost) -> str:
    numbers = f"{count(cost.queries):>9}{count(cost.forwards):>11}{count(cost.tokens):>13}"
    return f"{name:<24}{steps:>7}{numbers}{cost.seconds:>10.0f}{cost.usd:>10.4f}"


def _with_spread(mean: float | None, spread: float | None) -> str:
    return _score(mean) if spread is None else f"{_score(mean)} +- {spread:.4f}"


def _within(line: Mapping[str, Any]) -> str:
    """Return a test metric with its interval, where it has one."""
    interval = line.get("test_interval")
    told = _score(line["test_metric"])
    return told if interval is None else f"{told} [{interval[0]:.3f}, {interval[1]:.3f}]"


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _whole(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"
