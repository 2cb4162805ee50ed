"""The shipped messages with a product to extract: targets that a reader can find, and no two messages alike."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from distributed_tuner.config.task import ExtractTaskConfig
from distributed_tuner.tasks import build
from distributed_tuner.tasks.demo import DATA
from distributed_tuner.values import Decoding

Row = dict[str, str]


@pytest.fixture(scope="module")
def rows() -> dict[str, list[Row]]:
    return {
        split: [json.loads(line) for line in (DATA / f"extract_{split}.jsonl").read_text("utf-8").splitlines()]
        for split in ("train", "test")
    }


@pytest.fixture(scope="module")
def messages(rows: dict[str, list[Row]]) -> list[Row]:
    return [row for split in rows.values() for row in split]


def shingles(text: str, size: int = 4) -> set[str]:
    letters = "".join(c for c in text.lower() if c.isalnum())
    return {letters[i : i + size] for i in range(len(letters) - size + 1)}


def pairs(items: list[set[str]]) -> Iterator[tuple[set[str], set[str]]]:
    for i, one in enumerate(items):
        for other in items[:i]:
            yield one, other


def test_there_are_enough_messages_of_every_length(rows: dict[str, list[Row]]) -> None:
    assert (len(rows["train"]), len(rows["test"])) == (145, 240)
    for split in rows.values():
        words = [len(row["text"].split()) for row in split]
        assert min(words) >= 8 and max(words) <= 45
        shares = [sum(low <= n < high for n in words) / len(words) for low, high in ((8, 17), (17, 25), (25, 46))]
        assert min(shares) > 0.1


def test_a_target_is_the_name_in_small_letters_as_the_message_has_it(messages: list[Row]) -> None:
    for row in messages:
        assert set(row) == {"text", "product"}
        product = row["product"]
        assert re.search(rf"\b{re.escape(product)}\b", row["text"].lower()), row
        assert product == product.lower() == " ".join(product.split()), row
        assert not re.match(r"(the|a|an|my|our|your) ", product), row
        assert row["text"] == row["text"].strip() and "\n" not in row["text"], row


def test_no_two_messages_are_alike_and_no_target_comes_twice(messages: list[Row]) -> None:
    assert len({row["product"] for row in messages}) == len(messages)
    assert max(len(a & b) / len(a | b) for a, b in pairs([shingles(row["text"]) for row in messages])) < 0.2


RULES = (
    r"^((?:\w+ ){0,2}\w+)",
    r"\b(?:the|my|our|your|a|an|this) (\w+(?: \w+)?)",
    r"(\w+(?: \w+)?)\W*$",
)
"""The first words, those behind the first article, and the last ones."""


@pytest.mark.parametrize("rule", RULES)
def test_no_place_in_the_message_tells_the_target(rule: str, messages: list[Row]) -> None:
    def follows(row: Row) -> bool:
        hit = re.search(rule, row["text"].lower())
        return hit is not None and row["product"] in (hit[1], hit[1].split()[0])

    assert sum(map(follows, messages)) / len(messages) < 1 / 3


def test_the_task_needs_no_setting() -> None:
    task = build(ExtractTaskConfig(kind="extract"), Path())
    assert (len(task.train), len(task.dev), len(task.test)) == (16, 16, 240)
    assert task.metrics == ("exact_match", "token_f1") and task.warnings == ()
    example = task.test[0]
    assert example.text.startswith("Message: ") and example.cue == "\nProduct:" and example.target.startswith(" ")
    assert "product" in task.manual_prompt and task.decoding == Decoding(8)


def test_its_columns_are_fixed_and_its_wording_is_not() -> None:
    task = build(ExtractTaskConfig(kind="extract", template="{text} What? {target}", shots=4), Path())
    assert task.train[0].cue == " What?"
    with pytest.raises(ValidationError, match="product"):
        ExtractTaskConfig.model_validate({"kind": "extract", "target": "answer"})
    with pytest.raises(ValidationError, match="label_words is for tasks with labels"):
        ExtractTaskConfig.model_validate({"kind": "extract", "label_words": {"a": "b", "c": "d"}})
