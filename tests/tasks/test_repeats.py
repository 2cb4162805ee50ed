"""Warnings about repeated rows in the data, with their effect on the numbers."""

import json
import re
from pathlib import Path
from typing import Any

from distributed_tuner.config.task import FileTaskConfig
from distributed_tuner.tasks import Task, build


def task_of(folder: Path, pool: list[tuple[str, str]], test: list[tuple[str, str]] | None = None, **more: Any) -> Task:
    for name, pairs in (("train", pool), ("test", test or [])):
        rows = [{"text": text, "label": label} for text, label in pairs]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {
        "kind": "file",
        "train": "train.jsonl",
        "test": test and "test.jsonl",
        "text": "text",
        "label": "label",
        "template": "{text} It was{label_word}",
        "label_words": {"bad": " bad", "good": " good"},
        "shots": 3,
    }
    return build(FileTaskConfig.model_validate(settings | more), folder)


DIFFERENT = [(f"text {i}", ("bad", "good")[i % 2]) for i in range(14)]


def test_nothing_is_told_where_nothing_repeats(tmp_path: Path) -> None:
    assert task_of(tmp_path, DIFFERENT, [("another", "bad"), ("and another", "good")]).warnings == ()


def test_repeated_rows_are_told_with_the_splits_that_they_reach(tmp_path: Path) -> None:
    again = [(("refund", "thanks")[i % 2], ("bad", "good")[i % 2]) for i in range(14)]
    pool, dev, test = task_of(tmp_path, again, split_seed=3).warnings
    assert pool.startswith("12 of 14 rows of train.jsonl repeat an earlier row (line 3 is line 1 again)")
    assert dev.startswith("6 of the 6 dev examples are also in train (split_seed 3), which flatters")
    assert test.startswith("12 of the 12 train, feedback and dev examples are also in the test set (split_seed 3)")
    told = task_of(tmp_path, again, feedback=1).warnings
    assert any(warning.startswith("2 of the 2 feedback examples are also in train") for warning in told)


def test_a_text_with_two_labels_is_told_with_both_places(tmp_path: Path) -> None:
    (told,) = task_of(tmp_path, [*DIFFERENT, ("text 2", "good")], [("another", "bad")]).warnings
    assert "1 of 15 rows of train.jsonl have the text of an earlier row and another label" in told
    assert "train.jsonl, line 3 is 'bad', line 15 is 'good'" in told


def test_a_test_set_is_looked_at_as_well(tmp_path: Path) -> None:
    test = [("new", "bad"), ("new", "good"), ("text 1", "good"), ("text 1", "good"), ("text 3", "bad")]
    told = task_of(tmp_path, DIFFERENT[:12], test).warnings  # six of a class: all are drawn
    assert "2 of 12 rows of train.jsonl are also in test.jsonl, 1 of them with another label" in told
    assert [re.split(r"[,(]", warning)[0].strip() for warning in told] == [
        "1 of 5 rows of test.jsonl have the text of an earlier row and another label",
        "1 of 5 rows of test.jsonl repeat an earlier row",
        "2 of 12 rows of train.jsonl are also in test.jsonl",
        "2 of the 12 train",
    ]
