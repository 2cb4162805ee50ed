"""Soft prompts before tuning: base rows by init, for models with an embedding matrix."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tiny_models import ARCHITECTURES, MASKED_ARCHITECTURES, MIXED, SPEC, filler_ids, plain_logits

from distributed_tuner.errors import ModelError, OracleError
from distributed_tuner.oracles.base import LossOracle
from distributed_tuner.oracles.codec import codec_of
from distributed_tuner.values import (
    Array,
    Center,
    Embedded,
    Perturbation,
    Point,
    PromptSpec,
    Request,
    Text,
    TokenSpace,
)


def base(oracle: LossOracle, spec: PromptSpec) -> Array:
    return codec_of(oracle).materialize(Point(np.zeros(spec.length * oracle.info.width, dtype=np.float32)), spec)


@pytest.fixture(params=ARCHITECTURES)
def pair(request: pytest.FixtureRequest, tiny_oracle: Callable[..., LossOracle], plain: Any) -> tuple[Any, ...]:
    model, tokenizer = plain(request.param)
    return tiny_oracle(request.param), model.get_input_embeddings().weight.detach().numpy(), tokenizer


@pytest.mark.parametrize("scale", ["paper", "embedding"])
def test_the_zero_point_of_text_is_its_embeddings_repeated_from_the_end(pair: tuple[Any, ...], scale: str) -> None:
    oracle, embedding, tokenizer = pair
    ids = [tokenizer.convert_tokens_to_ids(t) for t in ("Classify", "Ġthe", "Ġmovie", "Ġreview")]
    rows = base(oracle, replace(SPEC, length=6, scale=scale))
    np.testing.assert_array_equal(rows, embedding[[ids[2], ids[3], *ids]])
    np.testing.assert_array_equal(base(oracle, replace(SPEC, length=2, scale=scale)), embedding[ids[2:]])


def test_the_zero_point_of_zeros_is_zero(pair: tuple[Any, ...]) -> None:
    assert not base(pair[0], replace(SPEC, init="zeros", text="")).any()


def test_the_zero_point_of_filler_is_the_tokens_from_1000_on(pair: tuple[Any, ...]) -> None:
    oracle, embedding, _ = pair
    expected = embedding[[(1000 + i) % len(embedding) for i in range(3)]]
    np.testing.assert_array_equal(base(oracle, replace(SPEC, init="filler", text="", length=3)), expected)


def test_the_zero_point_of_vocab_is_rows_of_the_vocabulary_drawn_by_seed(pair: tuple[Any, ...]) -> None:
    oracle, embedding, _ = pair
    spec = replace(SPEC, init="vocab", text="", length=8, seed=1)
    rows = base(oracle, spec)
    distances = np.abs(rows[:, None, :] - embedding[None]).max(axis=2).min(axis=1)
    assert not distances.any()
    assert len(np.unique(rows, axis=0)) > 4
    np.testing.assert_array_equal(base(oracle, spec), rows)
    assert (base(oracle, replace(spec, seed=2)) != rows).any()


def test_a_unit_step_is_the_embeddings_standard_deviation(pair: tuple[Any, ...]) -> None:
    oracle, embedding, _ = pair
    one = Point(np.ones(SPEC.length * oracle.info.width, dtype=np.float32))
    assert oracle.info.embedding_std == pytest.approx(embedding.std(ddof=1), rel=1e-5)
    for scale, step in (("paper", 1.0), ("embedding", embedding.std(ddof=1))):
        spec = replace(SPEC, scale=scale)
        np.testing.assert_allclose(codec_of(oracle).materialize(one, spec) - base(oracle, spec), step, rtol=1e-4)


def test_a_token_is_nearest_to_itself(pair: tuple[Any, ...]) -> None:
    oracle, embedding, tokenizer = pair
    ids = [tokenizer.convert_tokens_to_ids(t) for t in ("Ġgreat", "film")]
    found = codec_of(oracle).nearest_tokens(embedding[ids] * np.float32(3))
    assert [token for token, _ in found] == [" great", "film"]
    np.testing.assert_allclose([cosine for _, cosine in found], 1.0, atol=1e-5)


def test_a_text_init_without_text_is_refused(tiny_oracle: Callable[..., LossOracle]) -> None:
    with pytest.raises(ModelError, match=r"prompt\.init 'text' needs a text"):
        base(tiny_oracle("llama"), replace(SPEC, text=""))


def test_a_text_has_no_rows(tiny_oracle: Callable[..., LossOracle]) -> None:
    with pytest.raises(OracleError, match="text candidate has no prompt coordinates"):
        codec_of(tiny_oracle("llama")).materialize(Text("Classify"), SPEC)


@pytest.mark.parametrize("size", [1, 7])
def test_a_point_of_another_size_is_refused(tiny_oracle: Callable[..., LossOracle], size: int) -> None:
    oracle = tiny_oracle("llama")
    vector = np.zeros(size, dtype=np.float32)
    for candidate in (Point(vector), Perturbation(Center("c", vector), ("k",), 1, 0.1)):
        with pytest.raises(OracleError, match="must have 160 coordinates"):
            oracle.evaluate(Request((candidate,), MIXED, SPEC))


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, *MASKED_ARCHITECTURES])
@pytest.mark.parametrize("length", [2, 4, 6])
@pytest.mark.parametrize("scale", ["paper", "embedding"])
def test_an_embedded_text_has_the_bits_of_init_text(
    architecture: str, length: int, scale: Any, tiny_oracle: Callable[..., LossOracle]
) -> None:
    oracle = tiny_oracle(architecture)
    spec = replace(SPEC, length=length, scale=scale)
    started = base(oracle, spec)
    for init in ("text", "zeros", "vocab"):
        rows = codec_of(oracle).materialize(
            Embedded(spec.text), replace(spec, init=init, text="" if init != "text" else spec.text)
        )
        assert rows.tobytes() == started.tobytes()


def test_a_text_is_embedded_as_the_published_code_does(pair: tuple[Any, ...]) -> None:
    oracle, embedding, tokenizer = pair
    words, long = "good film", "good film bad movie was it an good"

    def rows_of(text: str, length: int) -> Array:
        rows: Array = codec_of(oracle).materialize(Embedded(text, published=True), replace(SPEC, length=length))
        return rows

    ids = tokenizer(words + " a" * 10)["input_ids"]
    np.testing.assert_array_equal(rows_of(words, 5), embedding[ids[:5]])
    np.testing.assert_array_equal(rows_of(long, 3), embedding[tokenizer(long)["input_ids"][:3]])
    assert rows_of(words, 40).shape[0] == 40


@pytest.mark.parametrize("bos", [False, True])
def test_an_embedded_text_takes_the_place_of_the_tokens_that_rows_are_added_to(
    bos: bool, tiny_oracle: Callable[..., LossOracle], plain: Any
) -> None:
    oracle, (model, tokenizer) = tiny_oracle("llama", bos), plain("llama", bos)
    embedding = model.get_input_embeddings().weight.detach().numpy()
    spec = replace(SPEC, layout="add", init="zeros", text="", length=4)
    rows = codec_of(oracle).materialize(Embedded("Classify the movie review"), spec)
    under = [*tokenizer("")["input_ids"], *filler_ids(4, len(embedding))]
    ids = tokenizer("Classify the movie review", add_special_tokens=False)["input_ids"]
    np.testing.assert_allclose(rows + embedding[under[:4]], embedding[ids], atol=1e-6)
    got = oracle.evaluate(Request((Embedded("Classify the movie review"),), MIXED, spec)).logits[0]
    np.testing.assert_allclose(got, plain_logits(model, tokenizer, rows, "add", MIXED), atol=1e-5, rtol=1e-5)
    assert codec_of(oracle).project([rows], "add", TokenSpace("all")) == ["Classify the movie review"]
