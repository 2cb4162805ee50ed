"""Gradients of every white box: against differences of its losses, whatever the layout, the tiles and the loss."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from tiny_models import ARCHITECTURES, MASKED_ARCHITECTURES, MIXED, SPEC, batch_of

from distributed_tuner.config.oracle import Tile
from distributed_tuner.errors import ModelError
from distributed_tuner.oracles.base import GRADIENT_QUERIES, LossOracle, value_and_grad
from distributed_tuner.oracles.codec import codec_of
from distributed_tuner.oracles.wrappers.tiled import TiledOracle
from distributed_tuner.seeds import standard_normal
from distributed_tuner.values import (
    Array,
    Candidate,
    Center,
    Embedded,
    Latent,
    Perturbation,
    Point,
    Projection,
    PromptSpec,
    Request,
    Text,
)

MEMBERS = ("analytic-logistic", "analytic-quadratic", *ARCHITECTURES, *MASKED_ARCHITECTURES)
LAYOUTS = ("prefix", "suffix", "add")
RADIUS = 0.4  # of the coordinates, in the prompt's units
DIRECTIONS, STEP = 6, 0.005  # along which differences are taken, and how far: short, for the kinks of ReLU


@dataclass(frozen=True)
class Member:
    """A white box, and requests that fit it."""

    oracle: LossOracle
    masked: bool = False

    def spec(self, layout: str = "prefix", **more: Any) -> PromptSpec:
        if layout == "suffix" and self.masked:
            pytest.skip("a masked model has no suffix layout")
        return replace(SPEC, layout=layout, **({"init": "zeros"} if layout == "add" else {}), **more)

    @property
    def dim(self) -> int:
        return SPEC.length * self.oracle.info.width

    def points(self, count: int = 2) -> tuple[Point, ...]:
        return tuple(Point(np.float32(RADIUS) * standard_normal(("point", i), self.dim)) for i in range(count))

    def request(self, layout: str = "prefix", count: int = 2, **more: Any) -> Request:
        return Request(self.points(count), MIXED, self.spec(layout, **more))


def white_box(name: str, tiny_oracle: Any, analytic: Any) -> Member:
    if name.startswith("analytic"):
        return Member(analytic(function=name.removeprefix("analytic-"), width=8))
    return Member(tiny_oracle(name, gradients=True), name in MASKED_ARCHITECTURES)


@pytest.fixture(scope="module", params=MEMBERS)
def member(request: pytest.FixtureRequest, tiny_oracle: Any, analytic: Any) -> Member:
    return white_box(request.param, tiny_oracle, analytic)


def gradients_of(oracle: LossOracle, request: Request) -> Array:
    found = value_and_grad(oracle, request).gradients
    assert found is not None
    assert found.dtype == np.float32
    return found


def slopes_by_differences(oracle: LossOracle, request: Request, x: Array, ways: list[Array]) -> list[float]:
    """Return the loss's slope at x along each way: central differences of fourth order."""
    shifts = np.array([1, -1, 2, -2]) * STEP
    points = tuple(Point((x + shift * way).astype(np.float32)) for way in ways for shift in shifts)
    losses = oracle.evaluate(replace(request, candidates=points)).losses.reshape(len(ways), 4)
    return list((8 * (losses[:, 0] - losses[:, 1]) - (losses[:, 2] - losses[:, 3])) / (12 * STEP))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("scale", ["paper", "embedding"])
def test_gradients_are_the_losses_slopes(member: Member, layout: str, scale: str) -> None:
    request = member.request(layout, scale=scale)
    for point, gradient in zip(member.points(), gradients_of(member.oracle, request), strict=True):
        ways = [standard_normal(("way", i), member.dim) for i in range(DIRECTIONS)]
        ways = [way / np.linalg.norm(way) for way in [*ways, gradient]]
        expected = slopes_by_differences(member.oracle, request, point.vector, ways)
        largest = np.linalg.norm(gradient)
        assert largest > 1e-4
        np.testing.assert_allclose([gradient @ way for way in ways], expected, atol=0.01 * largest)


def test_gradients_of_the_hinge_loss(member: Member) -> None:
    request = member.request()
    request = replace(request, batch=replace(MIXED, loss="hinge"))
    (gradient, _) = gradients_of(member.oracle, request)
    entropy = gradients_of(member.oracle, member.request())[0]
    assert not np.allclose(gradient, entropy)
    ways = [standard_normal(("way", i), member.dim) / member.dim**0.5 for i in range(DIRECTIONS)]
    expected = slopes_by_differences(member.oracle, request, member.points()[0].vector, ways)
    np.testing.assert_allclose([gradient @ way for way in ways], expected, atol=0.02 * np.linalg.norm(gradient))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_asking_for_gradients_changes_no_loss(member: Member, layout: str) -> None:
    request = member.request(layout)
    plain, asked = member.oracle.evaluate(request), value_and_grad(member.oracle, request)
    assert plain.gradients is None
    np.testing.assert_allclose(asked.losses, plain.losses, atol=1e-5, rtol=1e-5)
    np.testing.assert_array_equal(gradients_of(member.oracle, request), asked.gradients)
    again = member.oracle.evaluate(request)
    assert again.losses.tobytes() == plain.losses.tobytes()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("tile", [(2, 1), (2, 3), (4, 64)])
def test_tiles_change_nothing_but_rounding(member: Member, layout: str, tile: tuple[int, int]) -> None:
    request = member.request(layout, count=3)
    whole = value_and_grad(member.oracle, request)
    tiled = TiledOracle(member.oracle, Tile(candidates=tile[0], examples=tile[1]))
    pieces = value_and_grad(tiled, request)
    assert whole.gradients is not None and pieces.gradients is not None
    scale = np.abs(whole.gradients).max()
    np.testing.assert_allclose(pieces.gradients, whole.gradients, atol=1e-5 * max(1.0, scale))
    costs = [(c.queries, c.forwards, c.tokens) for c in (pieces.cost, whole.cost)]
    assert costs[0] == costs[1]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_gradient_costs_three_queries(member: Member, layout: str) -> None:
    request = Request(member.points(), batch_of(["a good film", "bad"]), member.spec(layout))
    plain, asked = (member.oracle.cost(replace(request, gradient=gradient)) for gradient in (False, True))
    assert GRADIENT_QUERIES == 3
    assert (asked.queries, asked.forwards, asked.tokens) == (3 * 2, 3 * plain.forwards, 3 * plain.tokens)
    charged = value_and_grad(member.oracle, request).cost
    assert (charged.queries, charged.forwards, charged.tokens) == (asked.queries, asked.forwards, asked.tokens)


def test_every_soft_recipe_has_the_gradient_of_its_point(member: Member) -> None:
    center = Center("c", np.float32(RADIUS) * standard_normal(("center",), member.dim))
    recipes: tuple[Candidate, ...] = (
        Perturbation(center, ("noise",), -1, 0.2),
        Latent(standard_normal(("z",), 6), Projection(seed=3, dim=6, alpha=0.5, sigma=1.0), center),
        Embedded("the plot was dull"),
    )
    spec = member.spec(scale="paper")
    explicit = replace(spec, init="zeros", text="")
    points = tuple(Point(codec_of(member.oracle).materialize(recipe, spec).reshape(-1)) for recipe in recipes)
    found = gradients_of(member.oracle, Request(recipes, MIXED, spec))
    expected = gradients_of(member.oracle, Request(points, MIXED, explicit))
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_a_candidate_that_is_not_finite_harms_no_other(member: Member) -> None:
    (good,) = member.points(1)
    broken = Point(np.full(member.dim, np.nan, dtype=np.float32))
    request = Request((broken, good), MIXED, member.spec())
    alone = gradients_of(member.oracle, replace(request, candidates=(good,)))
    both = value_and_grad(member.oracle, request)
    assert both.gradients is not None
    assert np.isnan(both.losses[0]) and not np.isfinite(both.gradients[0]).all()
    np.testing.assert_allclose(both.gradients[1], alone[0], atol=1e-5 * max(1.0, np.abs(alone).max()))


def test_a_text_in_words_has_no_gradient(member: Member) -> None:
    with pytest.raises(ModelError, match="soft ones"):
        value_and_grad(member.oracle, Request((Text("Classify"),), MIXED, member.spec()))
