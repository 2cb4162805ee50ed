"""Findings of an analysis: charts, tables and sentences, as data. ``page`` draws them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Curve:
    """One line of a chart: shapes (N,). low, high: the edges of the band around it, none where there is none."""

    label: str
    x: Numbers
    y: Numbers
    low: Numbers | None = None
    high: Numbers | None = None
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines in one pair of axes. ``name`` is that of its PNG file; ``caption`` says how to read it."""

    name: str
    title: str
    caption: str
    x_label: str
    y_label: str
    curves: Sequence[Curve]
    log_x: bool = False
    log_y: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """Rows that stand in the page and in ``name``.csv, which keeps all digits."""

    name: str
    title: str
    caption: str
    rows: "pd.DataFrame"


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything that an analysis has to say. method: paragraphs on what was done. conclusion: what follows, in the
    words of the numbers that were found. facts: settings and machine, by name."""

    name: str
    title: str
    method: Sequence[str]
    conclusion: Sequence[str]
    charts: Sequence[Chart]
    tables: Sequence[Table]
    facts: dict[str, str] = field(default_factory=dict)
