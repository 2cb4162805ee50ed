"""The report's section on restarts: the lineage picture, the tables, the exchanges, and texts that mean harm."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from pages import Page
from restart_runs import HOSTILE, TEXTS, cost, exchange, given_up, population, restart, scored

from distributed_tuner.ledger import EvalRow, LedgerWriter, Row, TrialRow
from distributed_tuner.ledger.digest import Digest
from distributed_tuner.report import figure_data, lineage, summarize, tables, write_report
from distributed_tuner.report.lineage import Arrow, Lineages, lineage_data
from distributed_tuner.report.lineage_figure import colour_of, lineage_figure
from distributed_tuner.report.restarts import Restarts, restarts
from distributed_tuner.runs.recorded_config import Recorded

CONFIG = {"task": {"metric": "accuracy"}}


def page_of(folder: Path, rows: Iterable[Row]) -> Page:
    with LedgerWriter(folder / "ledger.jsonl", sync_every=10_000) as writer:
        for row in rows:
            writer.write(row)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return Page(write_report(folder))


def lineages(*rows: Row) -> Lineages:
    ledger = Digest(rows)
    return lineage_data(ledger, summarize(ledger, CONFIG))


def said(*rows: Row) -> Restarts:
    ledger = Digest(rows)
    found = restarts(ledger, summarize(ledger, CONFIG))
    assert found is not None
    return found


def begun(name: str) -> TrialRow:
    return TrialRow(time=1, trial_id=name, method="zot+local", seed=0, split_seed=0, drawn={})


def evaluation(name: str, queries: int, time: float) -> EvalRow:
    return EvalRow(
        time=time,
        trial_id=name,
        stage=0,
        step=queries,
        train_loss=1.0,
        dev_loss=1.0,
        dev_metric=0.5,
        selected=True,
        cost=cost(2),
        spent=cost(queries),
        elapsed=1.0,
    )


def proposed(name: str, stage: int, queries: int, **changes: Any) -> Row:
    return restart(
        name, stage, queries, scored=[scored("new words", 1.1)], adopted="proposal", text="new words", **changes
    )


# ------------------------------------------------------------------------------------------------------- lineages
def test_a_trial_alone_begins_a_lineage_with_every_adopted_proposal() -> None:
    rows = [begun("a"), proposed("a", 1, 40), restart("a", 3, 80), proposed("a", 5, 120), evaluation("a", 150, 9.0)]
    found = lineages(*rows)
    assert [tuple(stretch) for stretch in found.stretches] == [
        ("a", 0, 40, None),
        ("a", 40, 120, 0),
        ("a", 120, 150, 1),
    ]
    assert [(mark.queries, mark.outcome, mark.lineage) for mark in found.marks] == [
        (40, "proposal", 0),
        (80, "none", 0),
        (120, "proposal", 1),
    ]
    assert found.arrows == ()


def test_a_source_trial_s_lineage_goes_on_in_the_trial_that_took_its_prompt() -> None:
    taken = restart(
        "b", 1, 50, time=10.0, scored=[scored("", 1.0, "source_trial")], adopted="source_trial", source_trial="a"
    )
    later = proposed("c", 1, 60, time=20.0, source_trial="b")
    rows = [
        begun("c"),
        begun("b"),
        begun("a"),
        begun("apart"),
        evaluation("a", 30, 5.0),
        evaluation("a", 90, 15.0),
        taken,
        later,
    ]
    found = lineages(*rows)
    assert found.lanes == ("c", "b", "a")  # not the trial that has nothing to do with restarts
    of = {(stretch.trial_id, stretch.start): stretch.lineage for stretch in found.stretches}
    assert of["a", 0] == of["b", 50] is not None
    assert of["b", 0] is None and of["c", 0] is None and of["c", 60] not in (None, of["a", 0])
    assert found.arrows == (Arrow("a", 30, "b", 50, True), Arrow("b", 50, "c", 60, False))


def test_a_source_trial_s_later_prompt_is_not_the_one_that_was_taken() -> None:
    taken = restart(
        "b", 1, 50, time=10.0, scored=[scored("", 1.0, "source_trial")], adopted="source_trial", source_trial="a"
    )
    found = lineages(begun("a"), begun("b"), taken, proposed("a", 1, 70, time=11.0), evaluation("b", 90, 20.0))
    of = {(stretch.trial_id, stretch.start): stretch.lineage for stretch in found.stretches}
    assert of["a", 0] == of["b", 50] != of["a", 70]


def test_a_mark_says_what_was_compared_and_taken_over() -> None:
    settings = {"stages.0.optimizer.learning_rate": 0.375}
    texts = [scored("", 1.3, "source_trial"), scored("words", 1.25)]
    row = restart("b", 1, 50, scored=texts, adopted="proposal", text="words", source_trial="a", settings=settings)
    assert lineages(begun("a"), begun("b"), row).marks[0].lines == (
        "b, stage 1, after 50 queries",
        'adopted "words"',
        "feedback loss: incumbent 1.4800, source trial 1.3000, best proposal 1.2500",
        "settings after a: learning_rate=0.375",
    )


@pytest.mark.parametrize("size", [1, 6, 16])
def test_every_restart_stage_of_a_run_has_its_mark_in_its_lane(size: int) -> None:
    ledger = Digest(population(size, 4))
    data = lineage_data(ledger, summarize(ledger, CONFIG))
    figure = lineage_figure(data)
    marks = [trace for trace in figure.data if trace.mode == "markers" and trace.hovertext]
    assert sum(len(trace.x) for trace in marks) == len(ledger.restarts) == 3 * size
    assert list(figure.layout.yaxis.ticktext) == list(data.lanes) and len(data.lanes) == size
    assert (
        len(figure.layout.annotations)
        == len(data.arrows)
        == sum(row.source_trial is not None for row in ledger.restarts)
    )
    for lane in data.lanes:  # stretches of a lane follow each other without a gap
        mine = [stretch for stretch in data.stretches if stretch.trial_id == lane]
        assert mine[0].start == 0 and [one.stop for one in mine[:-1]] == [one.start for one in mine[1:]]


def test_of_very_many_lanes_the_best_are_drawn_and_the_rest_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Digest(population(16, 4))
    whole = lineage_data(ledger, summarize(ledger, CONFIG))
    monkeypatch.setattr(lineage, "IN_LINEAGE", 5)
    data = lineage_data(ledger, summarize(ledger, CONFIG))
    assert len(data.lanes) == 5 and data.left_out == 11 and whole.left_out == 0
    assert set(data.lanes) < set(whole.lanes) and set(data.stretches) < set(whole.stretches)
    assert {mark.trial_id for mark in data.marks} == set(data.lanes)
    assert {name for arrow in data.arrows for name in (arrow.source_trial, arrow.trial_id)} <= set(data.lanes)
    lineage_figure(data)


def test_colours_differ_beyond_the_palette() -> None:
    assert len({colour_of(number) for number in (None, *range(40))}) == 41


# ------------------------------------------------------------------------------------------------------- the tables
def test_the_tables_say_what_was_tried_and_what_came_of_it() -> None:
    found = said(*population(6))
    first = next(line for line in found.stages if line.adopted == "proposal")
    assert (first.best_text, first.reason) == (TEXTS[1], "") and float(first.best_loss) < float(first.source_trial_loss)
    took = next(line for line in found.stages if line.adopted == "source_trial")
    assert took.reason == "no proposal beat the prompt that it had to beat" and took.source_trial
    losses = [float(line.loss) for line in found.proposals]
    assert losses == sorted(losses) and len(losses) == 16
    assert sum(line.adopted for line in found.proposals) == sum(line.adopted == "proposal" for line in found.stages)
    assert found.cost == "4 requests to proposers, 0 without a usable answer: 480 tokens in, 160 out, 6.0 s, $0.008."


def test_long_lists_are_cut_and_counted() -> None:
    many = [scored(f"words {n}", 2.0 - n / 100) for n in range(60)]
    rows = [restart("a", stage, stage) for stage in range(1, 250)]
    found = said(begun("a"), restart("a", 0, 1, scored=many), *rows, *[exchange("a", 0, n) for n in range(30)])
    assert (len(found.proposals), found.proposals_left_out, found.proposals[0].text) == (50, 10, "words 59")
    assert (len(found.stages), found.stages_left_out) == (200, 50)
    assert (len(found.talks), found.talks_left_out) == (20, 10)


def test_proposals_without_a_loss_come_last_and_the_adopted_one_is_shown() -> None:
    rows = [scored("broken", float("nan")), scored("fine", 1.5)]
    found = said(begun("a"), restart("a", 1, 9, scored=rows, adopted="proposal", text="broken", incumbent_loss=None))
    assert [line.loss for line in found.proposals] == ["1.5000", "—"]
    assert (found.stages[0].best_text, found.stages[0].best_loss, found.stages[0].incumbent) == ("broken", "—", "—")


def test_a_proposer_that_was_given_up_is_warned_of(tmp_path: Path) -> None:
    rows = [begun("a"), restart("a", 1, 9, reason="timed out"), *given_up("a", "timed out"), *given_up("b", HOSTILE)]
    found = said(*rows, *given_up("a", "again"))
    assert [line.split(":")[0] for line in found.warnings] == ["a", "a", "b", "b", "a"]  # of "a" one failure, not two
    page = page_of(tmp_path, rows)
    assert "a: no proposal from openai m: timed out" in page.text
    assert "No proposer was asked." in page.text


def test_methods_show_adoptions_and_requests_where_there_were_restarts(run_dir: Path, tmp_path: Path) -> None:
    summary = summarize(Digest(population(3)), CONFIG)
    line = tables.method_lines(summary)[1]
    assert (line.method, line.adopted, line.calls) == ("zot+local", "0.667 of 2", "0.667")
    assert "Adopted Requests" in page_of(tmp_path, population(3)).text
    without = Page(write_report(run_dir))
    assert "Adopted" not in without.text and "Restarts" not in without.text and "lineage" not in without.figures


def test_proposers_have_limits_and_costs_of_their_own() -> None:
    stages = [{"kind": "search"}, {"kind": "restart", "proposer": {"kind": "openai", "calls": 5, "usd": None}}]
    trial = {"trial_id": "a", "method": "zot", "config": {"stages": stages}}
    config = Recorded.of({**CONFIG, "trials": [trial], "experiment": {"budget": {"usd": 1.0}}})
    summary = summarize(Digest([begun("a"), exchange("a", 1, usd=0.25), exchange("a", 1, 1, usd=0.25)]), config)
    lines = {line.kind: line for line in tables.cost_lines(summary, config)}
    assert (lines["US dollars"].limit, lines["US dollars"].most) == ("$1.00", "$0")
    assert (lines["Requests to proposers"].limit, lines["Requests to proposers"].total) == ("5", "2")
    assert (lines["US dollars for proposers"].limit, lines["US dollars for proposers"].total) == ("none", "$0.50")
    assert tables.tiles(summary, config)[-1].value == "$0.50"


# ------------------------------------------------------------------------------------------------------- the page
def test_texts_of_a_model_cannot_become_markup(tmp_path: Path) -> None:
    rows = [
        begun("a"),
        exchange("a", 1, instruction=HOSTILE, answer=HOSTILE, proposer=HOSTILE),
        exchange("a", 1, 1, problem=HOSTILE, texts=[]),
        restart("a", 1, 9, scored=[scored(HOSTILE, 1.0)], adopted="proposal", text=HOSTILE, reason=HOSTILE),
        *given_up("a", HOSTILE),
        evaluation("a", 20, 30.0),
    ]
    page = page_of(tmp_path, rows)
    assert page.tags.count("script") == 4 and page.tags.count("details") == 3
    assert 'alert("x")' not in "".join(page.scripts) and "{{ 7 * 7 }}" in page.text
    one_line = " ".join(HOSTILE.split())
    assert page.text.count(one_line) >= 7
    (mark,) = [trace["hovertext"] for trace in page.figures["lineage"]["data"] if trace.get("hovertext")]
    assert '&lt;script&gt;alert("x")&lt;/script&gt;' in mark[0] and "<script" not in mark[0]


def test_a_huge_answer_is_cut_with_a_note_and_a_huge_prompt_too(tmp_path: Path) -> None:
    words = "long prompt " * 5000
    rows = [begun("a"), exchange("a", 1, answer="answer " * 100_000), restart("a", 1, 9, scored=[scored(words, 1.0)])]
    page = page_of(tmp_path, rows)
    assert "696,000 more characters are in ledger.jsonl" in page.text
    assert len(page.text) < 20_000


def test_an_answer_keeps_its_lines(tmp_path: Path) -> None:
    source = page_of(tmp_path, [begun("a"), exchange("a", 1, answer="\n1. one\n2. two", texts=[])])
    assert "\n\n1. one\n2. two" in "".join(source.words)


def test_a_trial_that_never_looked_has_a_page_with_its_restarts(tmp_path: Path) -> None:
    page = page_of(tmp_path, [begun("a"), restart("a", 0, 9, reason="no proposal")])
    assert "Whose prompt each trial went on with" in page.text
    assert "0 of 1 restart stages adopted another prompt." in page.text


def test_rows_of_a_trial_that_never_began_do_not_break_the_page(tmp_path: Path) -> None:
    page = page_of(
        tmp_path,
        [begun("a"), evaluation("a", 9, 2.0), proposed("ghost", 1, 40), restart("a", 1, 50, source_trial="ghost")],
    )
    assert list(page.figures["lineage"]["layout"]["yaxis"]["ticktext"]) == ["a"]
    assert "ghost" in page.text


def test_writing_the_restarts_twice_gives_the_same_page(tmp_path: Path) -> None:
    page_of(tmp_path, population(6))
    first = (tmp_path / "report.html").read_bytes()
    assert write_report(tmp_path).read_bytes() == first


# ------------------------------------------------------------------------------------------------------- the curves
def test_curves_are_marked_where_a_prompt_was_adopted() -> None:
    rows = [begun("a"), evaluation("a", 10, 2.0), evaluation("a", 60, 4.0).model_copy(update={"train_loss": 0.4})]
    ledger = Digest([*rows, proposed("a", 1, 40), restart("a", 3, 50), proposed("a", 5, 90)])  # at 90 there is no line
    data = figure_data.train_loss_data(ledger, summarize(ledger, CONFIG), "queries")
    assert data.marks == (("zot+local", ((40.0, 1.0),)),)


def test_a_run_whose_screen_alone_asked_a_proposer_shows_what_was_said(tmp_path: Path) -> None:
    page = page_of(tmp_path, [begun("t-0"), exchange("t-0", 0, screen=True), evaluation("t-0", 2, 3.0)])
    assert "t-0, screen, request 1 to" in page.text and "restart stages adopted" not in page.text
