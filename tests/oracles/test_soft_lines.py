"""Whole sequences of embeddings against the plain way: what an engine would read is what transformers would embed."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import MIXED, SPEC, plain_logits, plain_text_logits

from distributed_tuner.config.oracle import TransformersOracleConfig
from distributed_tuner.errors import ModelError
from distributed_tuner.oracles.base import LossOracle
from distributed_tuner.oracles.codec import codec_of
from distributed_tuner.oracles.served.prompt_embeds import SoftLines
from distributed_tuner.values import Array, Center, Embedded, Perturbation, Point, Request, Text, TokenSpace

ARCHITECTURES = ("llama", "qwen2", "mistral", "gpt2")  # OPT's embeddings are projected: refused
Configured = Callable[..., TransformersOracleConfig]


def point(lines: SoftLines, seed: int = 3) -> Point:
    stream = np.random.default_rng(seed)
    return Point(stream.standard_normal(SPEC.length * lines.width).astype(np.float32))


def logits_of(model: Any, lines: SoftLines, candidate: Any, layout: Any) -> Array:
    """Return label-word logits (E, W) of each sequence alone, the whole head."""
    import torch

    sequences = lines.sequences(candidate, MIXED.examples, replace(SPEC, layout=layout))
    with torch.inference_mode():
        found = [model(inputs_embeds=one[None]).logits[0, -1, list(lines.label_ids(MIXED))] for one in sequences]
    return np.stack([one.float().numpy() for one in found])


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("layout", ["prefix", "suffix", "add"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_sequences_are_the_plain_ones(
    architecture: str, layout: Any, bos: bool, tiny_config: Configured, plain: Callable[..., tuple[Any, Any]]
) -> None:
    lines = SoftLines(tiny_config(architecture, bos), "float32")
    model, tokenizer = plain(architecture, bos)
    candidate = point(lines)
    wanted = plain_logits(
        model, tokenizer, lines.rows.materialize(candidate, replace(SPEC, layout=layout)), layout, MIXED
    )
    assert np.abs(logits_of(model, lines, candidate, layout) - wanted).max() < 1e-4


def test_texts_are_ids_and_the_embeddings_of_these(
    tiny_config: Configured, plain: Callable[..., tuple[Any, Any]]
) -> None:
    lines = SoftLines(tiny_config("llama", True), "float32")
    model, tokenizer = plain("llama", True)
    text = Text("Classify the movie review")
    wanted = plain_text_logits(model, tokenizer, text.text, MIXED)
    assert np.abs(logits_of(model, lines, text, "prefix") - wanted).max() < 1e-4
    ids = lines.ids(text, MIXED.examples[0])
    assert ids[0] == tokenizer.bos_token_id and ids.count(tokenizer.bos_token_id) == 1
    assert len(ids) == len(lines.sequences(text, MIXED.examples[:1], SPEC)[0])


@pytest.mark.parametrize("layout", ["prefix", "suffix", "add"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rows_tokens_and_counts_are_the_transformers_oracles(
    layout: Any, dtype: str, tiny_config: Configured, tiny_oracle: Callable[..., LossOracle]
) -> None:
    spec = replace(SPEC, layout=layout)
    oracle, lines = tiny_oracle("llama", True, dtype=dtype), SoftLines(tiny_config("llama", True), dtype)
    info = oracle.info
    assert (lines.width, lines.vocabulary_size, lines.context) == (info.width, info.vocabulary, info.context)
    assert lines.embedding_std == info.embedding_std
    assert lines.dtype == info.dtype
    center = Center("c", point(lines).vector)
    for candidate in (point(lines), Embedded("good movie"), Perturbation(center, (1, 2), -1, 0.5)):
        rows = lines.rows.materialize(candidate, spec)
        assert np.array_equal(rows, codec_of(oracle).materialize(candidate, spec))
        assert lines.rows.nearest_tokens(rows, layout) == codec_of(oracle).nearest_tokens(rows, layout)
        assert lines.rows.project([rows], layout, TokenSpace()) == codec_of(oracle).project(
            [rows], layout, TokenSpace()
        )
        request = Request((candidate, Text("a film")), MIXED, spec)
        assert lines.cost(request) == oracle.cost(request)
    assert lines.rows.vocabulary(TokenSpace()) == codec_of(oracle).vocabulary(TokenSpace())
    assert lines.rows.token_count("good movie") == codec_of(oracle).token_count("good movie")


def test_a_cost_counts_the_rows_of_the_sequences(tiny_config: Configured) -> None:
    lines = SoftLines(tiny_config("llama", True), "float32")
    for layout in ("prefix", "suffix", "add"):
        spec = replace(SPEC, layout=layout)
        candidates = (point(lines), Text("a film"))
        made = [len(one) for candidate in candidates for one in lines.sequences(candidate, MIXED.examples, spec)]
        assert lines.cost(Request(candidates, MIXED, spec)).tokens == sum(made)


def test_what_does_not_fit_is_refused(tiny_config: Configured) -> None:
    lines = SoftLines(tiny_config("llama"), "float32", context=20)
    assert lines.context == 20
    with pytest.raises(ModelError, match="context of 20 tokens"):
        lines.require_fit((point(lines),), MIXED, SPEC)
    with pytest.raises(ModelError, match="context of 20 tokens"):
        lines.require_fit((Text("a film"),), MIXED, SPEC)


@pytest.mark.parametrize(("architecture", "reason"), [("opt", "projects"), ("bert", "fills in masks")])
def test_models_whose_embeddings_are_not_what_their_layers_read_are_refused(
    architecture: str, reason: str, tiny_config: Configured
) -> None:
    with pytest.raises(ModelError, match=f"{reason}.*oracle.kind: transformers"):
        SoftLines(tiny_config(architecture))


def test_a_matrix_in_shards_is_found_and_one_that_is_not_there_is_named(
    tiny_config: Configured, tiny_directory: Callable[..., Path], tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    source = tiny_directory("llama")
    sharded = tmp_path / "sharded"
    model = AutoModelForCausalLM.from_pretrained(source)
    model.save_pretrained(sharded, max_shard_size="20KB")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (sharded / name).write_bytes((source / name).read_bytes())
    index = sharded / "model.safetensors.index.json"
    assert len(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())) > 1
    config = tiny_config("llama")
    moved = config.model_copy(update={"model": str(sharded)})
    assert SoftLines(moved, "float32").embedding_std == SoftLines(config, "float32").embedding_std
    index.unlink()
    with pytest.raises(ModelError, match=r"no safetensors file with 'model.embed_tokens.weight'"):
        SoftLines(moved)
