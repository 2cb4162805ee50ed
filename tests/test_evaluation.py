"""A tuned prompt scored again from its run directory alone: the numbers that asking the oracle directly gives."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import WORDS, save_tiny

from distributed_tuner import oracles, tasks
from distributed_tuner.config.validation import experiment_of
from distributed_tuner.errors import ConfigError, RunDirectoryError
from distributed_tuner.oracles.wrappers.tiled import TiledOracle
from distributed_tuner.prompts.export import ExportedPrompt, write
from distributed_tuner.runs.evaluation import evaluate
from distributed_tuner.seeds import generator, standard_normal
from distributed_tuner.values import Point, PromptSpec, Request

LENGTH = 4
FILE_TASK = {
    "kind": "file",
    "train": "pool.jsonl",
    "test": "test.jsonl",
    "text": "text",
    "label": "label",
    "template": "{text} It was{label_word}",
    "label_words": {"negative": " terrible", "positive": " great"},
    "manual_prompt": "Classify the movie review",
    "shots": 4,
    "metric": ["accuracy", "f1"],
}


def write_data(directory: Path, seed: str) -> None:
    directory.mkdir(exist_ok=True)
    stream = generator((seed,))
    for name, count in (("pool.jsonl", 24), ("test.jsonl", 30)):
        lines = []
        for i in range(count):
            text = " ".join(stream.choice(WORDS, size=int(stream.integers(1, 9)))) + f" {i}"
            lines.append(json.dumps({"text": text, "label": ("negative", "positive")[i % 2]}))
        (directory / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture(
    scope="module",
    params=["analytic", *(pytest.param(name, marks=pytest.mark.model) for name in ("llama-prefix", "gpt2-suffix"))],
)
def run_directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """Return a run directory as a run leaves it, and the tree of its trial's settings."""
    base = tmp_path_factory.mktemp(request.param)
    name, _, layout = request.param.partition("-")
    oracle: dict[str, Any] = {"kind": "analytic", "width": 8, "tile": {"candidates": 2, "examples": 7}}
    if name != "analytic":
        model = str(save_tiny(name, base / "model"))
        oracle = {
            "kind": "transformers",
            "model": model,
            "dtype": "float32",
            "device": "cpu",
            "threads": 1,
            "tile": oracle["tile"],
        }
    write_data(base / "data", "here")
    tree = {
        "name": "made-up",
        "task": FILE_TASK,
        "oracle": oracle,
        "prompt": {"length": LENGTH, "layout": layout or "prefix"},
        "stages": [{"kind": "search", "optimizer": {"kind": "random_search"}}],
        "budget": {"queries": 10},
    }
    other = {**tree, "task": {**FILE_TASK, "train": "not-there.jsonl"}}
    trials = [{"trial_id": "zot-0000", "config": other}, {"trial_id": "zot-0001", "config": tree}]
    run = base / "run"
    run.mkdir()
    (run / "config.json").write_text(
        json.dumps({"experiment": tree, "trials": trials, "root": str(base / "data")}), encoding="utf-8"
    )
    width = oracles.build(experiment_of(tree).oracle).info.width
    rows = standard_normal(("best",), LENGTH * width).reshape(LENGTH, width)
    write(
        ExportedPrompt(rows, tree["prompt"]["layout"], "m", "zot-0001", "zot", [("a", 1.0)] * LENGTH, {}, {}),
        run / "best",
    )
    return run, tree


def direct(tree: Any, root: Path, rows: Any, split: Any) -> dict[str, float]:
    """Score the rows by asking the oracle, with the metrics written out."""
    experiment = experiment_of(tree)
    batch = tasks.build(experiment.task, root).batch(split)
    oracle = TiledOracle(oracles.build(experiment.oracle), experiment.oracle.tile)
    spec = PromptSpec(LENGTH, "zeros", "", tree["prompt"]["layout"], "paper")
    answer = oracle.evaluate(Request((Point(rows.reshape(-1)),), batch, spec))
    labels = np.array([example.label for example in batch.examples])
    said = answer.logits[0].argmax(axis=1)
    return {"loss": float(answer.losses[0]), "accuracy": float((said == labels).mean())}


def rows_of(run: Path) -> Any:
    from safetensors.numpy import load_file

    return next(iter(load_file(run / "best" / "prompt.safetensors").values()))


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_the_scores_are_those_of_a_direct_evaluation(run_directory: tuple[Path, Any], split: Any) -> None:
    run, tree = run_directory
    scores = evaluate(run, split)
    expected = direct(tree, run.parent / "data", rows_of(run), split)
    assert set(scores) == {"loss", "accuracy", "f1"}
    assert {name: scores[name] for name in expected} == expected
    assert np.isfinite(scores["loss"])


def test_splits_and_prompts_differ(run_directory: tuple[Path, Any]) -> None:
    run, tree = run_directory
    losses = {evaluate(run, split)["loss"] for split in ("train", "dev", "test")}
    assert len(losses) == 3
    other = direct(tree, run.parent / "data", -rows_of(run), "test")
    assert other["loss"] != evaluate(run, "test")["loss"]


@pytest.mark.parametrize("wrapped", [True, False], ids=["under-task", "bare"])
def test_another_task_comes_with_the_files_beside_it(
    run_directory: tuple[Path, Any], wrapped: bool, tmp_path: Path
) -> None:
    import yaml

    run, tree = run_directory
    write_data(tmp_path / "elsewhere", "elsewhere")
    file = tmp_path / "elsewhere" / "task.yaml"
    file.write_text(yaml.safe_dump({"task": FILE_TASK} if wrapped else FILE_TASK), encoding="utf-8")
    scores = evaluate(run, "test", file)
    expected = direct(tree, file.parent, rows_of(run), "test")
    assert {name: scores[name] for name in expected} == expected
    assert scores["loss"] != evaluate(run, "test")["loss"]


def test_a_task_file_that_is_wrong_is_named(run_directory: tuple[Path, Any], tmp_path: Path) -> None:
    run, _ = run_directory
    with pytest.raises(ConfigError, match=r"none at .*nowhere\.yaml"):
        evaluate(run, "test", tmp_path / "nowhere.yaml")
    (tmp_path / "task.yaml").write_text("kind: file\ntrian: pool.jsonl\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="trian"):
        evaluate(run, "test", tmp_path / "task.yaml")


def test_a_directory_without_a_run_or_a_prompt_is_refused(run_directory: tuple[Path, Any], tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match=r"must hold config\.json"):
        evaluate(tmp_path, "test")
    (tmp_path / "config.json").write_bytes((run_directory[0] / "config.json").read_bytes())
    with pytest.raises(RunDirectoryError, match=r"prompt\.safetensors"):
        evaluate(tmp_path, "test")


def test_a_prompt_of_a_trial_that_the_run_does_not_know_is_refused(
    run_directory: tuple[Path, Any], tmp_path: Path
) -> None:
    import shutil

    run = Path(shutil.copytree(run_directory[0], tmp_path / "run"))
    facts = json.loads((run / "best" / "prompt.json").read_text())
    (run / "best" / "prompt.json").write_text(json.dumps(facts | {"trial_id": "zot-0099"}))
    with pytest.raises(RunDirectoryError, match="zot-0099"):
        evaluate(run, "test")
