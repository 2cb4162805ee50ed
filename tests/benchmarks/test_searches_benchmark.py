"""The benchmark of searches: what it counts, and that every method of it can be taken."""

from pathlib import Path

import pytest

from benchmarks.heads import task_of
from benchmarks.searches.marks import METHODS, marks_of, rows_of
from distributed_tuner.config.oracle import AnalyticOracleConfig
from distributed_tuner.oracles import build


@pytest.mark.parametrize("method", sorted(METHODS))
def test_searches_are_marked_at_equal_queries(method: str) -> None:
    oracle = build(AnalyticOracleConfig(kind="analytic", width=4))
    marks = list(marks_of("demo", task_of("demo", Path(), 0, 1), 0, method, oracle, queries=100, every=40))
    assert [mark.queries for mark in marks] == [0, 40, 80, 100]
    assert marks[-1].train < marks[0].train or method == "zot"  # whose rate is none for this world
    assert [row[3] for row in rows_of(marks)] == ["0", "40", "80", "100"]
