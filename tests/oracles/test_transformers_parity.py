"""Packed, cached and head-trimmed against the plain forward: whole sequences, one row at a time, the whole head."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tiny_models import (
    ARCHITECTURES,
    CONTEXT,
    MASKED_ARCHITECTURES,
    MIXED,
    SPEC,
    TEXTS,
    batch_of,
    layouts_of,
    plain_logits,
    plain_text_logits,
)

from distributed_tuner.config.oracle import TransformersOracleConfig
from distributed_tuner.errors import ModelError, TaskError
from distributed_tuner.oracles.base import LossOracle
from distributed_tuner.oracles.codec import codec_of
from distributed_tuner.oracles.local.oracle import TransformersOracle
from distributed_tuner.seeds import standard_normal
from distributed_tuner.values import Batch, Point, PromptSpec, Request, Text

TOLERANCE = 1e-4
LAYOUTS = ("prefix", "suffix", "add")
EACH = [(name, layout) for name in (*ARCHITECTURES, *MASKED_ARCHITECTURES) for layout in layouts_of(name)]
SEVERAL_CUES = batch_of(TEXTS, [" It was", "", " and really", " It was", " the verdict is", "", " It was"])


def spec_of(layout: str) -> PromptSpec:
    return replace(SPEC, layout="add", init="zeros") if layout == "add" else replace(SPEC, layout=layout)


def points(oracle: LossOracle, count: int, length: int = SPEC.length) -> tuple[Point, ...]:
    return tuple(Point(standard_normal(("point", i), length * oracle.info.width)) for i in range(count))


def assert_parity(oracle: LossOracle, plain: tuple[Any, Any], layout: str, batch: Batch) -> None:
    spec = spec_of(layout)
    candidates = points(oracle, 3)
    got = oracle.evaluate(Request(candidates, batch, spec)).logits
    for logits, candidate in zip(got, candidates, strict=True):
        expected = plain_logits(*plain, codec_of(oracle).materialize(candidate, spec), layout, batch)
        np.testing.assert_allclose(logits, expected, atol=TOLERANCE)
    assert np.abs(got[0] - got[1]).max() > 0.01  # a prompt that is not evaluated would agree with anything


@pytest.mark.parametrize("bos", [False, True], ids=["plain", "bos"])
@pytest.mark.parametrize(("architecture", "layout"), EACH)
def test_soft_prompts(architecture: str, layout: str, bos: bool, tiny_oracle: Any, plain: Any) -> None:
    assert_parity(tiny_oracle(architecture, bos), plain(architecture, bos), layout, MIXED)


@pytest.mark.parametrize("split", ["train", "dev", "test"])
@pytest.mark.parametrize(("architecture", "layout"), EACH)
def test_several_cues_in_one_batch(architecture: str, layout: str, split: Any, tiny_oracle: Any, plain: Any) -> None:
    assert_parity(tiny_oracle(architecture), plain(architecture), layout, replace(SEVERAL_CUES, split=split))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("texts", [("bad",), ("", "bad"), ("",), ("a", "the", "I") * 5])
def test_short_blank_and_many_texts(layout: str, split: Any, texts: Any, tiny_oracle: Any, plain: Any) -> None:
    assert_parity(tiny_oracle("llama"), plain("llama"), layout, batch_of(texts, split=split))


@pytest.mark.parametrize("bos", [False, True], ids=["plain", "bos"])
@pytest.mark.parametrize("architecture", [*ARCHITECTURES, *MASKED_ARCHITECTURES])
def test_text_prompts(architecture: str, bos: bool, tiny_oracle: Any, plain: Any) -> None:
    prompts = ("Classify the movie review", "", "something that is not in the vocabulary: \u00e4\u00f6!")
    answer = tiny_oracle(architecture, bos).evaluate(Request(tuple(map(Text, prompts)), SEVERAL_CUES, SPEC))
    for logits, prompt in zip(answer.logits, prompts, strict=True):
        expected = plain_text_logits(*plain(architecture, bos), prompt, SEVERAL_CUES)
        np.testing.assert_allclose(logits, expected, atol=TOLERANCE)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_tile_of_many_tokens_is_split_without_a_trace(layout: str, tiny_oracle: Any, monkeypatch: Any) -> None:
    oracle = tiny_oracle("llama")
    request = Request(points(oracle, 5), MIXED, spec_of(layout))
    whole = oracle.evaluate(request).logits
    monkeypatch.setattr(oracle._packed, "forward_tokens", 40)
    np.testing.assert_allclose(oracle.evaluate(request).logits, whole, atol=1e-5)


@pytest.mark.parametrize("layout", layouts_of("roberta"))
@pytest.mark.parametrize("architecture", MASKED_ARCHITECTURES)
def test_a_masked_model_reads_on_behind_its_mask(architecture: str, layout: str, tiny_oracle: Any, plain: Any) -> None:
    tails = (".", " and really", "", " it was not", " .", "", " good")
    examples = tuple(replace(e, tail=tail) for e, tail in zip(MIXED.examples, tails, strict=True))
    first = tuple(replace(e, text="", cue="", tail=" news: a good film") for e in MIXED.examples[:2])  # mask in front
    assert_parity(tiny_oracle(architecture), plain(architecture), layout, replace(MIXED, examples=(*examples, *first)))


def test_a_masked_model_has_no_suffix_layout(tiny_oracle: Any) -> None:
    oracle = tiny_oracle("roberta")
    with pytest.raises(
        ModelError, match=r"suffix layout needs a causal model.*set prompt\.layout to prefix, add or auto"
    ):
        oracle.evaluate(Request(points(oracle, 1), MIXED, spec_of("suffix")))


def test_a_mask_in_the_text_is_refused(tiny_oracle: Any) -> None:
    oracle = tiny_oracle("bert")
    with pytest.raises(TaskError, match="'train-0' has 2; take the token out"):
        oracle.evaluate(Request(points(oracle, 1), batch_of(["a <mask> film"]), SPEC))


@pytest.mark.parametrize("linear", ["plain", "packed", "packed_fused"])
@pytest.mark.parametrize(("architecture", "layout"), [("llama", "prefix"), ("gpt2", "suffix"), ("roberta", "add")])
def test_how_products_are_computed_changes_nothing_but_rounding(
    architecture: str, layout: str, linear: str, tiny_config: Any
) -> None:
    oracle = TransformersOracle(tiny_config(architecture, linear=linear))
    modules = TransformersOracle(tiny_config(architecture, gradients=True))  # transformers' own layers
    assert oracle.info.extra["linear"] == linear
    request = Request(points(oracle, 2), MIXED, spec_of(layout))
    np.testing.assert_allclose(oracle.evaluate(request).logits, modules.evaluate(request).logits, atol=1e-5)


@pytest.mark.slow
def test_compiled_layers_change_nothing_but_rounding(tiny_oracle: Any) -> None:
    oracle, compiled = tiny_oracle("llama"), tiny_oracle("llama", compile=True)
    for layout in LAYOUTS:
        request = Request(points(oracle, 2), MIXED, spec_of(layout))
        np.testing.assert_allclose(compiled.evaluate(request).logits, oracle.evaluate(request).logits, atol=1e-5)


@pytest.mark.parametrize(("architecture", "layout"), EACH)
def test_bfloat16_is_near(architecture: str, layout: str, tiny_oracle: Any) -> None:
    exact, half = tiny_oracle(architecture), tiny_oracle(architecture, dtype="bfloat16")
    request = Request((*points(exact, 2), Text("Classify")), MIXED, spec_of(layout))
    near = half.evaluate(request)
    assert half.info.dtype == "bfloat16"
    assert near.logits.dtype == np.float32
    difference = np.abs(near.logits - exact.evaluate(request).logits)
    assert 0 < difference.max() < 0.15


@pytest.mark.parametrize("gib", [0.0, 1e-6, 2e-5])
def test_a_small_text_cache_changes_no_bits_and_stays_small(tiny_config: Callable[..., Any], gib: float) -> None:
    request = Request(points_of_width(32, 2), MIXED, replace(SPEC, layout="suffix"))
    ample = TransformersOracle(tiny_config("llama"))
    small = TransformersOracle(tiny_config("llama", text_cache_gib=gib))
    expected = ample.evaluate(request).logits.tobytes()
    for _ in range(2):
        assert small.evaluate(request).logits.tobytes() == expected
        assert ample.evaluate(request).logits.tobytes() == expected
        assert small._packed.texts.nbytes <= gib * 2**30
    assert small._packed.texts.nbytes < ample._packed.texts.nbytes


def points_of_width(width: int, count: int) -> tuple[Point, ...]:
    return tuple(Point(standard_normal(("point", i), SPEC.length * width)) for i in range(count))


def test_texts_are_computed_once_a_run_except_those_of_test(
    tiny_config: Callable[..., TransformersOracleConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    oracle = TransformersOracle(tiny_config("llama"))
    forward, seen = oracle._trunk.forward, []

    def counted(embeds: Any, *rest: Any) -> Any:
        seen.append(len(embeds))
        return forward(embeds, *rest)

    monkeypatch.setattr(oracle._trunk, "forward", counted)

    def tokens(batch: Batch, layout: str) -> int:
        seen.clear()
        oracle.evaluate(Request(points_of_width(32, 2), batch, spec_of(layout)))
        return sum(seen)

    texts = sum(len(oracle._encoder.ids(text, True)) for text in TEXTS)
    added = 2 * len(TEXTS) * (SPEC.length + 2)  # two candidates, prompt and cue " It was" a row
    assert tokens(MIXED, "suffix") == texts + added
    assert tokens(MIXED, "suffix") == added
    held_out = replace(MIXED, split="test")
    other = replace(held_out, examples=tuple(replace(e, text=e.text + " slow") for e in MIXED.examples))
    assert tokens(other, "suffix") == tokens(other, "suffix") > added
    # prefix: each prompt once, rows without padding
    assert tokens(MIXED, "prefix") == 2 * (SPEC.length + texts + 2 * len(TEXTS))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_longest_row_that_fits_is_answered_and_one_token_more_is_refused(
    layout: str, tiny_oracle: Any, plain: Any
) -> None:
    oracle, room = tiny_oracle("gpt2"), CONTEXT - SPEC.length - 2
    fits = batch_of(["a" + " film" * (room - 1), "bad"])
    assert_parity(oracle, plain("gpt2"), layout, fits)
    longer = batch_of(["bad", "a" + " film" * room])
    with pytest.raises(
        ModelError, match=r"context of 128 tokens, but 5 prompt rows and 124 tokens of example 'train-1'"
    ):
        oracle.evaluate(Request(points(oracle, 1), longer, spec_of(layout)))
    with pytest.raises(ModelError, match=r"context of 128 tokens, but the text prompt 'Classify"):
        oracle.evaluate(Request((Text("Classify the movie review of"),), longer, SPEC))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_example_without_a_word_is_refused(layout: str, tiny_oracle: Any) -> None:
    oracle, blank = tiny_oracle("llama"), batch_of(["a film", ""], "")
    for candidate in (points(oracle, 1)[0], Text("Classify")):
        with pytest.raises(TaskError, match="'train-1' has neither"):
            oracle.evaluate(Request((candidate,), blank, spec_of(layout)))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_beyond_a_sliding_window_are_those_of_the_model(
    layout: str, tmp_path: Any, tiny_directory: Any, tiny_config: Any
) -> None:
    import shutil

    from tiny_models import plain_model
    from transformers import AutoConfig

    directory = shutil.copytree(tiny_directory("mistral"), tmp_path / "windowed")
    config = AutoConfig.from_pretrained(directory)
    config.sliding_window = 12
    config.save_pretrained(directory)
    oracle = TransformersOracle(tiny_config("mistral").model_copy(update={"model": str(directory)}))
    assert oracle.info.context == CONTEXT
    texts = ["a good film", "a bad" + " film" * 40, "bad", "a" + " film" * 4, "a" + " film" * 5]  # 12 and 13 tokens
    assert_parity(oracle, plain_model(directory), layout, batch_of(texts))
    prompt = "Classify the movie review of"
    answer = oracle.evaluate(Request((Text(prompt),), batch_of(texts), SPEC)).logits[0]
    wanted = plain_text_logits(*plain_model(directory), prompt, batch_of(texts))
    np.testing.assert_allclose(answer, wanted, atol=TOLERANCE)


def test_two_label_words_of_a_batch_keep_their_order(tiny_oracle: Any) -> None:
    oracle = tiny_oracle("llama")
    request = Request(points(oracle, 1), MIXED, SPEC)
    swapped = replace(MIXED, label_words=MIXED.label_words[::-1])
    straight, turned = oracle.evaluate(request), oracle.evaluate(replace(request, batch=swapped))
    np.testing.assert_array_equal(straight.logits, turned.logits[..., ::-1])
