"""An analysis on disk: files beside each other, a page that needs nothing else, an earlier one replaced as a whole."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from distributed_tuner.analysis.findings import Chart, Curve, Findings, Table
from distributed_tuner.analysis.page import PAGE, begin, lines, write
from distributed_tuner.errors import RunDirectoryError

X = np.arange(1.0, 6.0)


def findings(sentence: str = "It halves <b>.") -> Findings:
    curves = [Curve("plain", X, 1 / X), Curve("banded", X, 2 / X, 1 / X, 3 / X, dashed=True)]
    chart = Chart("loss", "Loss & steps", "Lower is better.", "steps", "loss", curves, log_y=True)
    rows = pd.DataFrame({"method": ["sgd", "none"], "loss": [0.123456789, float("nan")], "steps": [3, 4]})
    return Findings("some", "Some", ["One did <this>."], [sentence], [chart], [Table("losses", "Losses", "All.", rows)])


def test_the_page_holds_everything_and_loads_nothing(tmp_path: Path) -> None:
    begin(tmp_path / "out")
    page = write(findings(), tmp_path / "out")
    text = page.read_text()
    assert page == tmp_path / "out" / PAGE
    assert "It halves &lt;b&gt;." in text and "One did &lt;this&gt;." in text
    assert text.count("data:image/png;base64,") == 1
    assert not re.search(r"(src|href)=\"(?!data:)", text)
    assert (tmp_path / "out" / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert pd.read_csv(tmp_path / "out" / "losses.csv")["loss"][0] == 0.123456789


def test_a_terminal_is_told_tables_and_conclusion() -> None:
    told = list(lines(findings()))
    assert told[0] == "Some" and told[-1] == "It halves <b>."
    assert any(line.split() == ["sgd", "0.1235", "3"] for line in told)
    assert any(line.split() == ["none", "-", "4"] for line in told)


def test_an_earlier_analysis_behind_a_link_is_replaced_and_the_link_stays(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "out")
    begin(tmp_path / "out")
    (tmp_path / "out" / "old.png").touch()
    begin(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert not (tmp_path / "link" / "old.png").exists()


def test_an_earlier_analysis_is_replaced_and_nothing_else_is(tmp_path: Path) -> None:
    out = tmp_path / "out"
    begin(out)
    write(findings(), out)
    (out / "old.csv").write_text("left from before")
    begin(out)
    assert "Again." in write(findings("Again."), out).read_text()
    assert not (out / "old.csv").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(RunDirectoryError, match="--out"):
        begin(tmp_path / "mine")
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep"
