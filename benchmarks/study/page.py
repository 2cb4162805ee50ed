"""A study's tables and its page: one file that needs neither network nor server."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.study.figures import VALUE, Curve, curve_figure, curves_of, name_of, ranking_figure
from benchmarks.study.settings import BELOW, Study
from benchmarks.study.standing import Ranking, mean_of, ranking
from distributed_tuner.report import html as report
from distributed_tuner.storage.files import write_text

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

VALUES = {
    "test_metric": "test, the selected prompt read by its head",
    "returned_metric": "test, what a run would return",
}
SAID = "Means over splits with 95 % intervals by the spread of the splits within tasks; all: the mean over tasks."


class Table(NamedTuple):
    """A table with its title; ``caption`` says how to read it."""

    title: str
    headings: list[str]
    rows: list[list[str]]
    caption: str


class Plot(NamedTuple):
    """A figure with its title; ``caption`` says how to read it."""

    title: str
    caption: str
    figure: str
    wide: bool = False


class Part(NamedTuple):
    """What the page says of one number of shots."""

    title: str
    tables: list[Table]
    plots: list[Plot]


def order_of(study: Study) -> list[str]:
    """Return the methods in the order in which they are shown."""
    return [*BELOW, *study.rows_of(study.methods)]


def tables_of(frame: "pd.DataFrame", study: Study) -> dict[int, list[Table]]:
    """Return a study's tables by the number of shots."""
    return {
        int(str(shots)): [_table(rows, study, value, title) for value, title in VALUES.items()]
        for shots, rows in frame.groupby("shots")
    }


def _table(frame: "pd.DataFrame", study: Study, value: str, title: str) -> Table:
    """Return a table with one row for each method and budget, and a column for each task."""
    tasks = [task for task in study.tasks if task in set(frame["task"])]
    rows = []
    for method in order_of(study):
        for budget, group in frame[frame["method"] == method].groupby("budget"):
            known = group.dropna(subset=[value])
            cells = [mean_of(one[value], one["task"]).spelled if len(one) else "-" for one in _by_task(known, tasks)]
            whole = set(known["task"]) == set(tasks)
            cells.append(mean_of(known[value], known["task"]).spelled if whole else "-")
            rows.append([name_of(method), str(budget) if budget else "", str(_spent(group)), *cells])
    return Table(title, ["method", "budget", "queries", *tasks, "all"], rows, SAID)


def _by_task(frame: "pd.DataFrame", tasks: Sequence[str]) -> list["pd.DataFrame"]:
    return [frame[frame["task"] == task] for task in tasks]


def _spent(group: "pd.DataFrame") -> int:
    return round(float(group["queries"].mean()))


def write_page(frame: "pd.DataFrame", study: Study, path: Path) -> None:
    """Write the page of the rows that are there."""
    import jinja2
    from plotly.offline import get_plotlyjs

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([Path(__file__).parent, Path(report.__file__).parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    tables = tables_of(frame, study)
    parts = [
        Part(f"{shots} examples a class", tables[shots], _plots(frame[frame["shots"] == shots], study))
        for shots in sorted(tables)
    ]
    facts = [
        ("Model", study.oracle.get("model", study.oracle.get("kind", ""))),
        ("Computed in", ", ".join(sorted({dtype for dtype in frame["dtype"] if dtype}))),
        ("Splits", ", ".join(map(str, study.splits))),
        ("Test rows", ", ".join(f"{task} {rows}" for task, rows in frame.groupby("task")["test_rows"].max().items())),
        ("Cells", len(frame)),
    ]
    page = environment.get_template("page.html.j2").render(
        title=study.name, facts=facts, parts=parts, plotly_js=get_plotlyjs()
    )
    write_text(path, page)


def _plots(frame: "pd.DataFrame", study: Study) -> list[Plot]:
    """Draw what one number of shots has to show: curves over all tasks and of each, then the rankings."""
    metric = ", ".join(sorted(set(frame["metric"])))
    plots = []
    whole = frame.groupby("method")["task"].transform("nunique") == frame["task"].nunique()
    for title, rows in [("All tasks", frame[whole]), *[(str(name), one) for name, one in frame.groupby("task")]]:
        if title != "All tasks" or frame["task"].nunique() > 1:
            for by in ("queries", "tokens"):
                curves = curves_of(rows, by)
                plots.append(_curve_plot(f"{title}: {metric} against {by}", curves, study, by, f"test {metric}"))
    for budget, ranked in rankings(frame, study).items():
        plots.append(
            Plot(f"Standing at {budget:,} queries", standing_of(ranked), _html(ranking_figure(ranked)), wide=True)
        )
    return plots


def _curve_plot(title: str, curves: dict[str, Curve], study: Study, x: str, y: str) -> Plot:
    upper = study.rows_of(name for name, method in study.methods.items() if method.role == "upper_line")
    figure = curve_figure(curves, study.rows_of(study.methods), x, y, upper)
    return Plot(
        title, "Bars are 95 % intervals by the spread of splits; horizontal lines cost next to nothing.", _html(figure)
    )


def rankings(frame: "pd.DataFrame", study: Study) -> dict[int, Ranking]:
    """Return how methods stand at each of the study's budgets, beside what is untuned; upper lines are left out."""
    import pandas as pd

    searches = study.rows_of(name for name, method in study.methods.items() if method.role == "search")
    found = {}
    for budget in study.budgets:
        at = frame[(frame["budget"] == budget) & frame["method"].isin(searches)]
        below = frame[frame["method"].isin(("manual_head", "bag_of_words"))]
        ranked = ranking(pd.concat([below, at]), VALUE) if len(at) else None
        if ranked is not None:
            found[budget] = ranked
    return found


def standing_of(ranked: Ranking) -> str:
    """Return how to read a ranking, and what the usual test says."""
    said = (
        f"Mean rank over {ranked.draws} draws of {ranked.tasks} task(s). A bar joins methods of which no two are told"
        " apart by paired tests over the splits of these tasks (Holm, 5 %)."
    )
    if ranked.friedman is None:
        return said
    return (
        f"{said} With tasks alone as what is drawn: Friedman p = {ranked.friedman:.3g}, Nemenyi's critical difference"
        f" {ranked.critical_difference:.2f} ranks."
    )


def _html(figure: "go.Figure") -> str:
    html: str = figure.to_html(full_html=False, include_plotlyjs=False, config={"displaylogo": False})
    return html
