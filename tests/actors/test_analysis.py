"""The effective dimension through a pool: of a search space, of a run's trained prompt, from losses alone."""

import json
from pathlib import Path
from typing import Any

import pytest
from tuner_runs import CMA, ZOT, run_space, space, write_space

from actors.run.analysis import analyze_effective_dimension
from distributed_tuner.analysis import page
from distributed_tuner.errors import ConfigError
from distributed_tuner.ledger.reader import read

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

ANALYTIC = {"kind": "analytic", "actors": 2}


def analyzed(source: Path, folder: Path, **more: Any) -> Any:
    settings = {"quick": True, "seed": 0, "forward_only": False, "address": None, "note": lambda said: None} | more
    return analyze_effective_dimension(source, folder, **settings)


def test_a_spaces_way_is_measured_and_descended_and_stands_in_the_ledger(reviews: Path, tmp_path: Path) -> None:
    path = write_space(space(ANALYTIC, [ZOT]), reviews, "curved.yaml")
    found = analyzed(path, tmp_path / "out")
    names = [table.name for table in found.tables]
    assert names == ["curvature", "step_sizes", "descent"]
    ledger = read(tmp_path / "out" / "ledger.jsonl")
    rows = ledger.curvatures
    assert [row.point for row in rows] == ["step 0", "step 8"] == list(found.tables[0].rows["point"])
    assert all(row.cost.queries > 0 and row.norm and row.gradient_norm for row in rows)
    assert ledger.end is not None and ledger.end.status == "done"
    assert ledger.sessions[0].cost.queries >= sum(row.cost.queries for row in rows)
    written = page.write(found, tmp_path / "out")
    assert "Over 2 point(s)" in written.read_text()
    again = analyzed(path, tmp_path / "again")
    assert again.tables[0].rows.equals(found.tables[0].rows)  # the same bits, whoever of the two actors answers


@pytest.mark.extended  # a space stands for it, and of a run a run at a URI
def test_of_a_run_the_start_and_the_trained_prompt_are_looked_at(reviews: Path, tmp_path: Path) -> None:
    path = write_space(space({"kind": "analytic"}, [ZOT], budget={"queries": 60}), reviews, "trained.yaml")
    done = run_space(path, tmp_path / "run")
    found = analyzed(tmp_path / "run", tmp_path / "out", forward_only=True)
    rows = found.tables[0].rows
    assert list(rows["point"]) == ["the start", "the trained prompt"]
    selected = json.loads((tmp_path / "run" / "summary.json").read_text())["best"]["train_loss"]
    assert rows["loss"][1] == pytest.approx(selected, abs=1e-4)
    assert done.best
    assert any("upper bound" in sentence for sentence in found.conclusion)


@pytest.mark.extended  # what the two ask for is the same as of any run
def test_behind_a_screen_the_prompt_is_looked_at_in_the_wording_that_was_found(reviews: Path, tmp_path: Path) -> None:
    templates = [f"{words} {{text}} It was{{label_word}}" for words in ("Verdict of", "So what of", "All in all")]
    screen = {"kind": "screen", "templates": templates, "patterns": False, "demonstrations": []}
    search = {"kind": "search", "optimizer": CMA, "eval_every": 100, "select": "metric"}
    more = {"stages": [screen, search], "budget": {"queries": 300}}
    run_space(write_space(space({"kind": "analytic"}, [], **more), reviews, "behind.yaml"), tmp_path / "run")
    best = json.loads((tmp_path / "run" / "summary.json").read_text())["best"]
    assert best["text"] is None and best["template"] is not None
    rows = analyzed(tmp_path / "run", tmp_path / "out", forward_only=True).tables[0].rows
    assert rows["loss"][1] == pytest.approx(best["train_loss"], abs=1e-4)


def test_words_have_no_curvature(reviews: Path, tmp_path: Path) -> None:
    tree = space({"kind": "analytic"}, [{"kind": "token_edit"}], prompt={"kind": "text"})
    with pytest.raises(ConfigError, match="needs coordinates"):
        analyzed(write_space(tree, reviews, "words.yaml"), tmp_path / "out")
