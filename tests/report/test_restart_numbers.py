"""Restart stages in the summary and in the command line's output."""

import json
from collections.abc import Iterable
from typing import Any

from restart_runs import TEXTS, cost, exchange, population, restart, scored

from distributed_tuner.ledger import FeedbackRow, Row, TrialRow
from distributed_tuner.ledger.digest import Digest
from distributed_tuner.ledger.reader import collect
from distributed_tuner.report import summarize
from distributed_tuner.report.text import summary_lines

CONFIG = {"task": {"metric": "accuracy"}}


def summary_of(rows: Iterable[Row]) -> dict[str, Any]:
    summary = summarize(Digest(rows), CONFIG)
    json.dumps(summary, allow_nan=False)
    return summary


def begun(name: str, method: str = "local") -> TrialRow:
    return TrialRow(time=1, trial_id=name, method=method, seed=0, split_seed=0, drawn={})


def feedback(name: str, stage: int, queries: int) -> FeedbackRow:
    texts = [scored("some words", 1.0, "trajectory")]
    return FeedbackRow(trial_id=name, stage=stage, texts=texts, cost=cost(5), spent=cost(queries), elapsed=9.0)


def test_a_trial_pays_for_feedback_and_proposals_even_where_it_never_looked() -> None:
    rows = [begun("a"), feedback("a", 0, 5), begun("b"), feedback("b", 0, 5), restart("b", 0, 9)]
    first, second = summary_of(rows)["trials"]
    assert (first["queries"], first["wall_seconds"], first["restarts"]) == (5, 9.0, 0)
    assert (second["queries"], second["forwards"], second["restarts"]) == (9, 90, 1)
    assert first["dev_metric"] is None and first["train_loss"] is None


def test_requests_to_proposers_are_counted_by_trial_and_in_all() -> None:
    rows = [
        begun("a"),
        exchange("a", 1, problem="no list in the answer", texts=[], usd=0.25),
        exchange("a", 1, 1, usd=0.5),
        restart("a", 1, 40, scored=[scored(TEXTS[0], 1.2)], adopted="proposal", text=TEXTS[0]),
        restart("a", 3, 80, reason="no proposal"),
        begun("b"),
        restart("b", 1, 40, scored=[scored("", 1.1, "source_trial")], adopted="source_trial", source_trial="a"),
    ]
    summary = summary_of(rows)
    totals, (a, b) = summary["totals"], summary["trials"]
    assert (totals["proposer_calls"], totals["proposer_failures"], totals["proposer_usd"]) == (2, 1, 0.75)
    assert (totals["proposer_input_tokens"], totals["proposer_output_tokens"], totals["proposer_seconds"]) == (
        240,
        80,
        3,
    )
    assert (totals["usd"], totals["restarts"], totals["restarts_adopted"]) == (0.75, 3, 2)
    assert (a["proposer_calls"], a["proposer_usd"], a["usd"], a["restarts"], a["restarts_adopted"]) == (
        2,
        0.75,
        0.75,
        2,
        1,
    )
    assert (b["proposer_calls"], b["usd"], b["restarts"], b["restarts_adopted"]) == (0, 0, 1, 1)
    (method,) = summary["methods"]
    assert (method["proposer_calls_mean"], method["restarts_mean"], method["restarts_adopted_mean"]) == (1, 1.5, 1)


def test_what_is_bought_is_what_was_spent() -> None:
    ledger = collect(population(6))
    rows = (*ledger.steps, *ledger.evaluations, *ledger.feedbacks, *ledger.restarts)
    assert summarize(Digest(population(6)), CONFIG)["totals"]["queries"] == sum(row.cost.queries for row in rows)


def test_the_command_line_tells_of_restarts_and_what_they_cost() -> None:
    rows = [*population(3), exchange("zot+local-0000", 9, problem="timed out", usd=0.1)]
    table = list(summary_lines(summary_of(rows)))
    assert table[-2] == "restarts: 2 of 6 adopted a prompt, after 3 requests to proposers (1 failed), $0.10"
    assert table[-1].startswith("best tuned: ")
    without = summary_lines(summary_of([begun("a", "zot")]))
    assert not any("restarts" in line for line in without)


def test_labels_of_several_stages_keep_the_columns_of_the_table() -> None:
    labels = ["zot", "zot+local", "zot+smollm2 with instructions", "local"]
    table = list(summary_lines(summary_of([begun(f"{label}-0", label) for label in labels])))[1:]
    assert len({len(line) for line in table}) == 1
    assert [line.split("  ")[0] for line in table[2:]] == labels
