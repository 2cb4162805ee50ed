"""The effective dimension of ZOT's paper: its two figures made again, and what it says of a prompt of one's own.

Numbers come from ``quadratics``, ``landscape`` and ``descents``; here they become charts, tables and sentences.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from distributed_tuner.analysis.findings import Chart, Curve, Findings, Table
from distributed_tuner.analysis.landscape import Curvature
from distributed_tuner.analysis.quadratics import Descent, gradient_descent, predicted, probes_of, zo_descent
from distributed_tuner.maths.curvature import Array64, effective_dimension, slowdown, step_size

QUADRATIC_D_E = 5.0
DIMENSIONS = (10, 50, 100, 500)
WITHIN = 3.0  # a factor of the losses within which the theorem is said to hold


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is done. most: probes of ZO-GD at most, whatever D_e is; a step asks for 2 n queries."""

    quadratic_steps: int
    seeds: int
    way: int
    points: int
    probes: int
    lanczos: int
    descent: int
    most: int


FULL = Sizes(150, 10, way=40, points=6, probes=16, lanczos=10, descent=25, most=24)
QUICK = Sizes(60, 4, way=8, points=2, probes=4, lanczos=5, descent=6, most=8)


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the findings."""

    method: tuple[str, ...]
    conclusion: tuple[str, ...]
    charts: tuple[Chart, ...]
    tables: tuple[Table, ...]


@dataclass(frozen=True, slots=True)
class Spot:
    """A point of a landscape and the curvature there. ``step``: of the way to it; None where there is no way."""

    name: str
    curvature: Curvature
    step: int | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """A descent of the model's loss, losses (T + 1,); n: probes, 0 for gradient descent."""

    n: int
    gamma: float
    losses: Array64


# ------------------------------------------------------------------------------------------------------- figure 1
def on_quadratics(sizes: Sizes, seed: int) -> Part:
    """Make Figure 1: GD and ZO-GD on quadratics with D_e = 5 and d coordinates."""
    import pandas as pd

    steps, seeds = sizes.quadratic_steps, range(seed, seed + sizes.seeds)
    d_e = QUADRATIC_D_E
    charts, rows, ratios = [], [], []
    for d in DIMENSIONS:
        gd = gradient_descent(d_e, d, steps, seeds)
        runs = [zo_descent(d_e, d, n, steps, seeds) for n in probes_of(d_e, d)]
        charts.append(_quadratic_chart(d, gd, runs))
        rows.append(_quadratic_row(gd, gd, 1.0))
        for run in runs:
            ratios.append(run.mean[-1] / predicted(run, gd, d_e))
            rows.append(_quadratic_row(run, gd, ratios[-1]))
    held = sum(1 / WITHIN < ratio < WITHIN for ratio in ratios)
    conclusion = (
        f"On quadratics of effective dimension {d_e:g}, ZO-GD's loss after {steps} steps was within a factor of"
        f" {WITHIN:g} of gradient descent's after n / (D_e + n + 1) as many in {held} of {len(ratios)} cases, from d ="
        f" {min(DIMENSIONS)} to {max(DIMENSIONS)}: "
        + ("d itself does not matter." if held == len(ratios) else "not in all, so the factor is a bound alone."),
    )
    method = (
        f"Figure 1: f(x) = x'Hx / 2 with ten eigenvalues from 1 down that sum to {d_e:g}, zeros beside them; starts"
        " where the curvature is; gradient descent at 1/L, ZO-GD with n Gaussian probes at n / ((D_e + n + 1) L)"
        f" (Theorem 4.3); geometric means over {sizes.seeds} seeds. The paper gives neither spectrum nor step sizes.",
    )
    table = Table(
        "quadratics",
        "Quadratics: losses after the last step",
        "predicted: gradient descent's loss after steps / slowdown steps; ratio: the loss over that.",
        pd.DataFrame(rows),
    )
    return Part(method, conclusion, tuple(charts), (table,))


def _quadratic_chart(d: int, gd: Descent, runs: Sequence[Descent]) -> Chart:
    x = np.arange(gd.losses.shape[1], dtype=np.float64)
    curves = [Curve("gradient descent", x, gd.mean, dashed=True)]
    curves += [Curve(f"ZO-GD, n = {run.n}", x, run.mean) for run in runs]
    caption = "From n = D_e on, ZO-GD is within a factor of about two steps of gradient descent."
    return Chart(f"quadratic_d{d}", f"Quadratic, D_e = 5, d = {d}", caption, "steps", "loss", curves, log_y=True)


def _quadratic_row(run: Descent, gd: Descent, ratio: float) -> dict[str, object]:
    method = "ZO-GD" if run.n else "gradient descent"
    factor = slowdown(QUADRATIC_D_E, run.n) if run.n else 1.0
    expected = predicted(run, gd, QUADRATIC_D_E) if run.n else float(gd.mean[-1])
    return {
        "method": method,
        "d": run.d,
        "n": run.n or "-",
        "step size": run.gamma,
        "slowdown": factor,
        "loss": float(run.mean[-1]),
        "predicted": expected,
        "ratio": float(ratio),
    }


# ------------------------------------------------------------------------------------------------------- a model
def dimension_of(spots: Sequence[Spot]) -> float:
    """Return D_e over the points, at least 0 where the curvature is negative on the whole."""
    traces = [spot.curvature.trace.value for spot in spots]
    return max(0.0, effective_dimension(traces, [spot.curvature.norm for spot in spots]))


def norm_of(spots: Sequence[Spot]) -> float:
    """Return L, the largest norm over the points."""
    return max(spot.curvature.norm for spot in spots)


def on_a_model(spots: Sequence[Spot], runs: Sequence[Run], dim: int, where: str, unit: str) -> Part:
    """Make Figure 2 of what was measured at ``spots``, and of descents from one start, gradient descent first, if any.

    where: the task and model, in words. unit: what a coordinate of 1 is.
    """
    import pandas as pd

    exact = all(spot.curvature.ritz for spot in spots)
    d_e, L = dimension_of(spots), norm_of(spots)
    rows = [_spot_row(spot) for spot in spots]
    tables = [
        Table(
            "curvature",
            "Curvature of the loss",
            "trace: Hutchinson's estimate of tr(H), with its standard error; norm: "
            + ("the largest |eigenvalue|, by Lanczos." if exact else "||H||_F, which is at least the largest."),
            pd.DataFrame(rows),
        ),
        Table(
            "step_sizes",
            "What follows for ZO-GD",
            f"gamma = n / ((D_e + n + 1) L), in units of {unit}; slowdown: steps for one of gradient descent.",
            pd.DataFrame(step_sizes(d_e, L)),
        ),
    ]
    charts = [_way_chart(spots, dim)] if all(spot.step is not None for spot in spots) and len(spots) > 1 else []
    conclusion = [_dimension_sentence(spots, dim, where, exact)]
    if runs:
        charts.append(_descent_chart(runs))
        tables.append(_descent_table(runs, d_e))
        conclusion.append(_descent_sentence(runs, d_e))
    conclusion.append(_advice(d_e, L, exact))
    return Part(_model_method(exact, bool(runs)), tuple(conclusion), tuple(charts), tuple(tables))


def step_sizes(d_e: float, L: float) -> list[dict[str, object]]:
    """Return for some numbers of probes what the theorem says."""
    numbers = sorted({1, 2, 4, 8, 16, max(1, round(d_e))})
    return [
        {"n": n, "queries a step": 2 * n, "step size": step_size(d_e, n, L), "slowdown": slowdown(d_e, n)}
        for n in numbers
    ]


def _spot_row(spot: Spot) -> dict[str, object]:
    found = spot.curvature
    return {
        "point": spot.name,
        "loss": found.loss,
        "gradient norm": float("nan") if found.gradient_norm is None else found.gradient_norm,
        "trace": found.trace.value,
        "standard error": found.trace.error,
        "norm": found.norm,
        "trace / norm": found.ratio,
        "queries": found.cost.queries,
    }


def _way_chart(spots: Sequence[Spot], dim: int) -> Chart:
    x = np.array([float(spot.step or 0) for spot in spots])
    ratio = np.array([spot.curvature.ratio for spot in spots])
    error = np.array([spot.curvature.trace.error / spot.curvature.norm for spot in spots])
    curves = [
        Curve("trace / norm at the point", x, ratio, ratio - error, ratio + error),
        Curve(f"d = {dim}", x, np.full(len(x), float(dim)), dashed=True),
    ]
    caption = "The band is the trace's standard error. On a logarithmic axis points with a negative trace are missing."
    title = "Effective dimension on the way"
    return Chart("way", title, caption, "first-order steps", "dimensions", curves, log_y=True)


def _descent_chart(runs: Sequence[Run]) -> Chart:
    curves = [
        Curve(_name_of(run), np.arange(len(run.losses), dtype=np.float64), run.losses, dashed=not run.n) for run in runs
    ]
    caption = "From one start, at the theorem's step sizes. A step of ZO-GD asks for 2 n queries."
    return Chart("descent", "ZO-GD beside gradient descent", caption, "steps", "train loss", curves)


def _descent_table(runs: Sequence[Run], d_e: float) -> Table:
    import pandas as pd

    rows = []
    for run in runs:
        rows.append(
            {
                "method": _name_of(run),
                "step size": run.gamma,
                "slowdown": slowdown(d_e, run.n) if run.n else 1.0,
                "first loss": float(run.losses[0]),
                "last loss": float(run.losses[-1]),
                "gradient descent's, at the same progress": _expected(run, runs[0], d_e),
            }
        )
    caption = "The last column is gradient descent's loss after steps / slowdown steps, as the theorem has it."
    return Table("descent", "Descents from one start", caption, pd.DataFrame(rows))


def _expected(run: Run, gd: Run, d_e: float) -> float:
    steps = len(run.losses) - 1
    worth = steps / slowdown(d_e, run.n) if run.n else float(steps)
    return float(np.interp(worth, np.arange(len(gd.losses)), gd.losses))


def _name_of(run: Run) -> str:
    return f"ZO-GD, n = {run.n}" if run.n else "gradient descent"


# ------------------------------------------------------------------------------------------------------- sentences
def _dimension_sentence(spots: Sequence[Spot], dim: int, where: str, exact: bool) -> str:
    d_e = dimension_of(spots)
    worst = max(spots, key=lambda spot: spot.curvature.trace.value).curvature.trace
    sure = worst.value > 2 * worst.error
    upper = f" or more (and at most {max(d_e, d_e**2):.3g} where no curvature is negative)"
    size = f"{d_e:.3g}" + ("" if exact else upper)
    less = f", {dim / d_e:.0f} times fewer than its {dim} coordinates" if d_e >= 1 else f" of {dim} coordinates"
    doubt = "" if sure else " The trace is not told from zero by its standard error: more probes would be needed."
    negative = sum(spot.curvature.trace.value < 0 for spot in spots)
    told = f" At {negative} of {len(spots)} points the trace is negative." if negative else ""
    return f"Over {len(spots)} point(s), {where} has an effective dimension of {size}{less}.{doubt}{told}"


def _descent_sentence(runs: Sequence[Run], d_e: float) -> str:
    gd = runs[0]
    said = []
    for run in runs[1:]:
        fall, hoped = gd.losses[0] - run.losses[-1], gd.losses[0] - _expected(run, gd, d_e)
        said.append(f"ZO-GD with n = {run.n} by {fall:.3g}, where the theorem expects {hoped:.3g}")
    return (
        f"In {len(gd.losses) - 1} steps gradient descent lowered the train loss by {gd.losses[0] - gd.losses[-1]:.3g}; "
        + "; ".join(said)
        + "."
    )


def _advice(d_e: float, L: float, exact: bool) -> str:
    n = max(1, round(d_e))
    hedge = "" if exact else " L is an upper bound here, so the step sizes are on the safe side."
    return (
        f"For ZO-GD this says: step size {step_size(d_e, 1, L):.3g} with n = 1, {step_size(d_e, n, L):.3g} with"
        f" n = {n}; probes beyond n = {n} gain less than a factor of two in steps, and queries go up with n, so that"
        f" few probes and many steps cost fewest queries.{hedge}"
    )


def _model_method(exact: bool, descended: bool) -> tuple[str, ...]:
    products = (
        "Curvature: products H v by central differences of gradients, asked of the oracle pool in float32 (no second"
        " derivatives of the model, so that any attention kernel does); tr(H) by Hutchinson's estimate with Rademacher"
        " probes; the largest |eigenvalue| by Lanczos from the gradient. D_e is the largest trace over the largest norm"
        " of all points (Def. 4.1, with maxima over points for the supremum)."
        if exact
        else "Curvature from losses alone: v'Hv by second differences with Gaussian probes, as ZOT's own queries; their"
        " mean is tr(H), half their variance ||H||_F^2. The largest |eigenvalue| is at most that norm, so that trace"
        " over norm is a lower bound of D_e, and its square an upper one where no eigenvalue is negative."
    )
    descents = "Descents start where the way starts; ZO-GD asks for n pairs at the radius rho = 0.1."
    return (products, descents) if descended else (products,)


def findings(parts: Sequence[Part], facts: dict[str, str]) -> Findings:
    """Put the parts together."""
    return Findings(
        "effective-dimension",
        "Effective dimension",
        [paragraph for part in parts for paragraph in part.method],
        [sentence for part in parts for sentence in part.conclusion],
        [chart for part in parts for chart in part.charts],
        [table for part in parts for table in part.tables],
        facts,
    )
