"""A whole run on a server whose label words tell nothing: a head finds the labels in what else answers begin with."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from completions_server import Asked, CompletionsServer, Reply, answered
from tuner_runs import say_to_tune, space, write_space

pytestmark = pytest.mark.ray
GOOD = ("good", "great", "bright", "liked", "positive")


@pytest.fixture
def server() -> Iterator[CompletionsServer]:
    state = CompletionsServer()
    state.answer = hidden
    state.start()
    yield state
    state.stop()


def hidden(asked: Asked) -> Reply:
    """Like label words all the same, and say " warm" of what sounds good, else " cold"."""
    words = asked.prompt.rpartition("\n")[2].split()
    said = " warm" if sum(word in GOOD for word in words) > 1 else " cold"
    return answered(asked, {" great": -1.5, " terrible": -1.5, said: -1.6, " the": -3.0})


def test_words_that_a_head_reads_are_chosen_at_the_sanity_check_and_goes_with_the_prompt(
    ray_cluster: None, server: CompletionsServer, reviews: Path, tmp_path: Path
) -> None:
    settings = {"kind": "openai", "model": "m", "base_url": server.url, "api": "completions"}
    tree = space(
        settings,
        [{"kind": "token_edit", "popsize": 4}],
        prompt={"kind": "text", "length": 5, "vocabulary": "task"},
        budget={"queries": 12},
    )
    out = tmp_path / "run"
    done = say_to_tune("run", write_space(tree, reviews, "hidden.yaml"), "--out", out)
    assert done.exit_code == 0, done.stderr
    summary = json.loads((out / "summary.json").read_text())
    assert summary["best"]["head"] == "vocabulary"
    assert summary["baseline"]["manual_prompt"]["test_metric"] < 0.6
    assert summary["best"]["test_metric"] > 0.9
    head = json.loads((out / "config.json").read_text())["experiment"]["head"]
    assert set(head["answer_words"]) == {" warm", " cold", " the"}
    told = say_to_tune("evaluate", out)
    assert told.exit_code == 0, told.stderr
    assert f"{summary['best']['test_metric']:.4f}" in told.stdout
    labelled = tmp_path / "labelled.csv"
    done = say_to_tune("predict", out, reviews / "test.jsonl", "--out", labelled)
    assert done.exit_code == 0, done.stderr
    rows = list(csv.DictReader(labelled.open()))
    right = sum(row["label"] == row["predicted_label"] for row in rows) / len(rows)
    assert right == pytest.approx(summary["best"]["test_metric"])
