import numpy as np
import pytest

from distributed_tuner.errors import TaskError
from distributed_tuner.tasks import score

LABELS = [1, 1, 1, 0, 0, 0, 0, 1]
PREDICTED = [1, 1, 0, 0, 0, 1, 0, 0]  # 2 true, 1 false positive; 3 true, 2 false negatives


def test_values_worked_out_by_hand():
    found = score(["accuracy", "f1", "matthews"], PREDICTED, LABELS)
    assert found["accuracy"] == pytest.approx(5 / 8)
    assert found["f1"] == pytest.approx(2 * 2 / (2 * 2 + 1 + 2))
    assert found["matthews"] == pytest.approx((2 * 3 - 1 * 2) / np.sqrt(3 * 4 * 4 * 5))


def test_always_positive_wins_f1_but_not_matthews():
    """The degenerate answer to MRPC: 279 of 408 positives give an F1 of 81.2."""
    labels = np.array([1] * 279 + [0] * 129)
    found = score(["f1", "matthews", "accuracy"], np.ones(408, dtype=int), labels)
    assert found["f1"] == pytest.approx(0.812, abs=5e-4)
    assert found["matthews"] == 0.0
    assert found["accuracy"] == pytest.approx(279 / 408)


def test_matthews_is_one_for_a_perfect_answer_to_many_classes():
    labels = [0, 1, 2, 3, 2, 1]
    assert score(["matthews"], labels, labels)["matthews"] == pytest.approx(1.0)


def test_f1_without_any_positive_is_zero():
    assert score(["f1"], [0, 0], [0, 0]) == {"f1": 0.0}


@pytest.mark.parametrize(
    ("names", "predictions", "labels"), [(["f1"], [0], [0, 1]), (["accuracy"], [], []), (["auc"], [0], [0])]
)
def test_what_cannot_be_scored_is_refused(names, predictions, labels):
    with pytest.raises(TaskError):
        score(names, predictions, labels)
