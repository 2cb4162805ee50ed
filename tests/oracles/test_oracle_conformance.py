"""What every oracle promises, over every member of the family. A new oracle joins by one line in MEMBERS."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from tiny_models import ARCHITECTURES, MASKED_ARCHITECTURES, MIXED, SPEC, batch_of

from distributed_tuner.config.oracle import Price, Tile
from distributed_tuner.errors import ModelError
from distributed_tuner.oracles.base import LossOracle
from distributed_tuner.oracles.wrappers.tiled import TiledOracle
from distributed_tuner.seeds import standard_normal
from distributed_tuner.stages.coordinates import coordinates
from distributed_tuner.values import (
    Candidate,
    Center,
    Embedded,
    Evaluation,
    Latent,
    Perturbation,
    Point,
    Projection,
    PromptSpec,
    Request,
    Text,
    TokenSpace,
)

MEMBERS = ("analytic-logistic", "analytic-quadratic", *ARCHITECTURES, *MASKED_ARCHITECTURES)
LAYOUTS = ("prefix", "suffix", "add")
PROJECTION = Projection(seed=3, dim=6, alpha=1.0, sigma=1.0)


@dataclass(frozen=True)
class Member:
    """An oracle, how to build it at a price, and requests that fit it."""

    oracle: LossOracle
    priced: Callable[[Price], LossOracle]
    masked: bool = False

    @property
    def around(self) -> int:
        """Tokens that a masked model reads beside the words: two special ones and the mask."""
        return 3 if self.masked else 0

    def spec(self, layout: str = "prefix", **more: Any) -> PromptSpec:
        if layout == "suffix" and self.masked:
            pytest.skip("a masked model has no suffix layout")
        return replace(SPEC, layout=layout, **({"init": "zeros"} if layout == "add" else {}), **more)

    def candidates(self, texts: bool = False) -> tuple[Candidate, ...]:
        dim = SPEC.length * self.oracle.info.width
        center = Center("c", standard_normal(("center",), dim))
        soft: tuple[Candidate, ...] = tuple(
            Perturbation(center, ("noise", i), sign, 0.7) for i in range(2) for sign in (1, -1)
        )
        soft += (Latent(standard_normal(("z",), 6), PROJECTION, center), Point(standard_normal(("point",), dim)))
        return (*soft, Text("Classify the movie review"), Text("")) if texts else soft

    def request(self, layout: str = "prefix", texts: bool = False) -> Request:
        return Request(self.candidates(texts), MIXED, self.spec(layout))


@pytest.fixture(scope="module", params=MEMBERS)
def member(request: pytest.FixtureRequest, tiny_oracle: Any, analytic: Any) -> Member:
    name = request.param
    if name.startswith("analytic"):
        settings = {"function": name.removeprefix("analytic-"), "width": 8}
        return Member(analytic(**settings), lambda price: analytic(**settings, price=price))
    masked = name in MASKED_ARCHITECTURES
    return Member(tiny_oracle(name), lambda price: tiny_oracle(name, price=price), masked)


def same_bits(a: Evaluation, b: Evaluation) -> bool:
    return all(
        getattr(a, part).tobytes() == getattr(b, part).tobytes() for part in ("losses", "example_losses", "logits")
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_request_twice_gives_the_same_bits(member: Member, layout: str) -> None:
    request = member.request(layout, texts=True)
    first = member.oracle.evaluate(request)
    member.oracle.evaluate(Request(request.candidates[:1], batch_of(["slow"], " and"), request.prompt))
    assert same_bits(first, member.oracle.evaluate(request))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_answer_has_the_requests_shape_and_tells_candidates_apart(member: Member, layout: str) -> None:
    request = member.request(layout)
    answer = member.oracle.evaluate(request)
    count, rows = len(request.candidates), len(MIXED.examples)
    assert answer.losses.shape == (count,)
    assert answer.example_losses.shape == (count, rows)
    assert answer.logits.shape == (count, rows, 2)
    assert answer.logits.dtype == np.float32
    assert np.isfinite(answer.losses).all()
    assert len(np.unique(answer.losses)) == count


def test_the_loss_is_the_mean_cross_entropy_of_the_label_words(member: Member) -> None:
    request = member.request()
    answer = member.oracle.evaluate(request)
    logits = answer.logits.astype(np.float64)
    labels = [example.label for example in MIXED.examples]
    expected = np.log(np.exp(logits).sum(axis=2)) - logits[:, np.arange(len(labels)), labels]
    np.testing.assert_allclose(answer.example_losses, expected, atol=1e-9)
    np.testing.assert_allclose(answer.losses, expected.mean(axis=1), atol=1e-9)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("tile", [(2, 1), (2, 3), (4, 64), (5, 4)])
def test_tiles_change_nothing_but_rounding(member: Member, layout: str, tile: tuple[int, int]) -> None:
    request = member.request(layout, texts=True)
    whole = member.oracle.evaluate(request)
    tiled = TiledOracle(member.oracle, Tile(candidates=tile[0], examples=tile[1]))
    pieces = tiled.evaluate(request)
    np.testing.assert_allclose(pieces.losses, whole.losses, atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(pieces.logits, whole.logits, atol=2e-5, rtol=1e-5)
    assert same_bits(pieces, tiled.evaluate(request))
    costs = [(c.queries, c.forwards, c.tokens) for c in (pieces.cost, whole.cost)]
    assert costs[0] == costs[1]


@pytest.mark.parametrize("member", MEMBERS[:2], indirect=True)
@pytest.mark.parametrize("gradient", [False, True])
def test_tiles_of_an_analytic_oracle_do_not_even_round_otherwise(member: Member, gradient: bool) -> None:
    request = replace(member.request("prefix", texts=not gradient), gradient=gradient)
    whole = member.oracle.evaluate(request)
    assert len(request.candidates) > 4
    for candidates in (2, 4):
        tiled = TiledOracle(member.oracle, Tile(candidates=candidates, examples=64)).evaluate(request)
        assert same_bits(tiled, whole)
        if gradient:
            np.testing.assert_array_equal(tiled.gradients, whole.gradients)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_order_of_candidates_is_irrelevant_to_each(member: Member, layout: str) -> None:
    request = member.request(layout, texts=True)
    order = np.random.default_rng(1).permutation(len(request.candidates))
    straight = member.oracle.evaluate(request)
    shuffled = member.oracle.evaluate(replace(request, candidates=tuple(request.candidates[i] for i in order)))
    np.testing.assert_allclose(shuffled.logits, straight.logits[order], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_order_of_examples_is_irrelevant_to_each(member: Member, layout: str) -> None:
    request = member.request(layout)
    backwards = replace(request, batch=replace(MIXED, examples=MIXED.examples[::-1]))
    straight, reversed_ = member.oracle.evaluate(request), member.oracle.evaluate(backwards)
    np.testing.assert_allclose(reversed_.logits[:, ::-1], straight.logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_cost_counts_queries_forwards_and_tokens(member: Member, layout: str) -> None:
    # Text and cue: "a good film" 3, "bad" 1, " It was" 2 a row. Five prompt rows a forward, two soft candidates. The
    # text prompt "Classify the movie" is 3 words, and a newline that is a token to the language models. A masked model
    # reads more around them.
    batch = batch_of(["a good film", "bad"])
    texts = (Text("Classify the movie"),)
    request = Request((*member.candidates()[:2], *texts), batch, member.spec(layout))
    newline = 0 if member.oracle.info.model.startswith("analytic") else 1
    around = member.around
    soft = 2 * ((3 + 2) + (1 + 2) + 2 * (5 + around))
    hard = (3 + 2) + (1 + 2) + 2 * (3 + newline + around)
    cost = member.oracle.cost(request)
    assert (cost.queries, cost.forwards, cost.tokens, cost.seconds) == (3, 6, soft + hard, 0.0)
    charged = member.oracle.evaluate(request).cost
    assert (charged.queries, charged.forwards, charged.tokens) == (cost.queries, cost.forwards, cost.tokens)
    assert charged.seconds > 0


def test_dollars_go_by_the_token_before_and_by_the_second_after(member: Member) -> None:
    oracle = member.priced(Price(usd_per_million_input_tokens=2.0, usd_per_device_hour=3600.0))
    request = Request(member.candidates()[:2], batch_of(["bad"]), member.spec())
    tokens = 2 * (1 + 2 + 5 + member.around)
    assert oracle.cost(request).usd == pytest.approx(tokens * 2e-6)
    charged = oracle.evaluate(request).cost
    assert charged.usd == pytest.approx(tokens * 2e-6 + charged.seconds)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_request_is_not_changed(member: Member, layout: str) -> None:
    request = member.request(layout, texts=True)
    before = copy.deepcopy(request)
    for candidate in request.candidates:
        if isinstance(candidate, Perturbation):
            candidate.center.vector.flags.writeable = False
        if isinstance(candidate, Point):
            candidate.vector.flags.writeable = False
    member.oracle.evaluate(request)
    member.oracle.cost(request)
    assert (request.batch, request.prompt) == (before.batch, before.prompt)
    for now, then in zip(request.candidates, before.candidates, strict=True):
        match now, then:
            case Perturbation(), Perturbation():
                assert now.center.vector.tobytes() == then.center.vector.tobytes()
                assert (now.key, now.sign, now.radius) == (then.key, then.sign, then.radius)
            case Latent(), Latent():
                assert now.z.tobytes() == then.z.tobytes()
            case Point(), Point():
                assert now.vector.tobytes() == then.vector.tobytes()
            case _:
                assert now == then


@pytest.mark.parametrize("scale", ["paper", "embedding"])
def test_an_antithetic_pair_is_symmetric_around_its_centre(member: Member, scale: str) -> None:
    spec = member.spec(scale=scale)
    plus, minus = member.candidates()[:2]
    assert isinstance(plus, Perturbation)
    assert isinstance(minus, Perturbation)
    centre = member.oracle.materialize(Point(plus.center.vector), spec)
    up, down = (member.oracle.materialize(candidate, spec) for candidate in (plus, minus))
    assert up.shape == (spec.length, member.oracle.info.width)
    np.testing.assert_allclose((up + down) / 2, centre, atol=1e-5)
    unit = member.oracle.info.embedding_std if scale == "embedding" else 1.0
    z = standard_normal(plus.key, up.size).reshape(up.shape)
    np.testing.assert_allclose((up - down) / 2, unit * 0.7 * z, atol=1e-5)


def test_a_candidate_is_worth_its_rows(member: Member) -> None:
    """Every recipe scores as the explicit point does that it stands for; this is what evaluation and export rely on."""
    spec = member.spec()
    told = member.oracle.evaluate(member.request())
    explicit = replace(spec, init="zeros", text="", scale="paper")
    points = tuple(Point(member.oracle.materialize(c, spec).reshape(-1)) for c in member.candidates())
    again = member.oracle.evaluate(Request(points, MIXED, explicit))
    np.testing.assert_allclose(again.logits, told.logits, atol=1e-5, rtol=1e-5)


def test_hinge_and_cross_entropy_share_logits_but_not_losses(member: Member) -> None:
    request = member.request()
    soft = member.oracle.evaluate(request)
    hinge = member.oracle.evaluate(replace(request, batch=replace(MIXED, loss="hinge")))
    assert hinge.logits.tobytes() == soft.logits.tobytes()
    labels = np.array([example.label for example in MIXED.examples])
    rows = np.arange(len(labels))
    logits = hinge.logits.astype(np.float64)
    margin = np.maximum(0.0, logits[:, rows, 1 - labels] - logits[:, rows, labels] + 2.0)
    np.testing.assert_allclose(hinge.example_losses, margin, atol=1e-9)


def test_a_candidate_that_is_not_finite_is_a_nan_loss_and_harms_no_other(member: Member) -> None:
    spec, dim = member.spec(), SPEC.length * member.oracle.info.width
    good = Point(standard_normal(("good",), dim))
    broken = Point(np.full(dim, np.nan, dtype=np.float32))
    alone = member.oracle.evaluate(Request((good,), MIXED, spec))
    both = member.oracle.evaluate(Request((broken, good), MIXED, spec))
    assert np.isnan(both.losses[0])
    np.testing.assert_allclose(both.logits[1], alone.logits[0], atol=1e-5, rtol=1e-5)


def test_nearest_tokens_name_one_token_a_row(member: Member) -> None:
    rows = standard_normal(("rows",), 3 * member.oracle.info.width).reshape(3, -1)
    found = member.oracle.nearest_tokens(rows)
    assert len(found) == 3
    assert all(isinstance(token, str) and 0 < cosine <= 1.0001 for token, cosine in found)


SPACES = [TokenSpace(), TokenSpace("words", "l2"), TokenSpace("printable"), TokenSpace("all", "l2")]


def spec_for_texts(member: Member, layout: str) -> PromptSpec:
    spec = member.spec(layout)
    if layout == "add" and member.masked:
        pytest.skip("a masked model adds rows where they are no token's")
    return spec


def is_discrete(member: Member, spec: PromptSpec, space: TokenSpace, seed: str = "rows") -> str:
    rows = standard_normal((seed,), spec.length * member.oracle.info.width).reshape(spec.length, -1)
    return member.oracle.project([rows], spec.layout, space)[0]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_text_as_a_soft_prompt_scores_and_costs_as_its_coordinates_do(member: Member, layout: str) -> None:
    spec = spec_for_texts(member, layout)
    texts = [Embedded(is_discrete(member, spec, TokenSpace(), seed)) for seed in ("a", "b")]
    points = [Point(coordinates(member.oracle, text, spec)) for text in texts]
    answer = member.oracle.evaluate(Request((*texts, *points), MIXED, spec))
    np.testing.assert_allclose(answer.logits[:2], answer.logits[2:], atol=1e-5, rtol=1e-5)
    assert answer.losses[0] != answer.losses[1]
    costs = [member.oracle.cost(Request((candidate,), MIXED, spec)) for candidate in (texts[0], points[0])]
    assert costs[0] == costs[1]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("space", SPACES[:2])
def test_rows_in_words_are_read_back_as_the_rows_of_these_words(member: Member, layout: str, space: TokenSpace) -> None:
    spec = spec_for_texts(member, layout)
    text = is_discrete(member, spec, space)
    assert member.oracle.token_count(text) == spec.length
    rows = member.oracle.materialize(Embedded(text), spec)
    assert rows.shape == (spec.length, member.oracle.info.width)
    assert rows.tobytes() == member.oracle.materialize(Embedded(text), spec).tobytes()
    assert member.oracle.project([rows], spec.layout, space) == [text]


@pytest.mark.parametrize("space", [*SPACES, TokenSpace("published", "published")])
def test_prompts_are_put_into_words_each_by_itself(member: Member, space: TokenSpace) -> None:
    width = member.oracle.info.width
    prompts = [standard_normal(("p", i), 3 * width).reshape(3, width) for i in range(4)]
    together = member.oracle.project(prompts, "prefix", space)
    assert together == [member.oracle.project([rows], "prefix", space)[0] for rows in prompts]
    assert member.oracle.project([], "prefix", space) == []
    assert len(set(member.oracle.vocabulary(TokenSpace()))) > 10


def test_tokens_of_words_make_a_text(member: Member) -> None:
    tokens = member.oracle.vocabulary(TokenSpace())
    assert all(token.startswith(" ") and token.strip() for token in tokens)
    assert member.oracle.token_count("".join(tokens[:7])) == 7
    assert member.oracle.token_count("") == 0


def test_a_text_without_tokens_is_no_prompt(member: Member) -> None:
    with pytest.raises(ModelError, match="must have at least one token"):
        member.oracle.materialize(Embedded(""), member.spec())


def test_tiles_leave_words_alone(member: Member) -> None:
    tiled = TiledOracle(member.oracle, Tile(candidates=2, examples=3))
    text = is_discrete(member, member.spec(), TokenSpace())
    rows = tiled.materialize(Embedded(text), member.spec())
    assert tiled.project([rows], "prefix", TokenSpace()) == [text]
    assert tiled.token_count(text) == SPEC.length
    assert tiled.vocabulary(TokenSpace()) == member.oracle.vocabulary(TokenSpace())
