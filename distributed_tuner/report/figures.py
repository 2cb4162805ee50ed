"""The report's figures, drawn with plotly from the numbers of `gather`. Where they stand is left to `html`."""

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from distributed_tuner.report.curves import Band
from distributed_tuner.report.figure_data import Curves, Dot, Dots

if TYPE_CHECKING:
    import plotly.graph_objects as go

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#8C6D1F", "#56B4E9", "#4D4D4D")
"""Okabe and Ito's colours for the colour-blind, yellow darkened so that it stands on white."""
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "x")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "solid")


def curve_figure(curves: Curves, methods: Sequence[str]) -> "go.Figure":
    """Draw lines and bands; ``methods`` fixes the colours, so that a method looks the same in every figure."""
    figure = empty_figure(curves.x_title, curves.y_title)
    for method, one in curves.bands:
        place = methods.index(method)
        colour, dash = PALETTE[place % len(PALETTE)], DASHES[place % len(DASHES)]
        if one.trials > 1:
            _add_band(figure, one, colour)
        figure.add_scatter(
            x=one.x,
            y=one.mean,
            name=html.escape(method),
            mode="lines" if len(one.x) > 1 else "markers",
            line={"color": colour, "dash": dash, "width": 2.2, "shape": "hv"},
            hovertemplate="%{y:.4g}",
        )
    for number, (method, marks) in enumerate(curves.marks):
        figure.add_scatter(
            x=[x for x, _ in marks],
            y=[y for _, y in marks],
            name="prompt adopted",
            mode="markers",
            marker={
                "symbol": "star",
                "size": 9,
                "color": "white",
                "line": {"color": PALETTE[methods.index(method) % len(PALETTE)], "width": 1.4},
            },
            showlegend=number == 0,
            hoverinfo="skip",
        )
    _add_manual(figure, curves.manual)
    figure.update_xaxes(rangemode="tozero")
    figure.update_layout(hovermode="x unified")
    return figure


def dots_figure(dots: Dots, methods: Sequence[str]) -> "go.Figure":
    """Draw one mark a trial, with buttons that choose the kind of cost."""
    first = next(iter(dots.axes))
    figure = empty_figure(dots.axes[first], dots.y_title)
    groups = {method: [dot for dot in dots.dots if dot.method == method] for method in methods}
    groups = {method: group for method, group in groups.items() if group}
    for method, group in groups.items():
        place = methods.index(method)
        figure.add_scatter(
            x=[dot.cost[first] for dot in group],
            y=[dot.metric for dot in group],
            text=[html.escape(dot.trial_id) for dot in group],
            name=html.escape(method),
            mode="markers",
            marker={
                "color": PALETTE[place % len(PALETTE)],
                "symbol": SYMBOLS[place % len(SYMBOLS)],
                "size": 11,
                "opacity": 0.85,
                "line": {"color": "white", "width": 1},
            },
            hovertemplate="%{text}<br>%{x:,.4g} → %{y:.4g}",
        )
    _add_manual(figure, dots.manual, "bottom left")
    figure.update_xaxes(rangemode="tozero")
    if groups:
        figure.update_layout(updatemenus=[_cost_buttons(dots, list(groups.values()))], margin={"t": 72})
    return figure


def _cost_buttons(dots: Dots, groups: Sequence[Sequence[Dot]]) -> dict[str, Any]:
    labels = {"queries": "queries", "tokens": "tokens", "usd": "dollars", "wall_seconds": "time"}
    buttons = [
        {
            "label": labels[axis],
            "method": "update",
            "args": [{"x": [[dot.cost[axis] for dot in group] for group in groups]}, {"xaxis.title.text": title}],
        }
        for axis, title in dots.axes.items()
    ]
    return {
        "type": "buttons",
        "direction": "right",
        "buttons": buttons,
        "showactive": True,
        "x": 0,
        "xanchor": "left",
        "y": 1.13,
        "yanchor": "bottom",
        "pad": {"t": 0, "b": 4},
        "bgcolor": "white",
        "bordercolor": "#c9d1d9",
        "font": {"size": 12},
    }


def empty_figure(x_title: str, y_title: str) -> "go.Figure":
    """Return a figure without traces in the report's style."""
    import plotly.graph_objects as go

    axis = {
        "gridcolor": "#e6eaee",
        "linecolor": "#9aa4ae",
        "zeroline": False,
        "ticks": "outside",
        "tickcolor": "#9aa4ae",
    }
    figure = go.Figure()
    figure.update_layout(
        template="none",
        font={"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 13, "color": "#24292f"},
        margin={"l": 62, "r": 14, "t": 54, "b": 50},
        legend={
            "orientation": "h",
            "traceorder": "normal",
            "x": 0,
            "y": 1.02,
            "yanchor": "bottom",
            "font": {"size": 12},
        },
        showlegend=True,
        paper_bgcolor="white",
        plot_bgcolor="white",
        height=340,
    )
    figure.update_xaxes(title={"text": html.escape(x_title), "standoff": 8, "font": {"size": 13}}, **axis)
    figure.update_yaxes(title={"text": html.escape(y_title), "standoff": 6, "font": {"size": 13}}, **axis)
    return figure


def _add_band(figure: "go.Figure", one: Band, colour: str) -> None:
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    common = {"mode": "lines", "hoverinfo": "skip", "showlegend": False, "line": {"width": 0, "shape": "hv"}}
    figure.add_scatter(x=one.x, y=one.high, **common)
    figure.add_scatter(x=one.x, y=one.low, fill="tonexty", fillcolor=f"rgba({red},{green},{blue},0.14)", **common)


def _add_manual(figure: "go.Figure", level: float | None, place: str = "bottom right") -> None:
    if level is None:
        return
    figure.add_hline(
        y=level,
        line={"color": "#24292f", "dash": "dash", "width": 1.4},
        annotation={"text": "manual prompt", "font": {"size": 12}, "bgcolor": "rgba(255,255,255,0.75)"},
        annotation_position=place,
    )
