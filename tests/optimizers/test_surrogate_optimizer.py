"""The surrogate search: its candidates, and what it learns from."""

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from distributed_tuner.config.optimizer import SurrogateConfig
from distributed_tuner.errors import ConfigError, OptimizerError
from distributed_tuner.heads.objective import profiled
from distributed_tuner.optimizers import build, surrogate
from distributed_tuner.optimizers.span import Span
from distributed_tuner.seeds import standard_normal
from distributed_tuner.values import Answers, Batch, Example, Objective, Perturbation, Point

DIM, KEY = 40, (7, "trial", 0)
ROWS = tuple(Example(str(i), "text", " It was", i % 3) for i in range(12))
BATCH = Batch(ROWS, (" bad", " fine", " good"), "train", objective=Objective("bias"))
LABELS = np.array([example.label for example in ROWS])
TURN = np.random.default_rng(5).standard_normal((DIM, 36)) / DIM**0.5


def make(key=KEY, **settings):
    return build(SurrogateConfig(**{"popsize": 8, "rho": 0.1} | settings), dim=DIM, key=key, steps=10)


def test_the_first_step_is_the_start_and_probes_around_it(materialise):
    start, *probes = make().ask()
    assert isinstance(start, Point) and not start.vector.any()
    assert len(probes) == 7
    for i, probe in enumerate(probes):
        np.testing.assert_array_equal(materialise(probe), np.float32(0.1) * standard_normal((*KEY, 0, i), DIM))


def test_later_steps_are_four_reaches_along_what_was_learnt_and_probes_around_one_of_them(run, sphere, materialise):
    optimizer = make()
    run(optimizer, 1)
    best = materialise(optimizer.recommend())
    asked = optimizer.ask()
    steps, probes = asked[:4], asked[4:]
    lengths = [float(np.linalg.norm(materialise(step) - best)) for step in steps]
    assert lengths == sorted(lengths) and lengths[0] > 0
    assert all(sphere(materialise(step)) < sphere(best) for step in steps)
    for probe in probes:
        assert isinstance(probe, Perturbation)
        np.testing.assert_allclose(probe.center.vector, materialise(steps[2]))


def test_it_takes_far_fewer_queries_than_zeroth_order_descent_does(run, sphere, materialise):
    optimizer = make()
    run(optimizer, 30)
    assert sphere(materialise(optimizer.recommend())) < 0.1  # after 240 queries in 40 dimensions; 10 at the start


def test_a_flat_loss_keeps_it_where_it_is(run, materialise):
    optimizer = make()
    asked = run(optimizer, 3, lambda x: 1.0)
    assert np.isfinite(asked).all()
    np.testing.assert_array_equal(materialise(optimizer.recommend()), np.zeros(DIM))


def test_losses_far_below_all_others_do_no_harm(run):
    assert np.isfinite(run(make(), 6, lambda x: -float(np.exp(min(50.0, x.sum()))))).all()


def test_the_state_of_another_trial_is_the_place_alone(run, materialise):
    original, clone = make(), make((7, "other", 0))
    run(original, 4)
    clone.load_state_dict(original.state_dict())
    place = materialise(original.recommend())
    np.testing.assert_array_equal(materialise(clone.recommend()), place)
    first, *_ = clone.ask()
    np.testing.assert_array_equal(materialise(first), place)


def test_a_step_has_room_for_probes():
    with pytest.raises(ValidationError, match="greater than or equal to 6"):
        SurrogateConfig(popsize=5)


def test_a_span_makes_its_points_again_from_keys():
    start = np.full(DIM, 0.5, dtype=np.float32)
    span = Span(start)
    span.add([("a", 1), ("a", 2)])
    span.add([("b", 1)])
    z = np.stack([standard_normal(key, DIM) for key in (("a", 1), ("a", 2), ("b", 1))])
    np.testing.assert_allclose(span.gram, z @ z.T, rtol=1e-5)
    again = Span.restored(span.save())
    for one in (span, again):
        points = one.points(np.array([[1.0, -2.0, 0.5], [0.0, 0.0, 0.0]]))
        np.testing.assert_allclose(points, [0.5 + np.array([1.0, -2.0, 0.5]) @ z, start], rtol=1e-5, atol=1e-5)
        assert not points.flags.writeable
    np.testing.assert_array_equal(span.points(np.array([[3.0]]))[0], start + np.float32(3) * z[0])


# ------------------------------------------------------------------------------------------------- of answers
def saturating(x):
    """Scores (12, 3) that saturate, as a model's do, so that their loss is no quadratic of the coordinates."""
    return (3.0 * np.tanh(x @ TURN)).reshape(12, 3).astype(np.float32)


def loss_of(logits):
    return profiled(np.asarray(logits), None, LABELS, BATCH.objective)[0]


def taught(optimizer, steps, materialise, spoil=lambda logits: logits, losses_alone=False):
    """Take steps in the world of saturating scores; return the best loss."""
    for _ in range(steps):
        logits = spoil(np.stack([saturating(materialise(candidate)) for candidate in optimizer.ask()]))
        optimizer.tell(loss_of(logits), answers=None if losses_alone else Answers(logits, BATCH))
    return float(loss_of([saturating(materialise(optimizer.recommend()))])[0])


def test_answers_lead_lower_than_their_losses_alone(materialise):
    of_answers = taught(make(of="answers"), 12, materialise)
    of_losses = taught(make(), 12, materialise, losses_alone=True)
    assert of_answers < of_losses < 0.5 * np.log(3)


def test_what_is_expected_of_answers_is_the_loss_that_is_told(materialise):
    optimizer = make(of="answers")
    for _ in range(12):
        taught(optimizer, 1, materialise)
        told = optimizer.metrics()
    assert told["expected_loss"] == pytest.approx(told["best_loss"], rel=0.05)


def test_a_candidate_without_finite_answers_is_left_out(materialise):
    def spoil(logits):
        logits[-1, 3, 1] = -np.inf  # a finite loss, of a label word that is not the right one
        return logits

    optimizer = make(of="answers")
    taught(optimizer, 1, materialise, spoil)
    state = optimizer.state_dict()
    assert state["answers"].shape == (7, 36) and state["answers"].dtype == np.float32
    assert np.isfinite(state["answers"]).all()


def test_losses_without_any_answers_are_refused(materialise):
    optimizer = make(of="answers")
    asked = len(optimizer.ask())
    nothing = Answers(np.full((asked, 12, 3), np.nan, dtype=np.float32), BATCH)
    with pytest.raises(OptimizerError, match=r"no candidate has finite scores for all of them; set .* of: losses"):
        optimizer.tell(np.ones(asked), answers=nothing)


def test_other_examples_in_a_later_step_are_refused(materialise):
    optimizer = make(of="answers")
    taught(optimizer, 1, materialise)
    asked = optimizer.ask()
    fewer = replace(BATCH, examples=ROWS[:6])
    with pytest.raises(OptimizerError, match="the same examples in every step"):
        optimizer.tell(np.ones(len(asked)), answers=Answers(np.zeros((len(asked), 6, 3), dtype=np.float32), fewer))


@pytest.mark.parametrize(
    "batch",
    [
        replace(BATCH, loss="zero_one", objective=Objective()),
        replace(BATCH, objective=Objective("bias", "leave_one_out")),
    ],
)
def test_a_loss_without_a_slope_is_refused(batch):
    optimizer = make(of="answers")
    asked = len(optimizer.ask())
    with pytest.raises(ConfigError, match="needs a loss with a slope"):
        optimizer.tell(np.ones(asked), answers=Answers(np.zeros((asked, 12, 3), dtype=np.float32), batch))


def test_what_is_kept_is_bounded(materialise, monkeypatch):
    monkeypatch.setattr(surrogate, "NUMBERS", 36 * 10)
    optimizer = make(of="answers")
    taught(optimizer, 4, materialise)
    state = optimizer.state_dict()
    assert len(state["answers"]) == len(state["coefficients"]) == 10
    assert np.isfinite(taught(optimizer, 2, materialise))


def test_after_many_probes_it_begins_anew_around_its_best(run, materialise, monkeypatch):
    monkeypatch.setattr(surrogate, "VECTORS", 30)
    optimizer = make()
    run(optimizer, 5)  # 7 + 4 x 4 probes
    best = materialise(optimizer.recommend())
    assert best.any() and len(optimizer.state_dict()["span"]["keys"]) == 0
    np.testing.assert_array_equal(materialise(optimizer.ask()[0]), best)
