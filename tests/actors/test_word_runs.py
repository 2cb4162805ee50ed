"""Whole runs with prompts in words: the same as alone, what they leave, their score again, their report."""

import json
from pathlib import Path
from typing import Any

import pytest
from tuner_runs import Done, Grid, numbers, run_alone, run_space, space, write_space
from typer.testing import CliRunner

import tune
from distributed_tuner.runs.evaluation import evaluate

pytestmark = pytest.mark.ray

WORDS: list[dict[str, Any]] = [
    {"kind": "token_edit", "popsize": 4},
    {"kind": "nevergrad", "space": "words", "optimizer": "DiscreteOnePlusOne", "words": 30, "num_workers": 4},
]


@pytest.fixture(scope="module")
def space_of_words(reviews: Path) -> Path:
    tree = space(
        {"kind": "analytic", "actors": 2}, WORDS, prompt={"kind": "text", "length": 4, "vocabulary": "task"}, samples=1
    )
    return write_space(tree, reviews, "words.yaml")


@pytest.fixture(scope="module")
def done(ray_cluster: None, space_of_words: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    return run_space(space_of_words, tmp_path_factory.mktemp("words") / "run")


def test_two_actors_give_what_one_process_gives(done: Done, space_of_words: Path) -> None:
    assert done.status == "done"
    assert numbers(done.ledger) == numbers(run_alone(space_of_words))


def test_the_best_prompt_is_told_kept_and_scores_the_same_again(done: Done) -> None:
    best = done.summary["best"]
    assert best["method"] in ("token_edit", "nevergrad")
    described = json.loads((done.directory.best / "prompt.json").read_text())
    assert described["words"] == best["text"]
    assert (done.directory.best / "prompt.txt").read_text() == best["text"] + "\n"
    assert not (done.directory.best / "prompt.safetensors").exists()
    assert evaluate(done.directory.path, "test")["accuracy"] == pytest.approx(best["test_metric"], abs=1e-12)
    assert evaluate(done.directory.path, "dev")["accuracy"] == pytest.approx(best["dev_metric"], abs=1e-12)
    page = done.directory.report.read_text()
    assert "Text prompt, before the example's text" in page and f'<p class="quote">{best["text"]}</p>' in page


def test_words_are_exported_as_text_and_refused_as_rows(done: Done, tmp_path: Path) -> None:
    exported = CliRunner().invoke(
        tune.app, ["export", str(done.directory.path), "--format", "text", "--out", str(tmp_path)]
    )
    assert exported.exit_code == 0
    assert (tmp_path / "prompt.txt").read_text().strip() == done.summary["best"]["text"]
    refused = CliRunner().invoke(tune.app, ["export", str(done.directory.path), "--format", "peft"])
    assert refused.exit_code == 2 and "--format text" in refused.stderr


@pytest.mark.extended  # words alone stand for it
def test_soft_and_word_prompts_stand_in_one_leaderboard(
    ray_cluster: None, llama: dict[str, Any], reviews: Path, tmp_path: Path
) -> None:
    def variant(prompt: dict[str, Any], optimizer: dict[str, Any]) -> dict[str, Any]:
        return {"prompt": prompt, "stages": [{"kind": "search", "optimizer": optimizer}]}

    soft = variant({"length": 4, "layout": "prefix"}, {"kind": "random_search", "popsize": 4})
    tree = space(llama, WORDS[:1], budget={"queries": 24}, variant=Grid([soft, variant({"kind": "text"}, WORDS[0])]))
    done = run_space(write_space(tree, reviews, "both.yaml"), tmp_path / "run")
    assert done.status == "done"
    texts = {line["method"]: line["text"] for line in done.summary["trials"]}
    assert texts["random_search"] is None and texts["token_edit"]
    assert {line["method"] for line in done.summary["methods"]} == {"random_search", "token_edit"}
