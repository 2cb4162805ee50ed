"""The plain way of the benchmarks: it computes what it says it does, and the oracle agrees with it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.asking import plain_model, request
from benchmarks.plain import Plain, candidate_rows
from benchmarks.random_models import make_model, make_tokenizer, shape
from benchmarks.texts import LABEL_WORDS, TAIL, batch
from distributed_tuner.config.oracle import TransformersOracleConfig
from distributed_tuner.maths.losses import cross_entropy
from distributed_tuner.oracles.local.oracle import TransformersOracle
from distributed_tuner.values import Layout

LENGTH, WIDTH = 5, 64
SOME = replace(batch("SST-2"), examples=batch("SST-2").examples[:6])
ROWS = candidate_rows(0, LENGTH, WIDTH)


def row_by_row(model: Any, tokenizer: Any, layout: str) -> Any:
    """Losses one example at a time, with no padding and no mask, from embeddings that are put together by hand."""
    import torch

    table = model.get_input_embeddings().weight
    words = [tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in LABEL_WORDS]
    soft = torch.from_numpy(ROWS)
    logits = []
    for example in SOME.examples:
        line = table[tokenizer(example.text + example.cue)["input_ids"]]
        text = len(tokenizer(example.text)["input_ids"])
        match layout:
            case "prefix":
                sequence = torch.cat([soft, line])
            case "suffix":
                sequence = torch.cat([line[:text], soft, line[text:]])
            case _:
                sequence = torch.cat([line[:1], table[1000 : 1000 + LENGTH], line[1:]])
                sequence[:LENGTH] += soft
        with torch.inference_mode():
            logits.append(model(inputs_embeds=sequence[None]).logits[0, -1, words].numpy())
    return cross_entropy(np.stack(logits), np.array([example.label for example in SOME.examples]))


@pytest.mark.parametrize("layout", ["prefix", "suffix", "add"])
def test_a_padded_batch_has_the_losses_of_single_rows(layout: Layout, tiny_llama: Path) -> None:
    model, tokenizer = plain_model(str(tiny_llama), "float32")
    losses = Plain(model, tokenizer, SOME).example_losses(ROWS, layout)
    np.testing.assert_allclose(losses, row_by_row(model, tokenizer, layout), atol=1e-5)
    assert losses.std() > 0.1
    np.testing.assert_allclose(Plain(model, tokenizer, SOME).example_losses(ROWS, layout, 2), losses[:2], atol=1e-5)


@pytest.mark.parametrize("layout", ["prefix", "add"])
def test_the_oracle_agrees_on_a_masked_model(layout: Layout) -> None:
    import torch

    model, tokenizer = make_model(shape("roberta-large", small=True), "cpu", "float32"), make_tokenizer(masked=True)
    stream = torch.Generator().manual_seed(7)
    for name, weight in model.named_parameters():
        weight.copy_((1.0 if "norm" in name.lower() else 0.0) + 0.2 * torch.randn(weight.shape, generator=stream))
    examples = replace(SOME, examples=tuple(replace(example, tail=TAIL) for example in SOME.examples))
    losses = Plain(model, tokenizer, examples).example_losses(ROWS, layout)
    without = Plain(model, tokenizer, examples).example_losses(0 * ROWS, layout)
    config = TransformersOracleConfig(kind="transformers", model="roberta", dtype="float32", device="cpu", threads=1)
    oracle = TransformersOracle(config, model=model, tokenizer=tokenizer)
    answer = oracle.evaluate(request(layout, 2, LENGTH, WIDTH, examples))
    np.testing.assert_allclose(answer.example_losses[0], losses, atol=1e-5)
    assert np.abs(losses - without).max() > 1e-3
