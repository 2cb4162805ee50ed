"""A study's figures, drawn with plotly in the report's style from numbers of ``standing``."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from benchmarks.study.settings import BELOW
from benchmarks.study.standing import Mean, Ranking, mean_of
from distributed_tuner.report.figures import DASHES, PALETTE, SYMBOLS, empty_figure

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

VALUE = "test_metric"
TITLES = {"queries": "queries", "tokens": "tokens"}
NAMES = {"manual": "manual prompt", "manual_head": "manual prompt, head", "bag_of_words": "bag of words"}


class Curve(NamedTuple):
    """A method's means by what it has spent, ascending; ``cost`` is the mean over splits."""

    method: str
    cost: tuple[float, ...]
    means: tuple[Mean, ...]


def name_of(method: str) -> str:
    """Return what a method is called in tables and figures."""
    return NAMES.get(method, method)


def curves_of(frame: "pd.DataFrame", by: Literal["queries", "tokens"], value: str = VALUE) -> dict[str, Curve]:
    """Return the curves of a frame of one number of shots, over the draws for which every method has the budget."""
    found = {}
    for method, rows in frame.groupby("method", sort=False):
        points = [(group[by].mean(), mean_of(group[value], group["task"])) for _, group in _whole(rows, value)]
        points.sort(key=lambda point: point[0])
        if points:
            found[str(method)] = Curve(str(method), tuple(x for x, _ in points), tuple(mean for _, mean in points))
    return found


def _whole(rows: "pd.DataFrame", value: str) -> list[tuple[object, "pd.DataFrame"]]:
    """Return a method's rows by budget, of budgets that it has on all of its draws: others are not done yet."""
    draws = len(rows[["task", "split"]].drop_duplicates())
    groups = rows.dropna(subset=[value]).groupby("budget")
    return [(budget, group) for budget, group in groups if len(group) == draws]


def curve_figure(
    curves: Mapping[str, Curve], methods: Sequence[str], x_title: str, y_title: str, dashed: Sequence[str] = ()
) -> "go.Figure":
    """Draw a line a method with its intervals, and a level for each of what is below them. ``methods`` fixes the
    colours; ``dashed``: upper lines."""
    figure = empty_figure(x_title, y_title)
    for place, method in enumerate(methods):
        curve = curves.get(method)
        if curve is None:
            continue
        colour, symbol = PALETTE[place % len(PALETTE)], SYMBOLS[place % len(SYMBOLS)]
        above = [0.0 if mean.high is None else mean.high - mean.mean for mean in curve.means]
        figure.add_scatter(
            x=curve.cost,
            y=[mean.mean for mean in curve.means],
            error_y={"type": "data", "array": above, "thickness": 1, "width": 3},
            name=name_of(method),
            mode="lines+markers",
            line={"color": colour, "dash": "dash" if method in dashed else "solid", "width": 2.2},
            marker={"symbol": symbol, "size": 7},
            hovertemplate="%{x:,.4g}: %{y:.4f}",
        )
    for place, method in enumerate(BELOW):
        if method in curves:
            figure.add_hline(
                y=curves[method].means[0].mean,
                line={"color": "#24292f", "dash": DASHES[place + 1], "width": 1.2},
                annotation={"text": name_of(method), "font": {"size": 11}},
                annotation_position="bottom right",
            )
    figure.update_layout(height=380)
    figure.update_xaxes(rangemode="tozero")
    return figure


def ranking_figure(ranked: Ranking) -> "go.Figure":
    """Draw mean ranks, best on top; a bar on the left joins methods that are not told apart."""
    figure = empty_figure("mean rank (1 is best)", "")
    places = [-place for place in range(len(ranked.methods))]
    figure.add_scatter(
        x=ranked.ranks,
        y=places,
        mode="markers+text",
        text=[f"  {rank:.2f}" for rank in ranked.ranks],
        textposition="middle right",
        marker={"size": 10, "color": PALETTE[0]},
        hoverinfo="skip",
        showlegend=False,
    )
    for number, (first, last) in enumerate(ranked.alike):
        x = 0.85 - 0.12 * number
        figure.add_scatter(
            x=[x, x],
            y=[-first + 0.2, -last - 0.2],
            mode="lines",
            line={"color": "#24292f", "width": 4},
            hoverinfo="skip",
            showlegend=False,
        )
    figure.update_layout(height=110 + 34 * len(places), margin={"l": 190, "r": 20, "t": 20, "b": 50})
    figure.update_yaxes(tickvals=places, ticktext=[name_of(method) for method in ranked.methods])
    figure.update_xaxes(range=[0.7 - 0.12 * len(ranked.alike), len(places) + 0.6])
    return figure
