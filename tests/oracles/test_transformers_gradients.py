"""Gradients of the transformers oracle: the frozen model, few bits, groups of examples, cached texts."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tiny_models import ARCHITECTURES, MASKED_ARCHITECTURES, MIXED, SPEC, batch_of, layouts_of

from distributed_tuner.errors import ModelError
from distributed_tuner.oracles.base import LossOracle, value_and_grad
from distributed_tuner.oracles.local import gradients as module
from distributed_tuner.oracles.local.gradients import groups
from distributed_tuner.oracles.local.oracle import TransformersOracle
from distributed_tuner.seeds import standard_normal
from distributed_tuner.values import Array, Layout, Point, Request

CASES = [(name, layout) for name in (*ARCHITECTURES, *MASKED_ARCHITECTURES) for layout in layouts_of(name)]


def request_of(oracle: LossOracle, layout: Layout = "prefix", split: str = "train") -> Request:
    spec = replace(SPEC, layout=layout, **({"init": "zeros"} if layout == "add" else {}))
    x = np.float32(0.4) * standard_normal(("x",), SPEC.length * oracle.info.width)
    return Request((Point(x),), replace(MIXED, split=split), spec)


def gradient_of(oracle: LossOracle, request: Request) -> Array:
    gradients = value_and_grad(oracle, request).gradients
    assert gradients is not None
    return gradients[0]


def test_without_the_setting_gradients_are_refused(tiny_oracle: Any) -> None:
    oracle = tiny_oracle("llama")
    with pytest.raises(ModelError, match=r"set oracle\.gradients: true"):
        value_and_grad(oracle, request_of(oracle))


@pytest.mark.parametrize(("architecture", "layout"), CASES)
def test_the_losses_are_those_of_the_rewritten_model(architecture: str, layout: Layout, tiny_oracle: Any) -> None:
    frozen, white_box = tiny_oracle(architecture, linear="packed"), tiny_oracle(architecture, gradients=True)
    request = request_of(frozen, layout)
    assert (frozen._trunk.linear, white_box._trunk.linear, white_box._trunk.fused) == ("packed", "plain", 0)
    assert (frozen._trunk.fused > 0) == (architecture in ("llama", "qwen2", "mistral"))
    answer = value_and_grad(white_box, request)
    np.testing.assert_allclose(answer.logits, frozen.evaluate(request).logits, atol=2e-5)


@pytest.mark.parametrize(("architecture", "layout"), CASES)
def test_groups_of_examples_change_nothing_but_rounding(
    architecture: str, layout: Layout, tiny_oracle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    oracle = tiny_oracle(architecture, gradients=True)
    request = request_of(oracle, layout)
    whole = value_and_grad(oracle, request)
    monkeypatch.setattr(module, "BACKWARD_TOKENS", {"cpu": 20})
    pieces = value_and_grad(oracle, request)
    assert whole.gradients is not None and pieces.gradients is not None
    np.testing.assert_allclose(pieces.logits, whole.logits, atol=2e-5)
    np.testing.assert_allclose(pieces.gradients, whole.gradients, atol=1e-5 * max(1, np.abs(whole.gradients).max()))


def test_groups_hold_as_many_tokens_as_they_may_and_one_example_at_least(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKWARD_TOKENS", {"cpu": 10})
    monkeypatch.setattr(module, "BACKWARD_TOKENS_ELSEWHERE", 100)
    batch = batch_of(["a", "b", "c", "d", "e"])
    cut = groups(batch, [4, 6, 30, 1, 9], "cpu")
    assert [[example.text for example in part.examples] for part in cut] == [["a", "b"], ["c"], ["d", "e"]]
    assert groups(batch, [4, 6, 30, 1, 9], "cuda") == [batch]


@pytest.mark.parametrize(("architecture", "layout"), CASES)
def test_bfloat16_is_close_to_float32(architecture: str, layout: Layout, tiny_oracle: Any) -> None:
    full, short = (tiny_oracle(architecture, gradients=True, dtype=dtype) for dtype in ("float32", "bfloat16"))
    expected, got = (gradient_of(oracle, request_of(oracle, layout)) for oracle in (full, short))
    assert got.dtype == np.float32
    cosine = expected @ got / (np.linalg.norm(expected) * np.linalg.norm(got))
    assert cosine > 0.98
    assert np.linalg.norm(got) == pytest.approx(np.linalg.norm(expected), rel=0.1)


def test_the_model_stays_frozen_and_collects_nothing(tiny_config: Any) -> None:
    oracle = TransformersOracle(tiny_config("llama", gradients=True))
    request = request_of(oracle)
    first = gradient_of(oracle, request)
    parameters = list(oracle._trunk._model.parameters())
    assert parameters
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in parameters)
    np.testing.assert_array_equal(gradient_of(oracle, request), first)


@pytest.mark.parametrize("split", ["train", "test"])
def test_texts_that_are_kept_serve_losses_and_gradients(split: str, tiny_config: Any) -> None:
    gradient_first, loss_first = (TransformersOracle(tiny_config("llama", gradients=True)) for _ in range(2))
    request = request_of(loss_first, "suffix", split)
    losses = loss_first.evaluate(request).losses
    held = loss_first._packed.texts.nbytes
    assert (held > 0) == (split == "train")
    gradient = gradient_of(loss_first, request)
    assert loss_first._packed.texts.nbytes == held  # the same texts in the same batch
    np.testing.assert_array_equal(gradient_of(gradient_first, request), gradient)
    np.testing.assert_array_equal(gradient_first.evaluate(request).losses, losses)
