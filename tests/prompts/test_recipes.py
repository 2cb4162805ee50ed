"""Coordinates of candidates: the formulas by hand, and the same bits on every machine."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from distributed_tuner.errors import OracleError
from distributed_tuner.prompts import recipes as module
from distributed_tuner.prompts.recipes import Recipes
from distributed_tuner.seeds import generator, standard_normal
from distributed_tuner.values import Candidate, Center, Latent, Perturbation, Point, Projection, Text

DIM = 12
CENTER = Center("c", np.arange(DIM, dtype=np.float32))
KEY = (0, "zot-0001", "search", 4, 2)


def test_a_perturbation_is_its_centre_plus_signed_noise() -> None:
    z = standard_normal(KEY, DIM)
    for sign in (1, -1):
        x = Recipes(0.5).coordinates(Perturbation(CENTER, KEY, sign, 0.25), DIM, unit=0.1)
        np.testing.assert_allclose(x, CENTER.vector + sign * 0.25 * z, rtol=1e-6)
        assert x.dtype == np.float32
    np.testing.assert_array_equal(CENTER.vector, np.arange(DIM))


def test_a_perturbation_of_no_radius_is_its_centre() -> None:
    x = Recipes(0.5).coordinates(Perturbation(CENTER, KEY, 1, 0.0), DIM, unit=1.0)
    np.testing.assert_array_equal(x, CENTER.vector)


def test_different_keys_share_no_noise() -> None:
    keys = [KEY, (1, *KEY[1:]), (*KEY[:-1], 3), ("0", *KEY[1:])]
    drawn = {standard_normal(key, DIM).tobytes() for key in keys}
    assert len(drawn) == len(keys)


@pytest.mark.parametrize("unit", [1.0, 0.05])
def test_a_latent_is_projected_by_the_normal_matrix_of_bbt(unit: float) -> None:
    projection = Projection(seed=5, dim=4, alpha=2.0, sigma=0.5)
    z = np.array([1.0, -2.0, 0.5, 3.0], dtype=np.float32)
    std = 2.0 * 0.3 / (np.sqrt(4) * 0.5)  # alpha std(E) / (sqrt(K) sigma), in embedding space
    a = generator(("projection", 5)).standard_normal((DIM, 4), dtype=np.float32) * std
    x = Recipes(0.3).coordinates(Latent(z, projection), DIM, unit)
    np.testing.assert_allclose(x * unit, a @ z, rtol=1e-5, atol=1e-6)
    moved = Recipes(0.3).coordinates(Latent(z, projection, CENTER), DIM, unit)
    np.testing.assert_allclose(moved, CENTER.vector + x, rtol=1e-5, atol=1e-5)


def test_a_uniform_projection_is_the_linear_layers_default() -> None:
    projection = Projection(seed=5, dim=16, alpha=2.0, sigma=0.5, distribution="uniform")
    columns = np.stack(
        [Recipes(0.3).coordinates(Latent(row, projection), 500, unit=1.0) for row in np.eye(16, dtype=np.float32)]
    )
    assert np.abs(columns).max() <= 0.25
    assert columns.std() == pytest.approx(0.5 / np.sqrt(12), rel=0.02)
    assert abs(columns.mean()) < 0.01


def test_a_latent_spreads_as_widely_as_alpha_times_the_embeddings() -> None:
    projection = Projection(seed=1, dim=50, alpha=1.5, sigma=2.0)
    maker = Recipes(0.2)
    x = [maker.coordinates(Latent(2.0 * standard_normal((i,), 50), projection), 300, unit=1.0) for i in range(40)]
    assert np.std(x) == pytest.approx(1.5 * 0.2, rel=0.05)


def test_a_point_is_its_vector() -> None:
    np.testing.assert_array_equal(Recipes(1.0).coordinates(Point(CENTER.vector), DIM, unit=0.1), CENTER.vector)


PROJECTION = Projection(seed=5, dim=4, alpha=1.0, sigma=1.0)
SHORT = np.zeros(3, dtype=np.float32)


@pytest.mark.parametrize(
    "candidate",
    [
        Point(SHORT),
        Point(np.zeros((3, 4), dtype=np.float32)),
        Perturbation(Center("c", SHORT), KEY, 1, 0.1),
        Perturbation(Center("c", SHORT[:1]), KEY, 1, 0.1),
        Latent(SHORT, PROJECTION),
        Latent(np.zeros(4, dtype=np.float32), PROJECTION, Center("c", SHORT[:1])),
    ],
    ids=["short-point", "matrix", "short-centre", "broadcast-centre", "short-latent", "broadcast-origin"],
)
def test_a_vector_of_another_size_is_refused(candidate: Candidate) -> None:
    with pytest.raises(OracleError, match=r"must have (12|4) coordinates, but got an array of shape"):
        Recipes(1.0).coordinates(candidate, DIM, unit=1.0)


def test_a_text_is_refused() -> None:
    with pytest.raises(OracleError, match="ask for soft candidates only"):
        Recipes(1.0).coordinates(Text("Classify"), DIM, unit=1.0)


def test_projections_are_made_once_and_the_least_used_goes_when_memory_is_short(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[int] = []
    make = module.make_projection

    def counted(rng: np.random.Generator, size: int, dim: int, *rest: object) -> object:
        made.append(dim)
        return make(rng, size, dim, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "make_projection", counted)
    monkeypatch.setattr(module, "PROJECTION_BYTES", 4 * DIM * 7)  # room for the projections of 3 and 4 columns
    maker = Recipes(1.0)

    def use(columns: int) -> bytes:
        latent = Latent(np.ones(columns, dtype=np.float32), Projection(0, columns, 1.0, 1.0))
        return maker.coordinates(latent, DIM, unit=1.0).tobytes()

    first = use(3)
    use(4)
    assert use(3) == first
    assert made == [3, 4]
    use(2)  # pushes out 4, which was used before 3
    use(3)
    assert made == [3, 4, 2]
    use(4)
    assert made == [3, 4, 2, 4]
    assert sum(a.nbytes for a in maker._projections.values()) <= 4 * DIM * 7
    use(9)  # larger than the bound on its own: still answered
    assert use(3) == first


def test_another_process_draws_the_same_bits() -> None:
    script = f"""
import numpy as np
from distributed_tuner.prompts.recipes import Recipes
from distributed_tuner.values import Center, Latent, Perturbation, Projection
center = Center("c", np.arange({DIM}, dtype=np.float32))
maker = Recipes(0.3)
print(maker.coordinates(Perturbation(center, {KEY!r}, -1, 0.25), {DIM}, 0.1).tobytes().hex())
print(maker.coordinates(Latent(np.ones(4, np.float32), Projection(5, 4, 2.0, 0.5), center), {DIM}, 0.1).tobytes().hex())
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    maker = Recipes(0.3)
    here = [
        maker.coordinates(candidate, DIM, 0.1).tobytes().hex()
        for candidate in (
            Perturbation(CENTER, KEY, -1, 0.25),
            Latent(np.ones(4, np.float32), Projection(5, 4, 2.0, 0.5), CENTER),
        )
    ]
    assert done.stdout.split() == here
