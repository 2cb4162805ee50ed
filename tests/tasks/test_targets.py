"""Tasks with targets: texts to be generated in the place of labels."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from distributed_tuner.config.task import FileTaskConfig
from distributed_tuner.errors import TaskError
from distributed_tuner.tasks import Task, build
from distributed_tuner.tasks.reading import read
from distributed_tuner.tasks.unlabelled import unlabelled

ROWS = [{"text": f"order {i} please", "answer": f"number {i}"} for i in range(12)]


def settings(**changes: Any) -> FileTaskConfig:
    told = {
        "kind": "file",
        "train": "train.jsonl",
        "text": "text",
        "target": "answer",
        "template": "{text}\nNumber: {target}",
        "shots": 3,
    }
    return FileTaskConfig.model_validate(told | changes)


def task_of(folder: Path, rows: list[dict[str, Any]], **changes: Any) -> Task:
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return build(settings(**changes), folder)


def refused(folder: Path, rows: list[dict[str, Any]], **changes: Any) -> str:
    with pytest.raises(TaskError) as caught:
        task_of(folder, rows, **changes)
    return str(caught.value)


def test_a_task_has_targets_and_no_labels(tmp_path: Path) -> None:
    task = task_of(tmp_path, ROWS, feedback=1)
    assert (len(task.train), len(task.feedback), len(task.dev), len(task.test)) == (2, 1, 3, 6)
    assert task.has_targets and task.label_words == () and task.metrics == ("exact_match", "token_f1")
    example = task.train[0]
    number = example.text.split()[1]
    assert (example.text, example.cue, example.target) == (f"order {number} please", "\nNumber:", f" number {number}")
    assert task.batch("train").question == "targets" and task.batch("train").label_words == ()
    assert task.generated_batch("dev").question == "texts" and task.generated_batch("dev").examples == task.dev


def test_the_first_stop_string_ends_each_target_that_is_scored(tmp_path: Path) -> None:
    from dataclasses import replace

    task = replace(task_of(tmp_path, ROWS, decoding={"stop": ["\n\n", "."]}), end="\n\n", per="example")
    batch = task.batch("train", [1])
    assert batch.per == "example" and batch.examples[0].target == task.train[1].target + "\n\n"
    assert task.generated_batch("train").examples[1].target == task.train[1].target


def test_what_steers_by_a_metric_asks_for_texts_everywhere(tmp_path: Path) -> None:
    from dataclasses import replace

    task = replace(task_of(tmp_path, ROWS, decoding={"max_new_tokens": 5, "temperature": 0.5}), steers="metric")
    decoding = task.batch("train").decoding
    assert decoding is not None and (decoding.max_new_tokens, decoding.temperature, decoding.stop) == (5, 0.5, ("\n",))
    assert task.batch("dev").question == "texts"


def test_empty_targets_and_those_that_would_end_too_early_are_refused_with_their_row(tmp_path: Path) -> None:
    assert "'answer' is empty in train.jsonl, line 3" in refused(tmp_path, [*ROWS[:2], {"text": "a", "answer": " "}])
    told = refused(tmp_path, [*ROWS[:4], {"text": "a", "answer": "one\ntwo"}])
    assert "'answer' in train.jsonl, line 5 holds '\\n'" in told and "task.decoding.stop" in told
    assert "holds a list" in refused(tmp_path, [{"text": "a", "answer": ["one", "two"]}])


def test_rows_without_a_target_are_left_out_where_that_is_wanted(tmp_path: Path) -> None:
    task = task_of(tmp_path, [*ROWS, {"text": "and", "answer": None}], on_empty="drop")
    assert task.warnings == ("1 of 13 rows of train.jsonl have no text or no target and are left out",)
    assert len(task.test) == 6


def test_too_few_rows_are_refused_by_their_number(tmp_path: Path) -> None:
    told = refused(tmp_path, ROWS[:5])
    assert (
        told
        == "train and dev need 2 x shots = 6 examples in the pool, but it has 5: use shots: 2 or fewer, or add examples"
    )


def test_repeats_and_texts_with_two_targets_are_told(tmp_path: Path) -> None:
    test = [{"text": "order 1 please", "answer": "another"}, {"text": "new", "answer": "number 1"}]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in test))
    rows = [*ROWS, {"text": "order 2 please", "answer": "number 3"}, ROWS[4]]
    apart, again, shared = task_of(tmp_path, rows, test="test.jsonl").warnings[:3]
    assert "have the text of an earlier row and another target" in apart and "line 13 is 'number 3'" in apart
    assert "repeat an earlier row (line 14 is line 5 again)" in again
    assert "1 of 14 rows of train.jsonl are also in test.jsonl, 1 of them with another target" in shared


def test_labels_and_targets_exclude_each_other() -> None:
    with pytest.raises(ValidationError, match="label is for tasks with labels, but target: answer names texts"):
        settings(label="label")
    with pytest.raises(ValidationError, match="label_rule is for tasks with labels"):
        settings(label_rule="first")
    with pytest.raises(ValidationError, match="label_words is missing"):
        settings(target=None, label="label", template="{text}{label_word}")


def test_a_template_has_the_place_of_the_target(tmp_path: Path) -> None:
    assert "needs exactly one {target}, got 0" in refused(tmp_path, ROWS, template="{text}{label_word}")
    assert "shows the target column {answer}" in refused(tmp_path, ROWS, template="{text} {answer}{target}")


def test_metrics_are_those_of_texts(tmp_path: Path) -> None:
    told = refused(tmp_path, ROWS, metric=["accuracy"])
    assert "scored by exact_match, token_f1, rouge_l, chrf, or a function of your own" in told and "'accuracy'" in told
    own = {"import_path": "some.module:score"}
    assert task_of(tmp_path, ROWS, metric=["rouge_l", own]).metrics == ("rouge_l", "score")
    with pytest.raises(ValidationError, match="different names"):
        settings(metric=[own, {"import_path": "other:score"}])


def test_new_rows_are_worded_without_a_target(tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("text\norder 7 please\n")
    (row,) = unlabelled(settings(), read("new.csv", tmp_path))
    assert row is not None and (row.text, row.cue, row.target) == ("order 7 please", "\nNumber:", "")
