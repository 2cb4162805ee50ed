"""Benchmark of heads on listed tokens: it chooses words as a run does, and counts correctly."""

from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from benchmarks import listed
from benchmarks.heads import task_of
from benchmarks.listed import cells_of, with_words


@dataclass(frozen=True)
class Made(listed.Listing):
    """A model that says what a text is about by words that are no label words."""

    def top(self, line: str) -> Mapping[str, float]:
        return {" bill": -1.0, f" {len(line) % 3}": -1.5, " ship": -2.0, " the": -3.0}


def test_words_are_chosen_once_and_every_head_is_tried(tmp_path_factory: pytest.TempPathFactory) -> None:
    task = task_of("demo", tmp_path_factory.getbasetemp(), 0, 12)
    listing = Made(None, None, 4)
    seen = with_words(listing, task, 4)
    assert " the" in seen.answer_words and not set(seen.answer_words) & set(task.label_words)
    assert with_words(listing, task, 4) == seen
    cells = cells_of("demo", 0, task, listing)
    assert {cell.test_rows for cell in cells} == {12}
    assert {"vocabulary, 20 told", "centroid, 5 told"} <= {cell.head for cell in cells}
    assert all(0 <= cell.accuracy <= 1 for cell in cells)
