"""Conformance suite of oracles."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest

from distributed_tuner import oracles
from distributed_tuner.config.oracle import CustomOracleConfig, Price, Tile
from distributed_tuner.custom import path_of
from distributed_tuner.errors import ModelError
from distributed_tuner.oracles.base import LossOracle
from distributed_tuner.oracles.codec import PromptCodec, codec_of
from distributed_tuner.oracles.wrappers.tiled import TiledOracle
from distributed_tuner.seeds import standard_normal
from distributed_tuner.stages.coordinates import coordinates
from distributed_tuner.values import (
    Batch,
    Candidate,
    Center,
    Embedded,
    Evaluation,
    Example,
    Latent,
    Layout,
    Perturbation,
    Point,
    Projection,
    PromptSpec,
    Request,
    Split,
    Text,
    TokenSpace,
)

LAYOUTS: tuple[Layout, ...] = ("prefix", "suffix", "add")
PROJECTION = Projection(seed=3, dim=6, alpha=1.0, sigma=1.0)


def batch_of(texts: Sequence[str], cue: str | Sequence[str] = " It was", split: Split = "train", **more: Any) -> Batch:
    """Return a batch of two labels that alternate."""
    cues = [cue] * len(texts) if isinstance(cue, str) else cue
    examples = tuple(
        Example(f"{split}-{i}", text, c, i % 2) for i, (text, c) in enumerate(zip(texts, cues, strict=True))
    )
    return Batch(examples, (" terrible", " great"), split, **more)


TEXTS = (
    "a good film",
    "I",
    "the plot was dull and slow and it was not something I liked",
    "really bright story",
    "I hated this movie. " * 12,
    "bad",
    "something bright",
)
MIXED = batch_of(TEXTS)
SPEC = PromptSpec(length=5, init="text", text="Classify the movie review", layout="prefix", scale="embedding")


@dataclass(frozen=True)
class Member:
    """An oracle, how to build it at a price, and requests that fit it."""

    oracle: LossOracle
    priced: Callable[[Price], LossOracle]
    masked: bool = False
    layouts: tuple[str, ...] = LAYOUTS

    @property
    def codec(self) -> PromptCodec:
        """The oracle's codec."""
        return codec_of(self.oracle)

    @property
    def around(self) -> int:
        """Tokens that a masked model reads in addition to the words: two special ones and the mask."""
        return 3 if self.masked else 0

    def spec(self, layout: Layout = "prefix", **more: Any) -> PromptSpec:
        if layout not in self.layouts:
            pytest.skip(f"it has no layout {layout}")
        more = {"init": "zeros"} | more if layout == "add" else more
        return replace(SPEC, layout=layout, **more)

    def candidates(self, texts: bool = False) -> tuple[Candidate, ...]:
        dim = SPEC.length * self.oracle.info.width
        center = Center("c", standard_normal(("center",), dim))
        soft: tuple[Candidate, ...] = tuple(
            Perturbation(center, ("noise", i), sign, 0.7) for i in range(2) for sign in (1, -1)
        )
        soft += (Latent(standard_normal(("z",), 6), PROJECTION, center), Point(standard_normal(("point",), dim)))
        return (*soft, Text("Classify the movie review"), Text("")) if texts else soft

    def request(self, layout: Layout = "prefix", texts: bool = False) -> Request:
        return Request(self.candidates(texts), MIXED, self.spec(layout))


def same_bits(a: Evaluation, b: Evaluation) -> bool:
    return all(
        getattr(a, part).tobytes() == getattr(b, part).tobytes() for part in ("losses", "example_losses", "logits")
    )


SPACES = [TokenSpace(), TokenSpace("words", "l2"), TokenSpace("printable"), TokenSpace("all", "l2")]


def spec_for_texts(member: Member, layout: Layout) -> PromptSpec:
    spec = member.spec(layout)
    if layout == "add" and member.masked:
        pytest.skip("a masked model adds rows where they are no token's")
    return spec


def is_discrete(member: Member, spec: PromptSpec, space: TokenSpace, seed: str = "rows") -> str:
    rows = standard_normal((seed,), spec.length * member.oracle.info.width).reshape(spec.length, -1)
    return member.codec.project([rows], spec.layout, space)[0]


class OracleSuite:
    """Tests of one oracle that takes soft prompts, of 5 rows, for two labels.

    part: its class. settings: what it is made with. layouts: those that it takes.
    """

    part: ClassVar[type]
    settings: ClassVar[Mapping[str, Any]] = {}
    layouts: ClassVar[tuple[Layout, ...]] = ("prefix",)

    @pytest.fixture
    def member(self) -> Member:
        """Return the oracle that the tests are of: of ``part``."""

        def priced(price: Price) -> LossOracle:
            path = path_of(self.part)
            return oracles.build(CustomOracleConfig(import_path=path, settings=dict(self.settings), price=price))

        return Member(priced(Price()), priced, layouts=self.layouts)

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_the_same_request_twice_gives_the_same_bits(self, member: Member, layout: Layout) -> None:
        request = member.request(layout, texts=True)
        first = member.oracle.evaluate(request)
        member.oracle.evaluate(Request(request.candidates[:1], batch_of(["slow"], " and"), request.prompt))
        assert same_bits(first, member.oracle.evaluate(request))

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_the_answer_has_the_requests_shape_and_tells_candidates_apart(self, member: Member, layout: Layout) -> None:
        request = member.request(layout)
        answer = member.oracle.evaluate(request)
        count, rows = len(request.candidates), len(MIXED.examples)
        assert answer.losses.shape == (count,)
        assert answer.example_losses.shape == (count, rows)
        assert answer.logits.shape == (count, rows, 2)
        assert answer.logits.dtype == np.float32
        assert np.isfinite(answer.losses).all()
        assert len(np.unique(answer.losses)) == count

    def test_the_loss_is_the_mean_cross_entropy_of_the_label_words(self, member: Member) -> None:
        request = member.request()
        answer = member.oracle.evaluate(request)
        logits = answer.logits.astype(np.float64)
        labels = [example.label for example in MIXED.examples]
        expected = np.log(np.exp(logits).sum(axis=2)) - logits[:, np.arange(len(labels)), labels]
        np.testing.assert_allclose(answer.example_losses, expected, atol=1e-9)
        np.testing.assert_allclose(answer.losses, expected.mean(axis=1), atol=1e-9)

    @pytest.mark.parametrize("layout", LAYOUTS)
    @pytest.mark.parametrize("tile", [(2, 1), (2, 3), (4, 64), (5, 4)])
    def test_tiles_change_nothing_but_rounding(self, member: Member, layout: Layout, tile: tuple[int, int]) -> None:
        request = member.request(layout, texts=True)
        whole = member.oracle.evaluate(request)
        tiled = TiledOracle(member.oracle, Tile(candidates=tile[0], examples=tile[1]))
        pieces = tiled.evaluate(request)
        np.testing.assert_allclose(pieces.losses, whole.losses, atol=1e-5, rtol=1e-5)
        np.testing.assert_allclose(pieces.logits, whole.logits, atol=2e-5, rtol=1e-5)
        assert same_bits(pieces, tiled.evaluate(request))
        costs = [(c.queries, c.forwards, c.tokens) for c in (pieces.cost, whole.cost)]
        assert costs[0] == costs[1]

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_the_order_of_candidates_is_irrelevant_to_each(self, member: Member, layout: Layout) -> None:
        request = member.request(layout, texts=True)
        order = np.random.default_rng(1).permutation(len(request.candidates))
        straight = member.oracle.evaluate(request)
        shuffled = member.oracle.evaluate(replace(request, candidates=tuple(request.candidates[i] for i in order)))
        np.testing.assert_allclose(shuffled.logits, straight.logits[order], atol=1e-5, rtol=1e-5)

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_the_order_of_examples_is_irrelevant_to_each(self, member: Member, layout: Layout) -> None:
        request = member.request(layout)
        backwards = replace(request, batch=replace(MIXED, examples=MIXED.examples[::-1]))
        straight, reversed_ = member.oracle.evaluate(request), member.oracle.evaluate(backwards)
        np.testing.assert_allclose(reversed_.logits[:, ::-1], straight.logits, atol=1e-5, rtol=1e-5)

    def test_dollars_go_by_the_token_before_and_by_the_second_after(self, member: Member) -> None:
        oracle = member.priced(Price(usd_per_million_input_tokens=2.0, usd_per_device_hour=3600.0))
        request = Request(member.candidates()[:2], batch_of(["bad"]), member.spec())
        tokens = 2 * (1 + 2 + 5 + member.around)
        assert oracle.cost(request).usd == pytest.approx(tokens * 2e-6)
        charged = oracle.evaluate(request).cost
        assert charged.usd == pytest.approx(tokens * 2e-6 + charged.seconds)

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_a_request_is_not_changed(self, member: Member, layout: Layout) -> None:
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
    def test_an_antithetic_pair_is_symmetric_around_its_centre(self, member: Member, scale: str) -> None:
        spec = member.spec(scale=scale)
        plus, minus = member.candidates()[:2]
        assert isinstance(plus, Perturbation)
        assert isinstance(minus, Perturbation)
        centre = member.codec.materialize(Point(plus.center.vector), spec)
        up, down = (member.codec.materialize(candidate, spec) for candidate in (plus, minus))
        assert up.shape == (spec.length, member.oracle.info.width)
        np.testing.assert_allclose((up + down) / 2, centre, atol=1e-5)
        unit = member.oracle.info.embedding_std if scale == "embedding" else 1.0
        z = standard_normal(plus.key, up.size).reshape(up.shape)
        np.testing.assert_allclose((up - down) / 2, unit * 0.7 * z, atol=1e-5)

    def test_a_candidate_is_worth_its_rows(self, member: Member) -> None:
        """Every recipe scores as the explicit point does that it stands for: evaluation and export rely on it."""
        spec = member.spec()
        told = member.oracle.evaluate(member.request())
        explicit = replace(spec, init="zeros", text="", scale="paper")
        points = tuple(Point(member.codec.materialize(c, spec).reshape(-1)) for c in member.candidates())
        again = member.oracle.evaluate(Request(points, MIXED, explicit))
        np.testing.assert_allclose(again.logits, told.logits, atol=1e-5, rtol=1e-5)

    def test_hinge_and_cross_entropy_share_logits_but_not_losses(self, member: Member) -> None:
        request = member.request()
        soft = member.oracle.evaluate(request)
        hinge = member.oracle.evaluate(replace(request, batch=replace(MIXED, loss="hinge")))
        assert hinge.logits.tobytes() == soft.logits.tobytes()
        labels = np.array([example.label for example in MIXED.examples])
        rows = np.arange(len(labels))
        logits = hinge.logits.astype(np.float64)
        margin = np.maximum(0.0, logits[:, rows, 1 - labels] - logits[:, rows, labels] + 2.0)
        np.testing.assert_allclose(hinge.example_losses, margin, atol=1e-9)

    def test_a_candidate_that_is_not_finite_is_a_nan_loss_and_harms_no_other(self, member: Member) -> None:
        spec, dim = member.spec(), SPEC.length * member.oracle.info.width
        good = Point(standard_normal(("good",), dim))
        broken = Point(np.full(dim, np.nan, dtype=np.float32))
        alone = member.oracle.evaluate(Request((good,), MIXED, spec))
        both = member.oracle.evaluate(Request((broken, good), MIXED, spec))
        assert np.isnan(both.losses[0])
        np.testing.assert_allclose(both.logits[1], alone.logits[0], atol=1e-5, rtol=1e-5)

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_cost_is_known_beforehand(self, member: Member, layout: Layout) -> None:
        request = member.request(layout)
        cost, charged = member.oracle.cost(request), member.oracle.evaluate(request).cost
        queries, forwards = len(request.candidates), len(request.candidates) * len(MIXED.examples)
        assert (cost.queries, cost.forwards, cost.seconds) == (queries, forwards, 0.0)
        assert (charged.queries, charged.forwards, charged.tokens) == (cost.queries, cost.forwards, cost.tokens)
        assert charged.seconds > 0


class VocabularySuite(OracleSuite):
    """Tests of one oracle with a vocabulary, whose words are rows, in addition."""

    def test_nearest_tokens_name_one_token_a_row(self, member: Member) -> None:
        rows = standard_normal(("rows",), 3 * member.oracle.info.width).reshape(3, -1)
        found = member.codec.nearest_tokens(rows)
        assert len(found) == 3
        assert all(isinstance(token, str) and 0 < cosine <= 1.0001 for token, cosine in found)

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_a_text_as_a_soft_prompt_is_worth_its_coordinates(self, member: Member, layout: Layout) -> None:
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
    def test_rows_in_words_are_read_back(self, member: Member, layout: Layout, space: TokenSpace) -> None:
        spec = spec_for_texts(member, layout)
        text = is_discrete(member, spec, space)
        assert member.codec.token_count(text) == spec.length
        rows = member.codec.materialize(Embedded(text), spec)
        assert rows.shape == (spec.length, member.oracle.info.width)
        assert rows.tobytes() == member.codec.materialize(Embedded(text), spec).tobytes()
        assert member.codec.project([rows], spec.layout, space) == [text]

    @pytest.mark.parametrize("space", [*SPACES, TokenSpace("published", "published")])
    def test_prompts_are_put_into_words_each_by_itself(self, member: Member, space: TokenSpace) -> None:
        width = member.oracle.info.width
        prompts = [standard_normal(("p", i), 3 * width).reshape(3, width) for i in range(4)]
        together = member.codec.project(prompts, "prefix", space)
        assert together == [member.codec.project([rows], "prefix", space)[0] for rows in prompts]
        assert member.codec.project([], "prefix", space) == []
        assert len(set(member.codec.vocabulary(TokenSpace()))) > 10

    def test_tokens_of_words_make_a_text(self, member: Member) -> None:
        tokens = member.codec.vocabulary(TokenSpace())
        assert all(token.startswith(" ") and token.strip() for token in tokens)
        assert member.codec.token_count("".join(tokens[:7])) == 7
        assert member.codec.token_count("") == 0

    def test_a_text_without_tokens_is_no_prompt(self, member: Member) -> None:
        with pytest.raises(ModelError, match="must have at least one token"):
            member.codec.materialize(Embedded(""), member.spec())

    def test_tiles_leave_words_alone(self, member: Member) -> None:
        tiled = TiledOracle(member.oracle, Tile(candidates=2, examples=3))
        text = is_discrete(member, member.spec(), TokenSpace())
        rows = codec_of(tiled).materialize(Embedded(text), member.spec())
        assert codec_of(tiled).project([rows], "prefix", TokenSpace()) == [text]
        assert codec_of(tiled).token_count(text) == SPEC.length
        assert codec_of(tiled).vocabulary(TokenSpace()) == member.codec.vocabulary(TokenSpace())
