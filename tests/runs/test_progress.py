"""Progress lines of restart stages: one plain line each."""

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from distributed_tuner.config.space import TrialPlan
from distributed_tuner.ledger import CostRow, EventRow, ExchangeRow, FeedbackRow, LedgerWriter, RestartRow, Row, read
from distributed_tuner.ledger.rows import ScoredText
from distributed_tuner.runs.directory import RunDirectory
from distributed_tuner.runs.progress import Progress
from distributed_tuner.runs.recorder import Recorder

PAID: dict[str, Any] = {"cost": CostRow(queries=4), "spent": CostRow(queries=96), "elapsed": 9.0}


def text(words: str, loss: float | None, source: Any = "proposal") -> ScoredText:
    return ScoredText(text=words, source=source, loss=loss, metric=None)


def restart(**changes: Any) -> RestartRow:
    given: dict[str, Any] = {"incumbent_loss": 1.48, "scored": [], "adopted": "none", "text": "", **changes}
    return RestartRow(trial_id="maao-0000", stage=1, **given, **PAID)


def plan() -> TrialPlan:
    experiment: Any = SimpleNamespace(budget=SimpleNamespace(queries=160))
    return TrialPlan("maao-0000", 0, "maao", {}, experiment)


def told(row: RestartRow) -> str:
    console = Console(file=io.StringIO(), width=80)
    Progress([plan()], "accuracy", console).row("maao-0000", row)
    said: str = console.file.getvalue()  # type: ignore[attr-defined]
    assert said.endswith("\n") and said.count("\n") == 1
    return said.split("] ", 1)[1].strip()


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            restart(adopted="proposal", text="Decide which team", scored=[text("Decide which team", 1.21)]),
            'adopted "Decide which team" (feedback loss 1.21 < 1.48)',
        ),
        (
            restart(
                adopted="proposal",
                text="x y",
                scored=[text("", 1.3, "source_trial"), text("x y", 1.25)],
                source_trial="zot-0003",
            ),
            'adopted "x y" (feedback loss 1.25 < 1.3)',  # what it had to beat is the source trial's prompt
        ),
        (
            restart(adopted="proposal", text="x y", scored=[text("x y", 1.6)]),
            'adopted "x y" (feedback loss 1.6 >= 1.48)',  # adopt: always
        ),
        (
            restart(adopted="proposal", text="x y", scored=[text("x y", None)], incumbent_loss=None),
            'adopted "x y" (not scored)',  # as the published code
        ),
        (
            restart(
                adopted="source_trial", scored=[text("", 1.1, "source_trial"), text("x", 1.2)], source_trial="zot-0003"
            ),
            "took over zot-0003's prompt (feedback loss 1.1 < 1.48)",
        ),
        (restart(reason="no proposal beat it"), "kept its own prompt (no proposal beat it)"),
    ],
)
def test_a_restart_is_one_line(row: RestartRow, said: str) -> None:
    assert told(row) == f"maao-0000: restart after 96 queries: {said}"


def test_a_long_text_is_cut_and_cannot_steer_the_terminal() -> None:
    words = "[bold]answer[/bold]\nwith\x1b[2J one\u202e word " + "and more " * 100
    line = told(restart(adopted="proposal", text=words, scored=[text(words, 1.0)]))
    assert '"[bold]answer[/bold] with [2J one word and more' in line and '..." (feedback' in line
    assert "\x1b" not in line and "\u202e" not in line and len(line) < 160


def test_feedback_and_exchanges_are_written_and_not_told(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=80)
    names: dict[str, Any] = {"trial_id": "maao-0000", "stage": 1}
    rows: list[Row] = [
        FeedbackRow(**names, texts=[text("words", 1.5, "trajectory")], **PAID),
        ExchangeRow(**names, number=0, proposer="local m", instruction="i", answer="a", texts=[]),
        restart(reason="no proposal"),
        EventRow(trial_id="maao-0000", kind="proposer", message="no proposal from m:\n\x1b[2Jgibberish"),
    ]
    with LedgerWriter(tmp_path / "ledger.jsonl") as writer:
        progress = Progress([plan()], "accuracy", console)
        recorder = Recorder([plan()], writer, RunDirectory(tmp_path), progress, lambda: [], {}, {})
        result = {
            "rows": [row.model_dump() for row in rows],
            "progress": {"queries": 96.0, "elapsed": 9.0},
        }
        recorder.reported(plan(), result)
    said: list[str] = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert [line.split("maao-0000: ")[1] for line in said] == [
        "restart after 96 queries: kept its own prompt (no proposal)",
        "no proposal from m: [2Jgibberish",
    ]
    ledger = read(tmp_path / "ledger.jsonl")
    assert (len(ledger.feedbacks), len(ledger.exchanges), len(ledger.restarts)) == (1, 1, 1)


def test_names_of_a_file_do_not_steer_the_terminal() -> None:
    console = Console(file=io.StringIO(), width=80)
    progress = Progress([plan()], "accuracy", console)
    progress.note("\x1b[31mmethod\x07 of\nconfig.json \u202e")
    said: str = console.file.getvalue()  # type: ignore[attr-defined]
    assert said.rstrip("\n").isprintable()
    assert "method  of config.json" in said
