"""ZOT's own promises: pairs around one centre, dropped pairs, ZO-SGD, schedule, noise keys."""

import numpy as np
import pytest

from distributed_tuner.config.optimizer import ZotConfig
from distributed_tuner.optimizers import Optimizer, build
from distributed_tuner.seeds import standard_normal
from distributed_tuner.values import Perturbation, Point

DIM, KEY = 5, (1, "t", 0)
PLAIN = ZotConfig(rho=0.5, learning_rate=0.1, clip=0, momentum=0, schedule="constant")


def make(config: ZotConfig, steps: int = 10) -> Optimizer:
    return build(config, dim=DIM, key=KEY, steps=steps)


def pairs(optimizer: Optimizer) -> list[Perturbation]:
    asked = [candidate for candidate in optimizer.ask() if isinstance(candidate, Perturbation)]
    assert len(asked) == optimizer.queries_per_step
    return asked


def x_of(optimizer: Optimizer) -> np.ndarray:
    recommended = optimizer.recommend()
    assert isinstance(recommended, Point)
    return recommended.vector


def test_pairs_share_one_centre_and_alternate_signs():
    optimizer = make(ZotConfig(points=3, rho=0.2))
    asked = pairs(optimizer)
    assert [candidate.sign for candidate in asked] == [1, -1] * 3
    assert [candidate.key for candidate in asked] == [(*KEY, 0, i) for i in (0, 0, 1, 1, 2, 2)]
    assert len({id(candidate.center) for candidate in asked}) == 1
    assert {candidate.radius for candidate in asked} == {0.2}


def test_options_off_is_zo_sgd_by_hand():
    optimizer = make(PLAIN)
    x = np.zeros(DIM)
    for step, (plus, minus) in enumerate([(2.0, 1.0), (0.3, 0.7), (5.0, 5.0)]):
        pairs(optimizer)
        optimizer.tell([plus, minus])
        x = x - 0.1 * (plus - minus) / (2 * 0.5) * standard_normal((*KEY, step, 0), DIM)
        np.testing.assert_allclose(x_of(optimizer), x, rtol=1e-6, atol=1e-7)


def test_a_pair_with_a_failed_member_is_left_out_of_the_mean():
    optimizer = make(PLAIN.model_copy(update={"points": 3}))
    pairs(optimizer)
    optimizer.tell([2.0, 1.0, np.nan, 1.0, 4.0, 1.0])
    z = [standard_normal((*KEY, 0, i), DIM) for i in range(3)]
    np.testing.assert_allclose(x_of(optimizer), -0.1 * (1.0 * z[0] + 3.0 * z[2]) / 2, rtol=1e-5)


def test_a_lost_step_moves_the_schedule_only():
    config = ZotConfig(rho=0.5, learning_rate=0.1, clip=0, momentum=0.9)
    optimizer = make(config)
    pairs(optimizer)
    optimizer.tell([np.nan, 1.0])
    assert not x_of(optimizer).any()
    pairs(optimizer)
    optimizer.tell([2.0, 1.0])
    gamma = 0.01 + 0.09 * (1 + np.cos(np.pi / 10)) / 2
    assert optimizer.metrics()["learning_rate"] == pytest.approx(gamma)
    # the first update of m, hence its bias correction undoes 1 - beta wholly
    np.testing.assert_allclose(x_of(optimizer), -gamma * standard_normal((*KEY, 1, 0), DIM), rtol=1e-5)


def test_the_learning_rate_ends_at_its_floor_and_stays_there():
    optimizer = make(ZotConfig(learning_rate=0.5, floor=0.2), steps=3)
    rates = []
    for _ in range(6):
        pairs(optimizer)
        optimizer.tell([1.0, 0.5])
        rates.append(optimizer.metrics()["learning_rate"])
    assert rates[0] == 0.5
    assert rates == sorted(rates, reverse=True)
    assert rates[3:] == pytest.approx([0.1] * 3)


def test_center_ids_differ_between_steps_and_between_contents():
    optimizer, restarted = make(PLAIN), make(PLAIN)
    first = pairs(optimizer)[0].center.id
    optimizer.tell([2.0, 1.0])
    second = pairs(optimizer)[0].center.id
    pairs(restarted)
    restarted.tell([9.0, 1.0])  # the same key and step as ``second``, around another point
    assert len({first, second, pairs(restarted)[0].center.id}) == 3


def test_batch_size_is_the_stages_to_read():
    assert make(ZotConfig(batch_size=16)).batch_size == 16
    assert make(ZotConfig(points=4)).queries_per_step == 8
