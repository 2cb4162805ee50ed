"""Tuning from Python with targets: texts come back, from the result and from its run directory."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from distributed_tuner import Analytic, Result, load, tune
from distributed_tuner.config.task import RowsTaskConfig
from distributed_tuner.config.validation import experiment_of
from distributed_tuner.errors import ConfigError, RunDirectoryError, TaskError
from distributed_tuner.labelled_data import Wishes, labelled_data
from distributed_tuner.runs.evaluation import evaluate
from distributed_tuner.runs.prediction import predict
from distributed_tuner.tasks.file import build_rows
from distributed_tuner.tasks.rows import texts_table

ITEMS = ("chair", "table", "lamp")
ROWS = [{"text": f"cancel the {ITEMS[i % 3]} of order {i}", "item": ITEMS[i % 3]} for i in range(30)]
TEST = [{"text": f"where is the {ITEMS[i % 3]} number {i}", "item": ITEMS[i % 3]} for i in range(9)]


def first_words(predictions: list[str], targets: list[str], inputs: list[str]) -> float:
    return sum(p.split()[:1] == t.split()[:1] for p, t in zip(predictions, targets, strict=True)) / len(targets)


def tuned(**more: Any) -> Result:
    settings = {"significance": None, **more.pop("settings", {})}
    told = {"target": "item", "shots": 6, "test": TEST, "budget": 80, "progress": False, "settings": settings}
    return tune(Analytic(), pd.DataFrame(ROWS), **{**told, **more})


@pytest.fixture(scope="module")
def result() -> Result:
    return tuned()


def test_answers_are_texts(result: Result) -> None:
    texts = [row["text"] for row in TEST]
    found = result.predict(texts)
    assert found.shape == (9,) and all(isinstance(text, str) for text in found)
    right = np.mean([text == row["item"] for text, row in zip(found, TEST, strict=True)])
    assert result.score(TEST) == result.score(texts, [row["item"] for row in TEST]) == pytest.approx(right)
    best = result.summary["best"]
    assert best["metric"] == "exact_match" and best["test_metric"] == pytest.approx(right) and best["head"] == "none"


def test_a_result_without_labels_says_so(result: Result) -> None:
    with pytest.raises(RunDirectoryError, match="a head turns answers into labels, but this run has targets"):
        result.predict_proba(["a text"])
    with pytest.raises(TaskError, match="each text needs one target, but there are 1 texts and 2 targets"):
        result.score(["a text"], ["a", "b"])


def test_a_kept_run_is_loaded_evaluated_and_predicts_from_its_files(result: Result, tmp_path: Path) -> None:
    kept = result.save(tmp_path / "kept")
    texts = [row["text"] for row in TEST]
    assert load(kept).predict(texts).tolist() == result.predict(texts).tolist()
    told = json.loads((kept / "best" / "prompt.json").read_text())
    assert told["template"]["decoding"] == {"max_new_tokens": 32, "stop": ["\n"], "temperature": 0.0, "seed": 0}
    assert not (kept / "best" / "head.json").exists()


def test_the_command_line_writes_answers_and_scores_them_again(tmp_path: Path) -> None:
    for name, rows in (("train", ROWS), ("test", TEST)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {"kind": "file", "train": f"{tmp_path}/train.jsonl", "test": f"{tmp_path}/test.jsonl", "text": "text"}
    task |= {"target": "item", "template": "{text}\nItem: {target}", "shots": 6, "metric": ["token_f1", "exact_match"]}
    task["manual_prompt"] = "Name the item."
    out = tmp_path / "run"
    run = tune(Analytic(), task, budget=60, out=out, progress=False, settings={"significance": None})
    best = run.summary["best"]
    again = evaluate(out, "test")
    assert again["token_f1"] == best["test_metric"] and set(again) == {"loss", "token_f1", "exact_match"}
    assert evaluate(out, "dev")["token_f1"] == pytest.approx(best["dev_metric"])
    assert evaluate(out, "dev")["loss"] == pytest.approx(best["dev_loss"])
    assert evaluate(out, "train")["loss"] == pytest.approx(best["train_loss"])

    (tmp_path / "new.csv").write_text("text,item\nsend the lamp back,lamp\nwhere is my chair,chair\n")
    assert predict(out, tmp_path / "new.csv", tmp_path / "answers.csv") == 2
    with (tmp_path / "answers.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [list(row) for row in rows] == [["text", "item", "predicted_answer"]] * 2
    assert [row["predicted_answer"] for row in rows] == run.predict([row["text"] for row in rows]).tolist()


def test_a_metric_of_ones_own_is_a_function(tmp_path: Path) -> None:
    found = tuned(metric=[first_words, "rouge_l"], objective="metric", out=tmp_path / "run")
    best = found.summary["best"]
    assert best["metric"] == "first_words" and 0 <= best["dev_metric"] <= 1
    assert found.score(TEST) == pytest.approx(best["test_metric"])
    told = json.loads((tmp_path / "run" / "config.json").read_text())["experiment"]["task"]["metric"]
    assert told[0]["import_path"].endswith("test_tune_targets:first_words") and told[1] == "rouge_l"


def test_a_metric_that_fails_on_its_own_targets_is_refused_before_anything_is_spent() -> None:
    def nothing(predictions: list[str], targets: list[str], inputs: list[str]) -> float:
        return float("nan")

    with pytest.raises(ConfigError, match="of train's own targets gives none: it returned nan"):
        tuned(metric=nothing)


def test_the_untuned_prompt_is_weighed_row_by_row() -> None:
    found = tuned(settings={"significance": 1e-9})
    best = found.summary["best"]
    assert best["kept"] == "manual_prompt" and 0 < best["p_value"] <= 1
    assert best["dev_metric"] == found.summary["baseline"]["manual_prompt"]["dev_metric"]
    assert found.prompt.words == "Write the answer." and found.predict(["send a chair"]).shape == (1,)


def test_a_task_that_is_handed_in_has_targets_too() -> None:
    told = {"kind": "rows", "text": "text", "target": "item", "template": "{text}\nItem: {target}", "shots": 6}
    table = texts_table(ROWS, ("text",), "the rows")
    task = build_rows(RowsTaskConfig.model_validate(told | {"manual_prompt": "Name the item."}), table, None)
    found = tune(Analytic(), task, budget=40, progress=False, settings={"significance": None})
    assert found.summary["best"]["head"] == "none" and isinstance(found.predict(["send the lamp"])[0], str)


def test_rows_are_worded_by_default() -> None:
    wishes = Wishes(("text",), "label", "item", None, None, None, None, None, 0)
    tree = labelled_data(ROWS, None, wishes).tree
    assert tree["template"] == "{text}\nAnswer: {target}" and tree["manual_prompt"] == "Write the answer."
    stages = [{"kind": "search", "optimizer": {"kind": "zot"}}]
    experiment_of({"name": "a", "task": tree, "oracle": {"kind": "analytic"}, "stages": stages})
