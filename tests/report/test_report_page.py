import base64
import gzip
import json
import re
import shutil
from pathlib import Path

import pytest
from pages import Page

from distributed_tuner.errors import RunDirectoryError
from distributed_tuner.ledger import EvalRow, LedgerWriter, StepRow, digest, read
from distributed_tuner.ledger.rows import DATA_WARNING, ROW, EventRow
from distributed_tuner.report import figure_data, figures, html, summarize, tables, write_report
from distributed_tuner.report.shown_trials import shown_trials
from distributed_tuner.runs.recorded_config import Recorded


@pytest.fixture(scope="module")
def reported(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = Path(shutil.copytree(finished_run, tmp_path_factory.mktemp("reported") / "run"))
    write_report(run_dir)
    return run_dir


@pytest.fixture(scope="module")
def page(reported: Path) -> Page:
    return Page(reported / "report.html")


def test_the_page_loads_nothing_and_carries_plotly_once(reported: Path, page: Page) -> None:
    assert page.loads == []
    assert {"link", "iframe", "img", "object", "embed"}.isdisjoint(page.tags)
    assert not re.search(r"url\(|@import", "".join(page.styles))
    packed = [script for script in page.scripts if len(script) > 1_000_000]
    assert len(packed) == 1 and b"plotly.js v" in gzip.decompress(base64.b64decode(packed[0]))[:200]
    assert "default-src 'none'" in (reported / "report.html").read_text(encoding="utf-8")


def test_texts_of_the_run_cannot_become_markup(page: Page) -> None:
    assert page.tags.count("script") == 4
    assert "alert('x')" not in "".join(page.scripts)
    assert "<script>alert('x')</script>" in page.text
    assert "Classify the <b>movie</b> review." in page.text
    assert "</script>" in page.text  # a token of the best prompt


def test_the_page_says_what_was_found(page: Page) -> None:
    assert (
        "The best prompt is by zot: accuracy 93.8 % on dev and 91.8 % on test, against 78.1 % and 79.0 %" in page.text
    )
    assert "12.7 points above the manual prompt on 872 test examples" in page.text
    assert "A query is one candidate prompt scored on one batch of examples" in page.text
    assert "19 min 50 s, 85 % of actors" in page.text
    assert "3 (1 failed)" in page.text
    assert "python tune.py run search_spaces/sst2_methods.yaml --set oracle.actors=2" in page.text
    assert "best/prompt.json" in page.text
    assert "Oracle actor 1 died and was started again." in page.text


def test_every_axis_of_every_figure_has_a_title_and_every_figure_a_place(reported: Path, page: Page) -> None:
    found = page.figures
    assert set(found) == {"loss-queries", "dev-queries", "loss-time", "dev-time", "candidates", "test-cost"}
    source = (reported / "report.html").read_text(encoding="utf-8")
    for name, figure in found.items():
        assert figure["layout"]["xaxis"]["title"]["text"] and figure["layout"]["yaxis"]["title"]["text"]
        assert f'id="plot-{name}"' in source
    assert found["dev-time"]["layout"]["xaxis"]["title"]["text"] == "wall-clock time per trial (s)"
    assert found["dev-time"]["layout"]["yaxis"]["title"]["text"] == "best dev accuracy (%) so far"


def test_warnings_of_the_data_stand_at_the_top(run_dir: Path) -> None:
    with LedgerWriter(run_dir / "ledger.jsonl") as writer:
        writer.write(EventRow(kind=DATA_WARNING, message="3 of the 6 dev examples are also in train"))
    text = Page(write_report(run_dir)).text
    assert 0 < text.index("3 of the 6 dev examples are also in train") < text.index("Methods")


def test_the_summary_is_written_beside_the_page(reported: Path, page: Page) -> None:
    summary = json.loads((reported / "summary.json").read_text())
    assert summary["best"]["trial_id"] == "zot-1" and summary["totals"]["queries"] > 10_000
    assert sorted(path.name for path in reported.iterdir()) == [
        "best",
        "config.json",
        "ledger.jsonl",
        "report.html",
        "summary.json",
    ]


def test_writing_twice_gives_the_same_page(run_dir: Path) -> None:
    first = write_report(run_dir).read_bytes()
    assert write_report(run_dir).read_bytes() == first


def test_an_interrupted_run_without_config_or_prompt_still_has_a_page(
    tmp_path: Path, run_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    rows = (run_dir / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    (other / "ledger.jsonl").write_bytes(b"".join(rows[:150]) + rows[150][:20])
    page = Page(write_report(other))
    assert "line 151 is torn" in caplog.text
    assert "This run is still running or was killed" in page.text
    assert "None was saved." in page.text
    assert json.loads((other / "summary.json").read_text())["status"] == "unfinished"


def test_a_ledger_without_rows_has_a_page_without_figures(tmp_path: Path) -> None:
    LedgerWriter(tmp_path / "ledger.jsonl").close()
    page = Page(write_report(tmp_path))
    assert "No prompt has been selected yet." in page.text and "No trial has started." in page.text
    assert page.tags.count("script") == 1


def test_a_folder_that_is_no_run_and_a_broken_config_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="found none in"):
        write_report(tmp_path)
    LedgerWriter(tmp_path / "ledger.jsonl").close()
    for text in ("{", "[]"):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(RunDirectoryError, match=r"config\.json must be as a run has written it"):
            write_report(tmp_path)


def test_curves_are_of_looks_best_so_far_and_in_percent(run_dir: Path) -> None:
    ledger, found = read(run_dir / "ledger.jsonl"), digest(run_dir / "ledger.jsonl")
    summary = summarize(found, json.loads((run_dir / "config.json").read_text()))
    data = figure_data.dev_metric_data(found, summary, "queries")
    assert [name for name, _ in data.bands] == ["zot", "cma", "random_search"]
    assert data.manual == pytest.approx(78.125)
    for _, band in data.bands:
        assert band.low[-1] <= band.mean[-1] <= band.high[-1] <= 100
    zot = dict(data.bands)["zot"]
    ends = [trial["dev_metric"] for trial in summary["trials"] if trial["method"] == "zot"]
    assert (zot.low[-1], zot.high[-1]) == (100 * min(ends), 100 * max(ends))
    assert zot.x[-1] == max(
        evaluation.spent.queries for evaluation in ledger.evaluations if evaluation.trial_id.startswith("zot")
    )


def test_train_loss_curves_take_no_candidate_losses(run_dir: Path) -> None:
    ledger, found = read(run_dir / "ledger.jsonl"), digest(run_dir / "ledger.jsonl")
    summary = summarize(found, {})
    first = dict(figure_data.train_loss_data(found, summary, "seconds").bands)["zot"]
    evaluations: list[EvalRow] = [
        evaluation
        for evaluation in ledger.evaluations
        if evaluation.trial_id.startswith("zot") and evaluation.step == 0
    ]
    assert first.mean[0] == pytest.approx(sum(evaluation.train_loss or 0 for evaluation in evaluations) / 3)


def test_trials_without_a_test_score_have_no_mark(run_dir: Path) -> None:
    summary = summarize(digest(run_dir / "ledger.jsonl"), {"task": {"metric": "accuracy"}})
    data = figure_data.test_cost_data(summary)
    assert len(data.dots) == 8 and "cma-2" not in {dot.trial_id for dot in data.dots}
    assert list(data.axes) == ["queries", "tokens", "usd", "wall_seconds"]
    figure = figures.dots_figure(data, figure_data.methods_of(summary))
    assert sum(len(trace.x) for trace in figure.data) == 8


def test_trials_show_what_was_saved_where_one_was_raced(run_dir: Path) -> None:
    assert "Saved" not in Page(write_report(run_dir)).text
    rows = [ROW.validate_json(line) for line in (run_dir / "ledger.jsonl").read_bytes().splitlines()]
    raced = next(row for row in rows if isinstance(row, StepRow) and row.trial_id == "cma-0")
    with LedgerWriter(run_dir / "ledger.jsonl") as writer:
        writer.write(raced.model_copy(update={"metrics": {"queries_saved": 1234.0, "forwards_saved": 39488.0}}))
    page = Page(write_report(run_dir))
    assert "Queries Saved Tokens" in page.text
    assert "Saved: the queries that racing saved" in page.text
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["totals"]["queries_saved"] == 1234
    place = tables.trial_columns(summary).index("Saved")
    shown = {line.cells[0].text: line.cells[place].text for line in tables.trial_lines(summary)}
    assert (shown["cma-0"], shown["zot-0"]) == ("1,234", "—")


def test_costs_stand_beside_their_limits(run_dir: Path) -> None:
    config = Recorded.of(json.loads((run_dir / "config.json").read_text()))
    summary = summarize(digest(run_dir / "ledger.jsonl"), config)
    lines = {line.kind: line for line in tables.cost_lines(summary, config)}
    assert (lines["Queries"].limit, lines["Queries"].most, lines["Queries"].measurement) == ("2,000", "1,998", "14")
    assert lines["Tokens"].limit == "none" and lines["US dollars"].limit == "$0.01"


def test_of_very_many_trials_the_best_are_shown_and_the_rest_are_counted(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = Path(shutil.copytree(finished_run, tmp_path / "run"))
    for module in (html, tables):
        monkeypatch.setattr(module, "IN_TABLE", 2)
    write_report(run_dir)
    summary = json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))
    told = Page(run_dir / "report.html").text
    left = len(summary["trials"]) - 2
    assert f"The 2 trials with the best dev accuracy are shown; {left} more are in summary.json" in told
    shown = [line.cells[0].text for line in tables.trial_lines(summary)]
    assert summary["best"]["trial_id"] in shown and len(shown) == 2


def test_the_trials_that_are_shown_are_the_best_and_keep_their_order() -> None:
    trials = [
        {"trial_id": name, "dev_metric": metric} for name, metric in zip("abcd", (0.5, None, 0.9, 0.7), strict=True)
    ]
    assert [one["trial_id"] for one in shown_trials(trials, "b", 3)] == ["b", "c", "d"]
    assert shown_trials(trials, None, 9) == trials
