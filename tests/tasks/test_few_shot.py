from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distributed_tuner.errors import TaskError
from distributed_tuner.tasks.few_shot import draw, limit

LABELS = [0, 1, 2] * 20 + [0] * 15


def test_every_class_gets_its_shots_in_train_and_dev():
    found = draw(LABELS, "abc", shots=4, seed=0)
    for part in (found.train, found.dev):
        assert Counter(LABELS[i] for i in part) == {0: 4, 1: 4, 2: 4}
    assert sorted((*found.train, *found.dev, *found.rest)) == list(range(len(LABELS)))
    assert list(found.rest) == sorted(found.rest)


def test_the_draw_is_the_seed_s_alone():
    assert draw(LABELS, "abc", 4, 1) == draw(LABELS, "abc", 4, 1)
    assert len({draw(LABELS, "abc", 4, seed).train for seed in range(5)}) == 5


def test_train_holds_the_first_of_each_class_in_the_shuffled_pool():
    """With one shot more, train grows by what came first into dev: the walk is one and the same."""
    few, more = draw(LABELS, "abc", 4, 7), draw(LABELS, "abc", 5, 7)
    assert set(few.train) < set(more.train) < set(few.train) | set(few.dev)


def test_rows_without_a_label_are_left_out():
    labels = [-1, 0, 1, -1, 0, 1, 0]
    found = draw(labels, "ab", shots=1, seed=3)
    assert sorted((*found.train, *found.dev, *found.rest)) == [1, 2, 4, 5, 6]


def test_a_scarce_class_is_named_with_what_to_do():
    with pytest.raises(TaskError, match=r"2 x shots = 8 .*'rare' has 5: use shots: 2 or fewer"):
        draw([0] * 20 + [1] * 5, ["common", "rare"], shots=4, seed=0)
    with pytest.raises(TaskError, match=r"'rare' has 1: add examples"):
        draw([0] * 20 + [1], ["common", "rare"], shots=4, seed=0)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-1, 3), max_size=60), st.integers(1, 70))
def test_limit_is_as_even_as_the_labels_allow(labels, count):
    kept = limit(labels, count)
    available = Counter(label for label in labels if label >= 0)
    counts = Counter(labels[i] for i in kept)
    assert len(kept) == min(count, available.total())
    assert list(kept) == sorted(set(kept))
    largest = max(counts.values(), default=0)
    # A class below the largest by more than one has nothing left to give.
    assert all(counts[c] >= largest - 1 or counts[c] == n for c, n in available.items())


def test_no_limit_keeps_every_labelled_row():
    assert limit([0, -1, 1], None) == (0, 2)
