"""Charts and tables of contests."""

import math
from collections.abc import Sequence

import numpy as np

from benchmarks.reproductions.trainable_optimizer.conclusions import VARIANT_NAMES
from benchmarks.reproductions.trainable_optimizer.methods import RIVALS, VARIANTS, is_discrete
from benchmarks.reproductions.trainable_optimizer.ranking import Standing, comparisons
from benchmarks.reproductions.trainable_optimizer.runs import spread
from benchmarks.reproductions.trainable_optimizer.tuning import Contest, Entry
from distributed_tuner.analysis.findings import Chart, Curve, Table
from distributed_tuner.values import Array64

RIVAL_LABELS = {"a_off": "A off", "sgd": "SGD", "momentum": "momentum", "adam": "Adam"}
BAND = (1 / 6, 5 / 6)


def charts(contest: Contest) -> list[Chart]:
    """Return three charts: training loss, its spread over seeds, and the squared error of the gradient's estimate."""
    what = "training loss" if contest.about.optimum is None else "training loss above the minimum"
    seeds = f"{contest.plan.seeds} seeds"
    entries = contest.entries.values()
    return [
        _chart(
            contest,
            "loss",
            what,
            f"On all training examples: mean over {seeds}; the band holds the middle two thirds of them.",
            [_loss_curve(contest, entry) for entry in entries],
        ),
        _chart(
            contest,
            "spread",
            "standard deviation of the training loss",
            f"Over {seeds}, which start alike and see the same mini-batches with every method.",
            [_spread_curve(contest, entry) for entry in entries],
        ),
        _chart(
            contest,
            "error",
            "squared error of the estimated gradient",
            f"Against the gradient on all training examples, at the same point: mean over {seeds}. SGD: the mini-batch"
            " gradient itself; momentum: its buffer as a mean; Adam: its bias-corrected first moment.",
            [_error_curve(entry) for entry in entries],
        ),
    ]


def results(contest: Contest) -> Table:
    """Return a row for each method: what tuning chose, and how its runs with fresh seeds ended."""
    import pandas as pd

    optimum = contest.about.optimum
    rows = [
        {
            "method": entry.method.label,
            "step size": entry.setting.learning_rate,
            "settings": is_discrete(entry.setting.options),
            "loss": entry.runs.final.mean(),
            "loss std": spread(entry.runs.final),
            **({} if optimum is None else {"above minimum": entry.runs.final.mean() - optimum}),
            "accuracy": math.nan if entry.accuracy is None else entry.accuracy.mean(),
            "squared error": entry.runs.late_errors.mean(),
            "ms a step": 1e3 * entry.runs.seconds,
            "ms of update": 1e3 * entry.runs.update_seconds,
            "remark": "step size at the end of the grid" if entry.edge else "",
        }
        for entry in contest.entries.values()
    ]
    about, plan = contest.about, contest.plan
    left_out = "".join(f" Left out: {label}: {reason}." for label, reason in contest.left_out.items())
    minimum = "" if optimum is None else f" The smallest possible loss is {optimum:.6g}."
    return Table(
        f"results-{about.name}",
        about.title,
        f"{about.dim:,} coordinates, {about.examples:,} training examples, mini-batches of {about.batch_size},"
        f" {plan.course.steps:,} steps; {plan.tuning_runs} tuning runs a method, then {plan.seeds} fresh seeds. loss:"
        f" on all training examples, at the end.{minimum} accuracy: on held-out examples. squared error: of the"
        " estimated gradient, mean over the last fifth of the steps. ms: CPU time of one step of one run, the"
        f" mini-batch gradient included, and of the method's update alone.{left_out}",
        pd.DataFrame(rows),
    )


def duels(standings: Sequence[Standing]) -> Table:
    """Return a row for each variant and problem: the change of the final loss against each rival."""
    import pandas as pd

    rows = []
    for one in standings:
        found = {rival: comparisons(one, rival) for rival in RIVALS}
        for variant in one.variants:
            row: dict[str, object] = {"problem": one.title, "variant": VARIANT_NAMES[variant]}
            for rival in RIVALS:
                row[f"% to {RIVAL_LABELS[rival]}"] = 100 * found[rival][variant].change
                row[f"p, {RIVAL_LABELS[rival]}"] = found[rival][variant].p
            for outcome in ("better", "worse"):
                names = [RIVAL_LABELS[rival] for rival in RIVALS if found[rival][variant].outcome == outcome]
                row[f"{outcome} than"] = ", ".join(names) or "-"
            rows.append(row)
    return Table(
        "comparisons",
        "The variants against their rivals",
        "% : change of the mean final training loss (above the minimum, where that is known) against the rival's;"
        " negative is better. p: paired t-test over seeds. better, worse: at a level of 5 % shared among the variants"
        " of a problem, not corrected for the number of problems.",
        pd.DataFrame(rows),
    )


def ablations(contests: Sequence[Contest]) -> Table | None:
    """Return what slope and decay do to the diagonal variant, all else fixed; None where it was not tried."""
    import pandas as pd

    rows = []
    for contest in contests:
        for entry in contest.entries.values():
            for (slope, decaying), runs in sorted(entry.ablation.items(), reverse=True):
                rows.append(
                    {
                        "problem": contest.about.title,
                        "A": "trained" if slope else "off",
                        "rates": "decaying" if decaying else "constant",
                        "loss": runs.final.mean() - (contest.about.optimum or 0.0),
                        "loss std": spread(runs.final),
                        "squared error": runs.late_errors.mean(),
                    }
                )
    if not rows:
        return None
    return Table(
        "ablation",
        "What lowers the error: A, or rates that decay?",
        "The diagonal variant with the step size and rates that tuning chose for it; only slope and decay are switched,"
        " on the same seeds. Tuning had the rates decay on convex problems and stay constant on others, which favours"
        " that position. loss: final, above the minimum where that is known. squared error: of the last fifth.",
        pd.DataFrame(rows),
    )


def _chart(contest: Contest, kind: str, what: str, caption: str, curves: Sequence[Curve]) -> Chart:
    title = f"{contest.about.title}: {what}"
    return Chart(f"{contest.about.name}-{kind}", title, caption, "steps", what, curves, log_y=True)


def _loss_curve(contest: Contest, entry: Entry) -> Curve:
    x, above = _losses(contest, entry)
    low, high = np.quantile(above, BAND, axis=1)  # a mean less a standard deviation has no place on a logarithmic axis
    return Curve(entry.method.label, x, _shown(above.mean(axis=1)), _shown(low), _shown(high), dashed=_rival(entry))


def _spread_curve(contest: Contest, entry: Entry) -> Curve:
    x, above = _losses(contest, entry)
    return Curve(entry.method.label, x, _shown(above.std(axis=1, ddof=1)), dashed=_rival(entry))


def _error_curve(entry: Entry) -> Curve:
    return Curve(entry.method.label, entry.runs.steps, _shown(entry.runs.errors.mean(axis=1)), dashed=_rival(entry))


def _losses(contest: Contest, entry: Entry) -> tuple[Array64, Array64]:
    """Return steps (C + 1,) and training losses above the minimum, if known, (C + 1, S); the last is the final one."""
    runs = entry.runs
    losses = np.concatenate([runs.losses, runs.final[None]]) - (contest.about.optimum or 0.0)
    return np.append(runs.steps, contest.plan.course.steps), losses


def _rival(entry: Entry) -> bool:
    return entry.method.name not in VARIANTS


def _shown(values: Array64) -> Array64:
    """Return values with gaps where a logarithmic axis has no place for them."""
    return np.where(np.isfinite(values) & (values > 0.0), values, np.nan)
