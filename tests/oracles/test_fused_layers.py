"""Rewritten decoder layers: which models get them, and that they compute what transformers' own layers do."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import MIXED, SPEC, batch_of
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GraniteConfig,
    LlamaConfig,
    Ministral3Config,
    Qwen2Config,
    Qwen3Config,
)

from distributed_tuner.config.oracle import TransformersOracleConfig
from distributed_tuner.oracles.local.backbone import Trunk
from distributed_tuner.oracles.local.fused_layers import shape_of
from distributed_tuner.oracles.local.oracle import TransformersOracle
from distributed_tuner.seeds import standard_normal
from distributed_tuner.values import Point, Request

SIZES = dict(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    pad_token_id=0,
)
SCALED_FAR = dict(rope_type="yarn", rope_theta=1e4, factor=2.0, original_max_position_embeddings=32) | dict(
    llama_4_scaling_beta=0.5
)
CONFIG = TransformersOracleConfig(kind="transformers", device="cpu", threads=1, linear="plain")


def random_model(config: Any, dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_((1.0 if "norm" in name else 0.0) + 0.2 * torch.randn(weight.shape))
    return model


def laid_out(config: Any) -> Trunk:
    trunk = Trunk(random_model(config))
    trunk.lay_out(CONFIG, trunk.canaries)
    return trunk


def points(oracle: TransformersOracle, count: int) -> tuple[Point, ...]:
    return tuple(Point(standard_normal(("point", i), SPEC.length * oracle.info.width)) for i in range(count))


@pytest.mark.parametrize(
    ("config", "rewritten"),
    [
        (LlamaConfig(**SIZES), True),
        (LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True), True),
        (LlamaConfig(**{**SIZES, "num_key_value_heads": 4}, head_dim=16), True),
        (LlamaConfig(**SIZES, rope_scaling={"rope_type": "linear", "factor": 2.0}), True),
        (Qwen2Config(**SIZES), True),
        (LlamaConfig(**SIZES, hidden_act="gelu"), False),
        (Qwen3Config(**SIZES, head_dim=8), False),  # norms of queries and keys
        (GraniteConfig(**SIZES, residual_multiplier=0.5), False),  # the same parts, put together otherwise
        (Ministral3Config(**SIZES, sliding_window=None, rope_parameters=SCALED_FAR), False),  # otherwise far away alone
    ],
    ids=["llama", "biases", "heads", "rope", "qwen2", "activation", "query norms", "residual multiplier", "far"],
)
def test_layers_are_rewritten_where_they_are_those_of_llama(config: Any, rewritten: bool) -> None:
    wanted, trunk = Trunk(random_model(config)), laid_out(config)
    assert trunk.fused == (config.num_hidden_layers if rewritten else 0)
    got, plain = trunk.canaries(), wanted.canaries()
    torch.testing.assert_close(got, plain, atol=1e-5, rtol=1e-4)


def test_a_model_that_computes_something_else_keeps_its_layers(caplog: pytest.LogCaptureFixture) -> None:
    model = random_model(GraniteConfig(**SIZES, residual_multiplier=0.5))
    layers = list(model.model.layers)
    trunk = Trunk(model)
    trunk.lay_out(CONFIG, trunk.canaries)
    assert all(kept is layer for kept, layer in zip(model.model.layers, layers, strict=True))
    assert "they compute something else" in caplog.text


def test_quantized_layers_are_left_as_they_are() -> None:
    model = random_model(LlamaConfig(**SIZES))
    model.model.layers[1].mlp.up_proj = torch.nn.Sequential(model.model.layers[1].mlp.up_proj)
    assert shape_of(model.model.layers[0]) is not None
    trunk = Trunk(model)
    trunk.lay_out(CONFIG, trunk.canaries)
    assert trunk.fused == 0  # all layers or none


def test_capped_scores_are_no_business_of_rewritten_layers() -> None:
    model = random_model(Gemma2Config(**SIZES, head_dim=8))
    assert all(shape_of(layer) is None for layer in model.model.layers)


def test_the_callers_embeddings_are_left_alone() -> None:
    trunk = laid_out(LlamaConfig(**SIZES))
    table = trunk.table.clone()
    trunk.canaries()
    assert torch.equal(trunk.table, table)


@pytest.mark.parametrize("layout", ["prefix", "suffix", "add"])
def test_requests_do_not_disturb_each_other(layout: Any, tiny_config: Any) -> None:
    """Memory that layers take turns in holds what the longest request left in it."""
    oracle = TransformersOracle(tiny_config("llama"))
    spec = replace(SPEC, layout=layout, init="zeros" if layout == "add" else "text")
    short = Request(points(oracle, 2), batch_of(["bad"]), spec)
    alone = TransformersOracle(tiny_config("llama")).evaluate(short).logits
    oracle.evaluate(Request(points(oracle, 5), MIXED, spec))
    np.testing.assert_array_equal(oracle.evaluate(short).logits, alone)


def test_rewritten_layers_answer_the_same_with_shared_weights(
    tiny_config: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    request = Request(tuple(Point(standard_normal(("p", i), SPEC.length * 32)) for i in range(2)), MIXED, SPEC)
    wanted = TransformersOracle(tiny_config("llama", linear="plain")).evaluate(request).logits
    monkeypatch.setenv("DISTRIBUTED_TUNER_CACHE", str(tmp_path))
    monkeypatch.setattr("distributed_tuner.oracles.local.shared_weights.LEAST_BYTES", 0)
    for _ in ("written", "found"):
        oracle = TransformersOracle(tiny_config("llama", linear="plain"))
        np.testing.assert_array_equal(oracle.evaluate(request).logits, wanted)
        assert len(list((tmp_path / "layers").glob("*.safetensors"))) == 1


def test_a_file_of_other_weights_is_not_believed(
    tiny_config: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    from safetensors.torch import load_file, save_file

    monkeypatch.setenv("DISTRIBUTED_TUNER_CACHE", str(tmp_path))
    monkeypatch.setattr("distributed_tuner.oracles.local.shared_weights.LEAST_BYTES", 0)
    TransformersOracle(tiny_config("llama", linear="plain"))
    (file,) = (tmp_path / "layers").glob("*.safetensors")
    save_file({name: part + 0.1 for name, part in load_file(file).items()}, file)
    oracle = TransformersOracle(tiny_config("llama", linear="plain"))
    assert oracle._trunk.fused == 0
    request = Request(points(oracle, 2), MIXED, SPEC)
    modules = TransformersOracle(tiny_config("llama", gradients=True))
    np.testing.assert_allclose(oracle.evaluate(request).logits, modules.evaluate(request).logits, atol=1e-5)
