"""An analysis on disk: a PNG a chart, a CSV a table, and one self-contained page with all of it."""

import base64
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from distributed_tuner import __version__
from distributed_tuner.analysis.findings import Chart, Findings, Table
from distributed_tuner.errors import RunDirectoryError
from distributed_tuner.storage.files import write_bytes, write_text

if TYPE_CHECKING:
    import pandas as pd

PAGE = "analysis.html"
MARK = "analysis.json"  # tells the folder of an analysis from any other
INCHES, DPI = (8.0, 4.6), 150
_STYLE = Path(__file__).resolve().parent.parent / "report" / "style.css"


def require_new(out: Path) -> None:
    """Check that an analysis can be written to ``out``; nothing is written yet.

    Raises:
        RunDirectoryError: something else is there.
    """
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / MARK).exists())):
        raise RunDirectoryError(
            f"an analysis is written to a new folder or over an earlier one, but {out} holds something else; give"
            " another one with --out"
        )


def begin(out: Path) -> None:
    """Make the folder of an analysis before anything is computed; an earlier analysis there is removed.

    Raises:
        RunDirectoryError: something else is there.
    """
    require_new(out)
    out = out.resolve()  # a link stays, and leads to the new one
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    write_text(out / MARK, json.dumps({"version": __version__}) + "\n")


def write(findings: Findings, out: Path) -> Path:
    """Write ``findings`` to the folder that ``begin`` has made; return the page, which is written last."""
    pictures = {chart.name: picture(chart) for chart in findings.charts}
    for name, png in pictures.items():
        write_bytes(out / f"{name}.png", png)
    for table in findings.tables:
        write_text(out / f"{table.name}.csv", table.rows.to_csv(index=False))
    page = out / PAGE
    write_text(page, _html(findings, pictures))
    return page


def picture(chart: Chart) -> bytes:
    """Return a chart as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=INCHES, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for curve in chart.curves:
        (line,) = axes.plot(curve.x, curve.y, label=curve.label, linewidth=1.6, linestyle="--" if curve.dashed else "-")
        if curve.low is not None and curve.high is not None:
            axes.fill_between(curve.x, curve.low, curve.high, color=line.get_color(), alpha=0.15, linewidth=0)
    if chart.log_x:
        axes.set_xscale("log")
    if chart.log_y:
        axes.set_yscale("log")
    axes.set_xlabel(chart.x_label)
    axes.set_ylabel(chart.y_label)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI)
    return file.getvalue()


def lines(findings: Findings) -> Iterator[str]:
    """Yield tables and conclusion for a terminal."""
    yield findings.title
    for table in findings.tables:
        yield ""
        yield table.title
        yield from _shown(table.rows).to_string(index=False).splitlines()
    yield ""
    yield from findings.conclusion


def _html(findings: Findings, pictures: dict[str, bytes]) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, autoescape=True, trim_blocks=True
    )
    encoded = {name: base64.b64encode(png).decode("ascii") for name, png in pictures.items()}
    tables = [(table, _rows(table)) for table in findings.tables]
    style = _STYLE.read_text(encoding="utf-8")
    return environment.get_template("page.html.j2").render(
        findings=findings, pictures=encoded, tables=tables, style=style
    )


def _rows(table: Table) -> list[list[str]]:
    shown = _shown(table.rows)
    return [[str(cell) for cell in row] for row in shown.itertuples(index=False, name=None)]


def _shown(rows: "pd.DataFrame") -> "pd.DataFrame":
    """Return a table with numbers as people read them."""
    return rows.map(_cell)


def _cell(value: Any) -> str:
    if isinstance(value, float | np.floating):
        return "-" if np.isnan(value) else f"{float(value):.4g}"
    return str(value)
