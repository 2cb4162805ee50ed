"""The problems of the optimizers' comparison: gradients that are those of the losses, minima that are minima."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.reproductions.trainable_optimizer.convex import logistic, minimum
from benchmarks.reproductions.trainable_optimizer.networks import Convolutional, Digits, Perceptron, digits
from benchmarks.reproductions.trainable_optimizer.problems import Problem, batches, dim, largest, spans
from benchmarks.reproductions.trainable_optimizer.prompts import PromptTuning, prompt_tuning
from distributed_tuner import oracles, tasks
from distributed_tuner.config.oracle import AnalyticOracleConfig
from distributed_tuner.config.task import DemoTaskConfig
from distributed_tuner.seeds import standard_normal
from distributed_tuner.values import Array, PromptSpec


def few_digits() -> Digits:
    data = digits(0)
    return Digits(data.x[:40], data.y[:40], data.held_out_x[:30], data.held_out_y[:30])


def prompt() -> PromptTuning:
    return PromptTuning(
        oracles.build(AnalyticOracleConfig(kind="analytic", width=5)),
        tasks.build(DemoTaskConfig(kind="demo", shots=3, test_limit=4, loss="cross_entropy"), Path()),
        PromptSpec(2, "zeros", "", "prefix", "paper"),
        batch_size=4,
    )


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "breast cancer": lambda: logistic("breast_cancer", 0.0, 8, 0),
    "digits with a penalty": lambda: logistic("digits", 0.1, 8, 0),
    "perceptron": lambda: Perceptron(few_digits(), 8, chunk=16),
    "convolutional": lambda: Convolutional(few_digits(), 8, chunk=16),
    "prompt": prompt,
}


@pytest.fixture(params=PROBLEMS, name="problem")
def a_problem(request: pytest.FixtureRequest) -> Problem:
    return PROBLEMS[request.param]()


def somewhere(problem: Problem, runs: int = 2) -> Array:
    return np.stack([problem.start((i,)) + np.float32(0.2) * standard_normal((i,), dim(problem)) for i in range(runs)])


def test_the_full_gradient_is_the_slope_of_the_loss(problem: Problem) -> None:
    w, h = somewhere(problem), np.float32(2e-3)
    losses, gradients = problem.losses_and_gradients(w)
    np.testing.assert_allclose(losses, problem.losses(w), rtol=1e-5)
    for k in range(3):
        direction = standard_normal(("direction", k), dim(problem))
        direction /= np.linalg.norm(direction)
        slopes = (problem.losses(w + h * direction) - problem.losses(w - h * direction)) / (2 * h)
        np.testing.assert_allclose(gradients @ direction, slopes, rtol=0.02, atol=2e-3)


def test_mini_batches_have_the_gradient_of_their_examples(problem: Problem) -> None:
    w, everything = somewhere(problem), np.arange(problem.examples)
    whole = problem.gradients(w, np.stack([everything, everything]))
    np.testing.assert_allclose(whole, problem.losses_and_gradients(w)[1], atol=1e-5)
    picks = np.array([[0, 1, 2], [5, 3, 4]])
    singles = np.stack([problem.gradients(w, column[:, None]) for column in picks.T])
    np.testing.assert_allclose(problem.gradients(w, picks), singles.mean(axis=0), atol=1e-5)


def test_runs_do_not_see_each_other(problem: Problem) -> None:
    w, picks = somewhere(problem, 3), np.array([[0, 1], [2, 3], [4, 5]])
    alone = np.concatenate([problem.gradients(w[i : i + 1], picks[i : i + 1]) for i in range(3)])
    np.testing.assert_allclose(problem.gradients(w, picks), alone, rtol=1e-5, atol=1e-5)
    lost = w.copy()
    lost[1] = np.nan
    with np.errstate(all="ignore"):
        losses = problem.losses(lost)
    np.testing.assert_allclose(losses[[0, 2]], problem.losses(w)[[0, 2]], rtol=1e-5)
    assert np.isnan(losses[1])


def test_held_out_examples_are_counted(problem: Problem) -> None:
    shares = problem.accuracy(somewhere(problem, 3))
    assert shares is not None and shares.shape == (3,)
    assert ((shares >= 0) & (shares <= 1)).all()


def test_shapes_cover_all_coordinates(problem: Problem) -> None:
    assert problem.start((0,)).shape == (dim(problem),)
    cut = spans(problem.shapes)
    assert cut[0][0] == 0 and cut[-1][1] == dim(problem)
    assert max(until - at for at, until in cut) == largest(problem)


def test_a_start_is_named_by_its_key() -> None:
    problem = Perceptron(few_digits(), 8)
    np.testing.assert_array_equal(problem.start((0, "a")), problem.start((0, "a")))
    assert (problem.start((0, "a")) != problem.start((1, "a"))).any()


@pytest.mark.parametrize("penalty", [0.0, 0.01])
def test_the_minimum_is_one(penalty: float) -> None:
    problem = logistic("digits", penalty, 8, 0)
    assert problem.optimum is not None and 0.1 < problem.optimum < 0.5
    near = np.stack([problem.start((0,)), 0.3 * standard_normal(("w",), dim(problem))])
    assert (problem.losses(near) > problem.optimum).all()


def test_the_minimum_by_hand() -> None:
    # two examples that contradict each other: the best is to be undecided
    assert minimum(np.array([[1.0], [-1.0]]), 0.0) == pytest.approx(np.log(2.0))


def test_examples_that_can_be_separated_have_no_loss_but_0_to_come_near_to() -> None:
    assert minimum(np.array([[1.0, 1.0], [2.0, -1.0]]), 0.0) == 0.0
    with_penalty = minimum(np.array([[1.0, 1.0], [2.0, -1.0]]), 0.1)
    assert with_penalty is not None and with_penalty > 0.1
    assert logistic("breast_cancer", 0.0, 8, 0).optimum == 0.0


def test_mini_batches_are_named_by_their_key_and_hold_no_example_twice() -> None:
    drawn = batches((0, "a"), 50, 9, 4)
    assert drawn.shape == (50, 4) and drawn.min() == 0 and drawn.max() == 8
    assert all(len(set(row)) == 4 for row in drawn.tolist())
    np.testing.assert_array_equal(drawn, batches((0, "a"), 50, 9, 4))
    assert (drawn != batches((1, "a"), 50, 9, 4)).any()
    assert sorted(batches((0,), 1, 3, 5)[0]) == [0, 1, 2]


def test_a_prompt_that_is_not_finite_is_not_asked_for() -> None:
    problem = prompt()
    w = somewhere(problem)
    w[0] = np.inf
    assert np.isnan(problem.gradients(w, np.array([[0, 1], [0, 1]]))[0]).all()
    assert np.isnan(problem.losses_and_gradients(w)[0][0])
    shares = problem.accuracy(w)
    assert shares is not None and np.isnan(shares[0]) and shares[1] >= 0


@pytest.mark.model
def test_prompt_tuning_is_of_the_real_model() -> None:
    problem = prompt_tuning(2, 3, 2, 0)
    assert problem.shapes == ((2, 576),) and problem.examples == 12
    w = problem.start((0,))[None]
    gradient = problem.gradients(w, np.array([[0, 1]]))[0]
    direction = gradient / np.linalg.norm(gradient)

    def loss(at: Array) -> float:
        batch = problem.task.batch("train", [0, 1])
        return float(problem.oracle.evaluate(problem._request(at, batch)).losses[0])

    h = np.float32(0.05)
    slope = (loss(w + h * direction) - loss(w - h * direction)) / (2 * h)
    assert slope == pytest.approx(float(gradient @ direction), rel=0.05)
