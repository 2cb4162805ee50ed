"""Duplicate rows: what stands in the data more than once, and a warning of what it does to the numbers."""

from collections.abc import Sequence
from typing import NamedTuple

from distributed_tuner.tasks.table import Table
from distributed_tuner.values import Example


class Rows(NamedTuple):
    """The rows of a table as they are compared: the text columns of each, and its label, a place in ``names``.

    A label below 0 is that of a row which is left out.
    what: "label", or "target", of which the different ones are the names.
    """

    table: Table
    texts: Sequence[tuple[str, ...]]
    labels: Sequence[int]
    names: Sequence[str]
    what: str = "label"


def within(rows: Rows) -> list[str]:
    """Tell of texts that have two labels or targets, and of rows that stand in the table again."""
    table, texts, labels, names, what = rows
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
            f"{len(apart)} of {len(table)} rows of {table.source} have the text of an earlier row and another {what},"
            f" so no prompt gets both right: {table.where(one)} is {names[labels[one]]!r}, {table.place(other)} is"
            f" {names[labels[other]]!r}"
        )
    if again:
        one, other = again[0]
        told.append(
            f"{len(again)} of {len(table)} rows of {table.source} repeat an earlier row ({table.place(other)} is"
            f" {table.place(one)} again): each counts as an example of its own"
        )
    return told


def across(pool: Rows, test: Rows) -> list[str]:
    """Tell how many rows of the pool are also in the test set, and how many of these have another label there."""
    tested: dict[tuple[str, ...], set[str]] = {}
    for text, label in zip(test.texts, test.labels, strict=True):
        if label >= 0:
            tested.setdefault(text, set()).add(test.names[label])
    rows = zip(pool.texts, pool.labels, strict=True)
    shared = [pool.names[label] in tested[text] for text, label in rows if label >= 0 and text in tested]
    if not shared:
        return []
    apart = f", {shared.count(False)} of them with another {pool.what}" if not all(shared) else ""
    return [f"{len(shared)} of {len(pool.table)} rows of {pool.table.source} are also in {test.table.source}{apart}"]


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
