"""The random projection: its scale, its distributions, its application."""

import math

import numpy as np
import pytest

from distributed_tuner.maths.bbt import SOLVE_ROWS, apply_projection, make_projection, projection_std, solve_projection
from distributed_tuner.seeds import generator


def test_projection_std_by_hand():
    assert projection_std(alpha=2.0, embedding_std=0.5, dim=100, sigma=0.2) == pytest.approx(0.5)


def test_prompts_are_as_wide_as_alpha_embeddings():
    std = projection_std(alpha=0.5, embedding_std=0.04, dim=200, sigma=0.3)
    a = make_projection(generator((1,)), 4000, 200, std)
    z = 0.3 * generator((2,)).standard_normal(200, dtype=np.float32)
    assert a.shape == (4000, 200) and a.dtype == np.float32
    assert a.std() == pytest.approx(std, rel=0.01)
    assert apply_projection(a, z).std() == pytest.approx(0.5 * 0.04, rel=0.15)


def test_uniform_entries_fill_their_interval():
    a = make_projection(generator((1,)), 2000, 25, std=99.0, distribution="uniform")
    assert a.dtype == np.float32
    assert np.abs(a).max() <= 0.2
    assert a.min() < -0.19 and a.max() > 0.19
    assert a.std() == pytest.approx(0.2 / math.sqrt(3), rel=0.02)


def test_the_same_generator_makes_the_same_matrix():
    for distribution in ("normal", "uniform"):
        one, two, three = (make_projection(generator((seed,)), 30, 4, 0.1, distribution) for seed in (5, 5, 6))
        np.testing.assert_array_equal(one, two)
        assert not np.array_equal(one, three)


def test_apply_is_a_matrix_product_for_one_and_for_many():
    a = np.array([[1, 2], [3, 4], [5, 6]], dtype=np.float32)
    assert apply_projection(a, np.array([1, 1], dtype=np.float32)).tolist() == [3, 7, 11]
    many = apply_projection(a, np.array([[1, 0], [0, 1]], dtype=np.float32))
    assert many.tolist() == [[1, 3, 5], [2, 4, 6]]
    assert many.dtype == np.float32


@pytest.mark.parametrize(("rows", "columns"), [(40, 8), (SOLVE_ROWS + 100, 5), (6, 9)])
def test_solving_finds_the_nearest_point_of_the_subspace(rows, columns):
    a = make_projection(generator((1,)), rows, columns, 0.3)
    p = generator((2,)).standard_normal(rows, dtype=np.float32)
    z = solve_projection(a, p)
    assert z.dtype == np.float64
    np.testing.assert_allclose(z, np.linalg.lstsq(a.astype(np.float64), p, rcond=None)[0], rtol=1e-6, atol=1e-8)
