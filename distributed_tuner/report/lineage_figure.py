"""The picture of lineages, one lane a trial, drawn with plotly from the numbers of `lineage`."""

import html
import textwrap
from typing import TYPE_CHECKING, Any

from distributed_tuner.report.figures import PALETTE, empty_figure
from distributed_tuner.report.lineage import Lineages

if TYPE_CHECKING:
    import plotly.graph_objects as go

_INK, _GREY = "#24292f", "#a8b1ba"
_LANE = 28  # pixels
_MARKS: dict[str, tuple[str, dict[str, Any]]] = {
    "proposal": ("adopted a proposal", {"symbol": "star", "size": 16}),
    "source_trial": ("took the source trial's prompt", {"symbol": "triangle-right", "size": 13}),
    "none": ("kept its own", {"symbol": "circle", "size": 8}),
}


def lineage_figure(data: Lineages) -> "go.Figure":
    """Draw the stretches coloured by lineage, a mark at every restart stage, and an arrow from every source trial."""
    figure = empty_figure("queries of the trial", "")
    places = {name: place for place, name in enumerate(data.lanes)}
    _add_stretches(figure, data, places)
    for arrow in data.arrows:
        figure.add_annotation(
            x=arrow.queries,
            y=places[arrow.trial_id],
            ax=arrow.source_trial_queries,
            ay=places[arrow.source_trial],
            **{"xref": "x", "yref": "y", "axref": "x", "ayref": "y", "text": "", "showarrow": True},
            arrowhead=2,
            arrowwidth=1.4 if arrow.prompt else 1,
            arrowcolor=_INK,
            opacity=0.75 if arrow.prompt else 0.28,
            standoff=8,
            startstandoff=3,
        )
    _add_marks(figure, data, places)
    figure.update_xaxes(rangemode="tozero")
    figure.update_yaxes(
        tickvals=list(places.values()),
        ticktext=[_escaped(name) for name in data.lanes],
        range=[len(places) - 0.4, -0.6],
        automargin=True,
        showgrid=False,
        ticks="",
    )
    figure.update_layout(height=max(190, 110 + _LANE * len(places)), hovermode="closest", margin={"t": 34})
    return figure


def colour_of(lineage: int | None) -> str:
    """Return a lineage's colour: the palette's, then hues that go round; grey where it has no number."""
    if lineage is None:
        return _GREY
    if lineage < len(PALETTE):
        return PALETTE[lineage]
    return f"hsl({round(lineage * 137.508) % 360}, 58%, {40 + 8 * (lineage % 3)}%)"


def _add_stretches(figure: "go.Figure", data: Lineages, places: dict[str, int]) -> None:
    for lineage in dict.fromkeys(stretch.lineage for stretch in data.stretches):
        x: list[int | None] = []
        y: list[int | None] = []
        for stretch in data.stretches:
            if stretch.lineage == lineage:
                x += [stretch.start, stretch.stop, None]
                y += [places[stretch.trial_id], places[stretch.trial_id], None]
        line = {"color": colour_of(lineage), "width": 3 if lineage is None else 5}
        figure.add_scatter(x=x, y=y, mode="lines", line=line, hoverinfo="skip", showlegend=False)


def _add_marks(figure: "go.Figure", data: Lineages, places: dict[str, int]) -> None:
    for outcome, (label, look) in _MARKS.items():
        marks = [mark for mark in data.marks if mark.outcome == outcome]
        if not marks:
            continue
        colours = [colour_of(mark.lineage) for mark in marks]
        edge = {"width": 1.2, "color": "white"}
        if outcome == "none":
            edge, colours = {"width": 2, "color": colours}, ["white"] * len(marks)
        figure.add_scatter(
            x=[mark.queries for mark in marks],
            y=[places[mark.trial_id] for mark in marks],
            mode="markers",
            marker={**look, "color": colours, "line": edge},
            hoverinfo="text",
            hovertext=["<br>".join(map(_wrapped, mark.lines)) for mark in marks],
            showlegend=False,
        )
        shown = {"color": "white" if outcome == "none" else _INK, "line": {"width": 1.5, "color": _INK}}
        figure.add_scatter(x=[None], y=[None], name=label, mode="markers", marker={**look, **shown})


def _wrapped(line: str) -> str:
    return "<br>".join(_escaped(part) for part in textwrap.wrap(line, 80))


def _escaped(text: str) -> str:
    """Return text that stays text in plotly's labels, which know few entities: quotes are left as they are."""
    return html.escape(text, quote=False)
