"""Generated answers from the model to the report: what a run keeps of them."""

from pathlib import Path

import pytest

from distributed_tuner import Analytic, tune
from distributed_tuner.ledger import digest
from distributed_tuner.stages.measuring import MOST, kept_texts
from distributed_tuner.values import Example


def example(i: int, text: str = "a text") -> Example:
    return Example(f"test-{i}", text, "\nProduct:", 0, target=" cup")


def test_few_and_short_texts_are_kept() -> None:
    found = kept_texts([example(i, "long " * 1000) for i in range(2 * MOST)], ["word " * 1000] * (2 * MOST), True)
    assert len(found) == MOST
    assert len(found[0].input) == len(found[0].text or "") == 500
    assert found[0].target == "cup"


def test_inputs_are_kept_where_asked_for_and_failed_answers_stay_none() -> None:
    found = kept_texts([example(0), example(1)], [None, "cup"])
    assert [(one.uid, one.text, one.input, one.target) for one in found] == [
        ("test-0", None, "", ""),
        ("test-1", "cup", "", ""),
    ]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "run"
    task = {"kind": "extract", "shots": 8, "test_limit": 20}
    search = {"kind": "search", "optimizer": {"kind": "random_search"}}
    settings = {"significance": None, "objective": "likelihood", "stages": [search]}
    tune(Analytic(), task, budget=60, progress=False, settings=settings, out=out)
    return out


def test_a_run_shows_answers_before_and_after(run: Path) -> None:
    tested = {row.what: row for row in digest(run / "ledger.jsonl").measures if row.split == "test"}
    assert len(tested["manual_prompt"].texts) == len(tested["selected"].texts) == 20
    assert all(one.input.startswith("Message: ") and one.target for one in tested["manual_prompt"].texts)
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Answers before and after" in page and "Of 20 test examples" in page
