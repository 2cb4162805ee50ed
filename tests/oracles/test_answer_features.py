"""Answer features: the scores of many words at the answer position, beside the label words'."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import MIXED, SPEC

from distributed_tuner import oracles
from distributed_tuner.config.oracle import AnalyticOracleConfig, Tile, TransformersOracleConfig
from distributed_tuner.errors import ModelError, TaskError
from distributed_tuner.oracles.base import LossOracle
from distributed_tuner.oracles.codec import codec_of
from distributed_tuner.oracles.wrappers.cached import CachedOracle
from distributed_tuner.oracles.wrappers.tiled import TiledOracle
from distributed_tuner.values import Batch, Objective, Point, Request, Text

pytestmark = pytest.mark.model
MODELS = ("llama", "gpt2", "roberta")
every = pytest.mark.parametrize("architecture", MODELS)


def wide(oracle: LossOracle, count: int = 20) -> Batch:
    batch = MIXED
    return replace(batch, answer_words=codec_of(oracle).answer_words(batch, count))


def points(oracle: LossOracle, count: int = 3) -> tuple[Point, ...]:
    stream = np.random.default_rng(1)
    return tuple(
        Point(stream.standard_normal(SPEC.length * oracle.info.width).astype(np.float32)) for _ in range(count)
    )


@every
def test_the_words_follow_from_model_and_task_alone(tiny_oracle: Callable[..., LossOracle], architecture: str) -> None:
    oracle = tiny_oracle(architecture)
    batch = MIXED
    words = codec_of(oracle).answer_words(batch, 12)
    assert len(words) == len(set(words)) == 12 - len(batch.label_words)
    assert not set(words) & set(batch.label_words)
    assert words == codec_of(oracle).answer_words(replace(batch, examples=batch.examples[:1]), 12)
    assert words[:5] == codec_of(oracle).answer_words(batch, 5 + len(batch.label_words)), (
        "more words go on where fewer end"
    )
    assert oracle.info.answer_words > 0


@every
@pytest.mark.parametrize("layout", ["prefix", "suffix", "add"])
def test_features_are_the_scores_of_all_words_less_their_mean(
    tiny_oracle: Callable[..., LossOracle], architecture: str, layout: Any
) -> None:
    oracle = tiny_oracle(architecture)
    if layout == "suffix" and architecture == "roberta":
        pytest.skip("a masked model has no suffix layout")
    spec = replace(SPEC, layout=layout, **({"init": "zeros"} if layout == "add" else {}))
    batch = wide(oracle)
    answer = oracle.evaluate(Request(points(oracle), batch, spec))
    plain = oracle.evaluate(Request(points(oracle), replace(batch, answer_words=()), spec))
    assert answer.features is not None and answer.features.dtype == np.float16
    assert answer.features.shape == (3, len(batch.examples), 20)
    assert np.allclose(answer.logits, plain.logits, atol=1e-5) and np.allclose(answer.losses, plain.losses, atol=1e-5)
    assert np.allclose(answer.features.astype(float).mean(axis=-1), 0, atol=2e-3)
    labels = answer.features[..., : len(batch.label_words)].astype(float)
    assert np.allclose(labels - labels[..., :1], answer.logits - answer.logits[..., :1], atol=2e-2)
    swapped = replace(batch, label_words=batch.answer_words[:2], answer_words=batch.label_words)
    other = oracle.evaluate(Request(points(oracle), replace(swapped, label_rule="first"), spec))
    words = answer.features[..., len(batch.label_words) : len(batch.label_words) + 2].astype(float)
    assert np.allclose(words - words[..., :1], other.logits - other.logits[..., :1], atol=2e-2)


@every
def test_tiles_and_texts_have_the_same_features(tiny_oracle: Callable[..., LossOracle], architecture: str) -> None:
    oracle = tiny_oracle(architecture)
    batch = wide(oracle)
    request = Request((*points(oracle, 2), Text("It was")), batch, SPEC)
    whole = oracle.evaluate(request)
    tiled = TiledOracle(oracle, Tile(candidates=2, examples=2)).evaluate(request)
    assert whole.features is not None and tiled.features is not None
    assert np.allclose(whole.features.astype(float), tiled.features.astype(float), atol=0.02)


def test_a_kept_answer_has_its_features(tiny_config: Callable[..., TransformersOracleConfig], tmp_path: Path) -> None:
    config = tiny_config("llama")
    inner = oracles.build(config)
    oracle = CachedOracle(inner, str(tmp_path), config)
    request = Request((Text("It was"), Text("good film")), wide(inner), SPEC)
    first, second = oracle.evaluate(request), oracle.evaluate(request)
    assert second.cost.queries == 0 and second.kept is not None and second.kept.all()
    assert first.features is not None and second.features is not None
    assert np.array_equal(first.features, second.features) and np.array_equal(first.losses, second.losses)
    narrow = oracle.evaluate(replace(request, batch=replace(request.batch, answer_words=())))
    assert narrow.features is None and narrow.cost.queries == 2, "an answer of fewer words is another one"


def test_words_that_are_no_single_token_are_refused(tiny_oracle: Callable[..., LossOracle]) -> None:
    oracle = tiny_oracle("llama")
    batch = replace(MIXED, answer_words=(" unheardof",))
    with pytest.raises(TaskError, match="one token that no other word has, but ' unheardof'"):
        oracle.evaluate(Request(points(oracle), batch, SPEC))
    twice = replace(batch, answer_words=(batch.label_words[0],))
    with pytest.raises(TaskError, match="no other word has"):
        oracle.evaluate(Request(points(oracle), twice, SPEC))


def test_an_oracle_of_label_words_alone_says_so() -> None:
    oracle = oracles.build(AnalyticOracleConfig(kind="analytic"))
    assert codec_of(oracle).answer_words(MIXED, 10) == () and oracle.info.answer_words == 0
    with pytest.raises(ModelError, match="label words alone"):
        oracle.evaluate(Request((Text("a"),), replace(MIXED, answer_words=(" film",)), SPEC))


# ------------------------------------------------------------------------------------------------- objectives
BIAS = Objective("bias")


@pytest.mark.parametrize("objective", [BIAS, Objective("bias", "leave_one_out"), Objective("vocabulary")])
def test_what_a_head_leaves_is_the_loss_of_tiles_too(
    tiny_oracle: Callable[..., LossOracle], objective: Objective
) -> None:
    oracle = tiny_oracle("llama")
    batch = wide(oracle) if objective.head == "vocabulary" else MIXED
    request = Request(points(oracle), replace(batch, objective=objective), SPEC)
    whole = oracle.evaluate(request)
    tiled = TiledOracle(oracle, Tile(candidates=2, examples=3)).evaluate(request)
    assert np.allclose(whole.losses, tiled.losses, atol=1e-3)
    plain = oracle.evaluate(replace(request, batch=batch))
    if objective.score == "train":
        assert (whole.losses < plain.losses).all()


@pytest.mark.parametrize("examples", [1, 2, 64])
def test_gradients_of_what_a_bias_leaves_are_its_slopes(
    tiny_oracle: Callable[..., LossOracle], monkeypatch: pytest.MonkeyPatch, examples: int
) -> None:
    """By central differences, whether the backward passes hold one example or all, and through tiles."""
    from distributed_tuner.oracles.local import gradients

    monkeypatch.setitem(gradients.BACKWARD_TOKENS, "cpu", 10**6 if examples == 64 else 12 * examples)
    oracle = TiledOracle(tiny_oracle("llama", gradients=True), Tile(candidates=2, examples=2))
    batch = replace(MIXED, objective=BIAS)
    (start,) = points(oracle, 1)
    answer = oracle.evaluate(Request((start,), batch, SPEC, gradient=True))
    assert answer.gradients is not None
    direction = np.random.default_rng(5).standard_normal(len(start.vector)).astype(np.float32)
    ends = tuple(Point(start.vector + np.float32(step) * direction) for step in (1e-2, -1e-2))
    up, down = oracle.evaluate(Request(ends, batch, SPEC)).losses
    assert float(answer.gradients[0] @ direction) == pytest.approx((up - down) / 2e-2, rel=0.05, abs=2e-3)
