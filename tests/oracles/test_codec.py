"""Prompt codecs: an oracle of three members has none, and what would need one says so."""

import math
from dataclasses import replace

import numpy as np
import pytest
from tiny_models import MIXED, SPEC

from distributed_tuner.config.oracle import AnalyticOracleConfig, CustomOracleConfig, Tile
from distributed_tuner.custom import path_of
from distributed_tuner.errors import ConfigError, ModelError
from distributed_tuner.oracles.analytic import AnalyticCodec, AnalyticOracle
from distributed_tuner.oracles.base import counted, evaluation
from distributed_tuner.oracles.codec import METHODS, PlainCodec, PromptCodec, codec_of
from distributed_tuner.oracles.cost_model import GivenCounter
from distributed_tuner.oracles.custom import build_custom
from distributed_tuner.oracles.wrappers.tiled import TiledOracle
from distributed_tuner.stages.coordinates import coordinates
from distributed_tuner.values import (
    Cost,
    Embedded,
    Evaluation,
    Latent,
    OracleInfo,
    Point,
    Projection,
    Request,
    Text,
    TokenSpace,
)

WIDTH = 8
ZEROS = replace(SPEC, init="zeros")
X = np.linspace(-1, 1, SPEC.length * WIDTH).astype(np.float32)


class Three:
    """An oracle of three members."""

    def __init__(self) -> None:
        self.info = OracleInfo("three", WIDTH, 0, 100, 0.5, "float32", "cpu")

    def cost(self, request: Request) -> Cost:
        return counted(request, 1)

    def evaluate(self, request: Request, timeout: float = math.inf) -> Evaluation:
        codec = codec_of(self)
        rows = np.stack([codec.materialize(candidate, request.prompt) for candidate in request.candidates])
        scores = np.zeros((len(rows), len(request.batch.examples), len(request.batch.label_words)), np.float32)
        scores[..., 0] = rows.mean(axis=(1, 2))[:, None]
        return evaluation(scores, request.batch, self.cost(request))


class HalfCodec(Three):
    def __init__(self) -> None:
        super().__init__()
        self.codec = type("Half", (), {"vocabulary": AnalyticCodec.vocabulary})()


def test_the_methods_are_those_of_the_protocol() -> None:
    assert set(METHODS) == {name for name in vars(PromptCodec) if not name.startswith("_")}


@pytest.mark.parametrize(("scale", "unit"), [("paper", 1.0), ("embedding", 0.5)])
def test_without_a_codec_rows_are_coordinates_in_the_prompts_unit(scale: str, unit: float) -> None:
    spec = replace(ZEROS, scale=scale)
    codec = codec_of(Three())
    assert isinstance(codec, PlainCodec)
    rows = codec.materialize(Point(X), spec)
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, np.float32(unit) * X.reshape(SPEC.length, WIDTH))
    latent = Latent(np.ones(3, dtype=np.float32), Projection(seed=1, dim=3, alpha=1.0, sigma=1.0), None)
    np.testing.assert_allclose(
        coordinates(Three(), latent, spec) * unit, codec.materialize(latent, spec).reshape(-1), rtol=1e-6
    )


def test_without_a_codec_what_needs_words_is_refused_and_names_the_next_move() -> None:
    codec = codec_of(TiledOracle(Three(), Tile()))
    assert codec.vocabulary(TokenSpace()) == () == codec.answer_words(MIXED, 9)
    assert codec.nearest_tokens(X.reshape(SPEC.length, WIDTH)) == []
    asked = (
        lambda: codec.materialize(Embedded("good film"), ZEROS),
        lambda: codec.materialize(Text("good film"), ZEROS),
        lambda: codec.project([X.reshape(SPEC.length, WIDTH)], "prefix", TokenSpace()),
        lambda: codec.token_count("good film"),
    )
    for one in asked:
        with pytest.raises(ModelError, match=r"three has no codec; give it one .*PromptCodec.*, or set prompt\.kind"):
            one()


def test_a_run_that_needs_a_codec_is_refused_beforehand() -> None:
    counter = GivenCounter(Three())
    counter.require(MIXED, ZEROS)
    counter.require(MIXED, replace(SPEC, length=0))
    with pytest.raises(ModelError, match=r"prompt\.init: text, but three has no codec .* set prompt\.init: zeros"):
        counter.require(MIXED, SPEC)
    with pytest.raises(ModelError, match=r"three has no vocabulary; give it a codec"):
        counter.require_embedded(ZEROS)
    GivenCounter(AnalyticOracle(AnalyticOracleConfig())).require_embedded(SPEC)


def test_an_own_oracle_needs_three_members_and_its_codec_all_methods() -> None:
    oracle = build_custom(CustomOracleConfig(import_path=path_of(Three)))
    answer = oracle.evaluate(Request((Point(X), Point(X + 1)), MIXED, ZEROS))
    assert answer.losses[0] != answer.losses[1] and isinstance(codec_of(oracle), PlainCodec)
    with pytest.raises(ConfigError, match=r"codec\.PromptCodec says, but lacks materialize, .*answer_words"):
        build_custom(CustomOracleConfig(import_path=path_of(HalfCodec)))


def test_wrappers_hand_on_the_codec_of_what_they_wrap() -> None:
    oracle = AnalyticOracle(AnalyticOracleConfig())
    assert codec_of(TiledOracle(oracle, Tile())) is oracle.codec
