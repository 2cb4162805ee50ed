"""The Grafana dashboard shows what is exported: no name that nobody records, and no metric that it leaves out."""

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest

from actors.metrics import ALL, Metric

ROOT = Path(__file__).resolve().parents[1]
EXPORTED: dict[str, Metric] = {name: metric for metric in ALL for name in metric.exported}
NAMES = re.compile(r"\bray_prompt_tuner_\w+")
MATCHERS = re.compile(r"(ray_prompt_tuner_\w+)\{([^}]*)\}")
GROUPINGS = re.compile(r"\bby \(([^)]*)\) \([^{]*?(ray_prompt_tuner_\w+)")


@pytest.fixture(scope="module")
def board() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((ROOT / "deploy" / "grafana.json").read_text(encoding="utf-8"))
    return loaded


@pytest.fixture(scope="module")
def expressions(board: dict[str, Any]) -> list[str]:
    shown = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    asked = [variable["query"]["query"] for variable in board["templating"]["list"] if variable["type"] == "query"]
    assert shown and asked
    return [*shown, *asked]


def test_every_name_in_it_is_exported(expressions: list[str]) -> None:
    named = {name for expression in expressions for name in NAMES.findall(expression)}
    assert named <= set(EXPORTED)
    assert all(NAMES.search(expression) for expression in expressions), "a panel that shows none of our metrics"


def test_every_metric_is_in_it(expressions: list[str]) -> None:
    named = {name for expression in expressions for name in NAMES.findall(expression)}
    assert {metric.name for metric in ALL} == {EXPORTED[name].name for name in named}


def test_labels_that_it_asks_for_are_those_of_the_metric(expressions: list[str]) -> None:
    asked = [
        (name, re.split(r"[=!]", matcher)[0])
        for expression in expressions
        for name, matchers in MATCHERS.findall(expression)
        for matcher in matchers.split(",")
    ]
    grouped = [
        (name, label.strip())
        for expression in expressions
        for labels, name in GROUPINGS.findall(expression)
        for label in labels.split(",")
    ]
    assert asked and grouped
    for name, label in (*asked, *grouped):
        assert label in (*EXPORTED[name].labels, "le"), (name, label)
    assert all('run=~"$run"' in matchers for e in expressions for _, matchers in MATCHERS.findall(e))


def test_legends_use_labels_that_are_left(board: dict[str, Any]) -> None:
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            kept = {label.strip() for labels, _ in GROUPINGS.findall(target["expr"]) for label in labels.split(",")}
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= kept, panel["title"]


def test_counters_are_read_as_counters(expressions: list[str]) -> None:
    """The rate of a gauge, and the sum of a histogram without its rate, mean nothing."""
    for expression in expressions:
        for function, name in re.findall(r"\b(rate|increase)\((ray_prompt_tuner_\w+)", expression):
            assert EXPORTED[name].kind in ("counter", "histogram"), (function, name)
        for name in NAMES.findall(expression):
            if EXPORTED[name].kind == "histogram":
                assert f"rate({name}" in expression


def test_it_is_a_dashboard_that_grafana_takes(board: dict[str, Any]) -> None:
    assert isinstance(board["schemaVersion"], int) and board["schemaVersion"] >= 36
    assert board["uid"] and board["title"]
    assert "id" not in board, "a dashboard's id belongs to one Grafana"
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource" and variables["datasource"]["query"] == "prometheus"
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in board["panels"]:
        assert panel["title"]
        if panel["type"] == "row":
            continue
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["description"] and panel["fieldConfig"]["defaults"]["unit"]
        references = [target["refId"] for target in panel["targets"]]
        assert references and len(set(references)) == len(references)
        assert all(target["datasource"] == panel["datasource"] for target in panel["targets"])


def test_its_panels_lie_side_by_side(board: dict[str, Any]) -> None:
    places = [(panel["title"], panel["gridPos"]) for panel in board["panels"]]
    for title, place in places:
        assert place["x"] >= 0 and place["x"] + place["w"] <= 24, title
    for (one, a), (other, b) in itertools.combinations(places, 2):
        apart = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        assert apart or a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"], (one, other)
