"""What stands in the data more than once, and what it does to the numbers. It is told, and stays where it is."""

from collections.abc import Sequence
from typing import TypeAlias

from distributed_tuner.tasks.table import Table
from distributed_tuner.values import Example

Texts: TypeAlias = Sequence[tuple[str, ...]]
"""The text columns of every row of a table."""


def within(table: Table, texts: Texts, labels: Sequence[int], names: Sequence[str]) -> list[str]:
    """Tell of texts that have two labels, and of rows that stand in the table again. Rows without a label are none."""
    first: dict[tuple[str, ...], int] = {}
    apart: list[tuple[int, int]] = []
    again: list[tuple[int, int]] = []
    for i, label in enumerate(labels):
        if label < 0:
            continue
        earlier = first.setdefault(texts[i], i)
        if earlier != i:
            (again if labels[earlier] == label else apart).append((earlier, i))
    told = []
    if apart:
        one, other = apart[0]
        told.append(
            f"{len(apart)} of {len(table)} rows of {table.source} have the text of an earlier row and another label, so"
            f" no prompt gets both right: {table.where(one)} is {names[labels[one]]!r}, {table.place(other)} is"
            f" {names[labels[other]]!r}"
        )
    if again:
        one, other = again[0]
        told.append(
            f"{len(again)} of {len(table)} rows of {table.source} repeat an earlier row ({table.place(other)} is"
            f" {table.place(one)} again): each counts as an example of its own"
        )
    return told


def across(pool: Table, pool_texts: Texts, test: Table, test_texts: Texts) -> list[str]:
    """Tell how many rows of the pool are also in the test set."""
    tested = set(test_texts)
    shared = sum(text in tested for text in pool_texts)
    return [f"{shared} of {len(pool)} rows of {pool.source} are also in {test.source}"] if shared else []


def drawn(
    seed: int, train: Sequence[Example], feedback: Sequence[Example], dev: Sequence[Example], test: Sequence[Example]
) -> list[str]:
    """Tell of examples that stand in two of the splits that were drawn by ``seed``."""
    told = []
    for name, held_out, rest in (("feedback", feedback, train), ("dev", dev, (*train, *feedback))):
        if shared := _shared(held_out, rest):
            told.append(
                f"{shared} of the {len(held_out)} {name} examples are also in train (split_seed {seed}), which flatters"
                f" the prompts that {name} is to judge: take repeats out of the pool"
            )
    used = (*train, *feedback, *dev)
    if shared := _shared(used, test):
        told.append(
            f"{shared} of the {len(used)} train, feedback and dev examples are also in the test set (split_seed"
            f" {seed}), which flatters the test score: take them out of the pool"
        )
    return told


def _shared(examples: Sequence[Example], others: Sequence[Example]) -> int:
    known = {(example.text, example.tail) for example in others}
    return sum((example.text, example.tail) in known for example in examples)
