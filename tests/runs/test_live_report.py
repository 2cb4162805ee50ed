"""The report of a run that is working: rewritten beside the run, and in the end as if it had never been."""

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from distributed_tuner.ledger import LedgerWriter, RunRow, TrialRow
from distributed_tuner.report.html import write_report
from distributed_tuner.runs.directory import write_json
from distributed_tuner.runs.live_report import SHARE, LiveReport, pause

WORKING = "This run is still working; the numbers are as of "


def wait_until(condition: Callable[[], bool], seconds: float = 300.0) -> None:
    """Wait; the limit only ends a hang."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the directory of a run that has begun."""
    write_json(tmp_path / "config.json", {"trials": []})
    with LedgerWriter(tmp_path / "ledger.jsonl") as writer:
        writer.write(RunRow(name="some", version="0", seed=0, methods=["zot"]))
    return tmp_path


def test_the_page_is_rewritten_says_so_and_in_the_end_is_as_if_it_had_not_been(folder: Path) -> None:
    page = folder / "report.html"
    before = write_report(folder).read_text(encoding="utf-8")
    page.unlink()
    (folder / "summary.json").unlink()
    live = LiveReport(folder, 0.1)
    live.start()
    wait_until(page.is_file)
    first = page.read_text(encoding="utf-8")
    assert re.search(WORKING + r"\d{4}-\d\d-\d\d \d\d:\d\d UTC\.", first)
    assert f"tune.py watch {folder}" in first and ">working<" in first and "was killed" not in first
    with LedgerWriter(folder / "ledger.jsonl") as writer:
        writer.write(TrialRow(trial_id="zot-0007", method="zot", seed=0, split_seed=0, drawn={}))
    wait_until(lambda: "zot-0007" in page.read_text(encoding="utf-8"))
    live.stop()
    assert not (folder / "summary.json").exists(), "which says that a run has ended"
    written = page.stat()
    time.sleep(0.3)
    assert page.stat() == written
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == [], "no draft is left"
    lines = (folder / "ledger.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "ledger.jsonl").write_text(lines[0], encoding="utf-8")
    assert write_report(folder).read_text(encoding="utf-8") == before


def test_a_page_that_takes_long_is_drawn_less_often() -> None:
    assert pause(30.0, 0.5) == 30.0
    assert pause(30.0, 6.0) == 6.0 / SHARE


def test_a_run_that_is_short_or_wants_no_pages_starts_no_process(folder: Path) -> None:
    for every in (None, 3600.0):
        live = LiveReport(folder, every)
        live.start()
        live.stop()
    assert not (folder / "report.html").exists()


def test_what_cannot_be_read_yet_is_read_later(folder: Path) -> None:
    (folder / "config.json").write_text("[")
    live = LiveReport(folder, 0.1)
    live.start()
    time.sleep(0.3)
    write_json(folder / "config.json", {"trials": []})
    wait_until((folder / "report.html").is_file)
    live.stop()
