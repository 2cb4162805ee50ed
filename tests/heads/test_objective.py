"""Loss after the best bias: many candidates at once give the same bits as each alone."""

import numpy as np
import pytest

from distributed_tuner.heads.objective import has_slope, loss_and_slope, profiled
from distributed_tuner.maths.heads import bias_penalty, profile_bias
from distributed_tuner.maths.losses import cross_entropy
from distributed_tuner.values import LossName, Objective

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


@pytest.mark.parametrize(
    ("loss", "objective"),
    [
        ("cross_entropy", Objective()),
        ("hinge", Objective()),
        ("cross_entropy", BIAS),
        ("cross_entropy", Objective("bias", strength=0.5)),
    ],
)
def test_a_loss_with_a_slope_falls_as_its_slope_says(loss: LossName, objective: Objective) -> None:
    stream = np.random.default_rng(2)
    m, labels = 2.0 * stream.standard_normal((7, 3)), stream.integers(0, 3, 7)
    value, slope = loss_and_slope(m, labels, loss, objective)
    if objective.head == "bias":
        assert value == pytest.approx(profiled(m[None].astype(np.float32), None, labels, objective)[0][0], rel=1e-5)
    assert slope.shape == m.shape
    for _ in range(5):
        step = 1e-5 * stream.standard_normal(m.shape)
        ahead, behind = (loss_and_slope(m + way * step, labels, loss, objective)[0] for way in (1, -1))
        assert ahead - behind == pytest.approx(2 * float((slope * step).sum()), rel=1e-4, abs=1e-10)


def test_losses_without_a_slope_are_known() -> None:
    assert has_slope("cross_entropy", BIAS) and has_slope("hinge", Objective())
    assert not has_slope("zero_one", Objective())
    assert not has_slope("cross_entropy", Objective("vocabulary"))
    assert not has_slope("cross_entropy", Objective("bias", "leave_one_out"))
