"""Loss after the best bias: many candidates at once give the same bits as each alone."""

import numpy as np
import pytest

from distributed_tuner.heads.objective import profiled
from distributed_tuner.maths.heads import bias_penalty, profile_bias
from distributed_tuner.maths.losses import cross_entropy
from distributed_tuner.values import Objective

BIAS = Objective("bias")


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("score", ["train", "leave_one_out"])
def test_candidates_scored_together_have_the_losses_that_each_has_alone(seed: int, score: str) -> None:
    """So that no loss depends on who else was asked: not on tiles, race batches of a race, or what a cache holds."""
    stream = np.random.default_rng(seed)
    candidates, examples, words = stream.integers(2, 20), stream.integers(3, 40), stream.integers(2, 7)
    scale = stream.uniform(0.01, 20, (candidates, 1, 1))  # flat ones and such that are nearly separated
    logits = (scale * stream.standard_normal((candidates, examples, words))).astype(np.float32)
    labels = stream.integers(0, words, examples)
    objective = Objective("bias", "train" if score == "train" else "leave_one_out")
    losses, of_examples = profiled(logits, None, labels, objective)
    for i in range(candidates):
        alone, of_examples_alone = profiled(logits[i : i + 1], None, labels, objective)
        assert losses[i] == alone[0]
        np.testing.assert_array_equal(of_examples[i], of_examples_alone[0])


def test_the_loss_is_that_of_the_best_bias_and_its_penalty() -> None:
    stream = np.random.default_rng(0)
    logits, labels = stream.standard_normal((3, 10, 2)).astype(np.float32), stream.integers(0, 2, 10)
    losses, examples = profiled(logits, None, labels, BIAS)
    for i in range(3):
        b, loss = profile_bias(logits[i], labels, BIAS.strength)
        assert losses[i] == loss
        np.testing.assert_array_equal(examples[i], cross_entropy(logits[i].astype(np.float64) + b, labels))
        assert loss == pytest.approx(examples[i].mean() + bias_penalty(b, BIAS.strength))


def test_a_candidate_without_a_finite_answer_has_no_loss_and_costs_the_others_none() -> None:
    stream = np.random.default_rng(1)
    logits, labels = stream.standard_normal((4, 6, 3)).astype(np.float32), stream.integers(0, 3, 6)
    whole, _ = profiled(logits, None, labels, BIAS)
    logits[2, 1, 0] = np.nan
    losses, examples = profiled(logits, None, labels, BIAS)
    assert np.isnan(losses).tolist() == np.isnan(examples).all(axis=1).tolist() == [False, False, True, False]
    np.testing.assert_array_equal(losses[[0, 1, 3]], whole[[0, 1, 3]])
    nothing, of_examples = profiled(logits * np.nan, None, labels, BIAS)
    assert np.isnan(nothing).all() and np.isnan(of_examples).all()
