"""The surrogate search: its candidates, and what it learns from."""

import numpy as np
import pytest
from pydantic import ValidationError

from distributed_tuner.config.optimizer import SurrogateConfig
from distributed_tuner.optimizers import build
from distributed_tuner.optimizers.span import Span
from distributed_tuner.seeds import standard_normal
from distributed_tuner.values import Perturbation, Point

DIM, KEY = 40, (7, "trial", 0)


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
