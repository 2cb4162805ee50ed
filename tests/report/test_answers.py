"""The report's section on generated answers: which examples it shows, what it marks, and texts that mean harm."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pages import Page

from distributed_tuner.ledger import CostRow, EvalRow, LedgerWriter, MeasureRow, Row, TrialRow
from distributed_tuner.ledger.digest import Digest
from distributed_tuner.ledger.rows import GeneratedText
from distributed_tuner.report import summarize, write_report
from distributed_tuner.report.answers import SHOWN, Answers, Piece, answers, marked

CONFIG = {"task": {"metric": "exact_match"}}
HOSTILE = "<script>alert('x')</script>"


def run_of(before: Sequence[str | None], after: Sequence[str | None], targets: Sequence[str]) -> list[Row]:
    spent = CostRow(queries=2)
    told: dict[str, Any] = {"split": "test", "split_seed": 0, "loss": 1.0, "metric": 0.5, "cost": spent}
    scored: dict[str, Any] = {"train_loss": 1.0, "dev_loss": 1.0, "dev_metric": 0.5, "cost": spent, "spent": spent}
    manual = [
        GeneratedText(uid=f"test-{i}", text=text, input=f"Message {i}", target=target)
        for i, (text, target) in enumerate(zip(before, targets, strict=True))
    ]
    tuned = [GeneratedText(uid=f"test-{i}", text=text) for i, text in enumerate(after)]
    return [
        MeasureRow(what="manual_prompt", texts=manual, **told),
        TrialRow(trial_id="bbt-0", method="bbt", seed=0, split_seed=0, drawn={}),
        EvalRow(trial_id="bbt-0", stage=0, step=1, selected=True, elapsed=1.0, **scored),
        MeasureRow(what="selected", trial_id="bbt-0", texts=tuned, **told),
    ]


def answers_of(rows: Sequence[Row]) -> Answers | None:
    ledger = Digest(rows)
    return answers(ledger, summarize(ledger, CONFIG))


def page_of(folder: Path, rows: Sequence[Row]) -> Page:
    with LedgerWriter(folder / "ledger.jsonl") as writer:
        for row in rows:
            writer.write(row)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return Page(write_report(folder))


def test_changed_answers_come_first_and_all_are_counted() -> None:
    rows = 3 * SHOWN
    before = ["kettle"] * rows
    after = ["kettle"] * (rows - 3) + ["a kettle", "teapot", "kettle "]
    targets = ["kettle"] * (rows - 2) + ["teapot", "kettle"]
    found = answers_of(run_of(before, after, targets))
    assert found is not None
    assert (found.rows, found.changed, found.mended, found.spoiled) == (rows, 2, 1, 1)
    assert (found.before_right, found.after_right) == (rows - 1, rows - 1)
    assert [line.input for line in found.lines[:3]] == [f"Message {rows - 3}", f"Message {rows - 2}", "Message 0"]
    assert len(found.lines) == SHOWN
    assert found.lines[0].before.right and not found.lines[0].after.right


def test_an_answer_is_marked_word_by_word() -> None:
    assert marked("the desk lamp", "desk lamp") == (Piece("the", "wrong"), Piece("desk lamp", "same"))
    assert marked("lamp", "desk lamp") == (Piece("desk", "missing"), Piece("lamp", "same"))
    assert marked("a mug", "desk lamp") == (Piece("a mug", "wrong"),)
    assert marked("a red cup", "a blue cup") == (
        Piece("a", "same"),
        Piece("red", "wrong"),
        Piece("blue", "missing"),
        Piece("cup", "same"),
    )


def test_failed_answers_are_wrong_and_said_to_be_none(tmp_path: Path) -> None:
    rows = run_of([None, "cup"], ["cup", ""], ["cup", "cup"])
    found = answers_of(rows)
    assert found is not None and (found.mended, found.spoiled) == (1, 1)
    page = page_of(tmp_path, rows)
    assert "no answer" in page.text and "empty" in page.text


def test_texts_of_others_cannot_become_markup(tmp_path: Path) -> None:
    rows = run_of([HOSTILE, "cup\x1b[2J"], ["cup", "cup"], ["cup", HOSTILE])
    page = page_of(tmp_path, rows)
    assert "alert('x')" not in "".join(page.scripts)
    assert page.text.count(HOSTILE) >= 2
    assert "\x1b" not in page.text


def test_runs_without_generated_answers_have_no_section(tmp_path: Path) -> None:
    rows = [row for row in run_of(["cup"], ["cup"], ["cup"]) if not isinstance(row, MeasureRow)]
    assert answers_of(rows) is None
    assert "Answers before and after" not in page_of(tmp_path, rows).text


def test_without_the_manual_prompts_answers_nothing_is_compared() -> None:
    _, *rows = run_of(["cup"], ["cup"], ["cup"])
    assert answers_of(rows) is None
