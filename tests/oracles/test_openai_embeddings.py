"""The oracle that asks a server: embeddings where it takes them, and what counters know of it beforehand."""

import base64
import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from completions_server import Asked, CompletionsServer, Reply, answered
from tiny_models import MIXED, SPEC, batch_of, make_tokenizer, plain_logits, plain_text_logits

from distributed_tuner.config.oracle import OpenAIOracleConfig, TransformersOracleConfig, VllmOracleConfig
from distributed_tuner.errors import ModelError, TaskError
from distributed_tuner.oracles.codec import codec_of
from distributed_tuner.oracles.cost_model import build_counter
from distributed_tuner.oracles.served.openai import OpenAIOracle
from distributed_tuner.prompts.spec import NO_ROWS
from distributed_tuner.values import Batch, Candidate, Point, PromptSpec, Request, Text

BATCH = batch_of(["a good film", "bad"])
TEXTS = (Text("Classify the movie review"), Text(""))

Make = Callable[..., OpenAIOracle]


def request(candidates: tuple[Candidate, ...] = TEXTS, batch: Batch = BATCH, spec: PromptSpec = NO_ROWS) -> Request:
    return Request(candidates, batch, spec)


# --------------------------------------------------------------------------------------------------- embeddings
def model_server(server: CompletionsServer, model: Any, dtype: str) -> None:
    """Let a plain model answer, as vLLM does: embeddings come as a saved tensor, label tokens by their ids."""
    import torch

    def answer(asked: Asked) -> Reply:
        sent = base64.b64decode(asked.body["prompt_embeds"], validate=True)
        rows = torch.load(io.BytesIO(sent), weights_only=True)
        assert str(rows.dtype) == f"torch.{dtype}" and rows.is_contiguous() and rows.dim() == 2
        assert asked.body["prompt"] is None
        assert len(sent) < rows.numel() * rows.element_size() + 4096  # the tensor and not what it is a view of
        with torch.inference_mode():
            found = torch.log_softmax(model(inputs_embeds=rows.float()[None]).logits[0, -1], dim=-1)
        return answered(asked, {f"token_id:{i}": float(found[i]) for i in asked.body["logprob_token_ids"]})

    server.answer = answer


@pytest.mark.parametrize("layout", ["prefix", "suffix", "add"])
def test_soft_candidates_where_the_server_takes_embeddings(
    make: Make, server: CompletionsServer, tiny_directory: Any, plain: Any, layout: Any
) -> None:
    model, tokenizer = plain("llama")
    model_server(server, model, "bfloat16")
    oracle = make(prompt_embeds=True, embeddings=str(tiny_directory("llama")))
    info = oracle.info
    assert (info.soft, info.width, info.context) == (True, 32, 128)
    spec = PromptSpec(5, "vocab", "", layout, "paper")
    point = Point(np.random.default_rng(1).standard_normal(5 * 32).astype(np.float32))
    answer = oracle.evaluate(request((point,), MIXED, spec))
    wanted = plain_logits(model, tokenizer, codec_of(oracle).materialize(point, spec), layout, MIXED)
    difference = answer.logits[0] - wanted
    assert np.abs(difference - difference.mean(axis=1, keepdims=True)).max() < 0.1  # bfloat16 on the way


def test_texts_stay_texts_beside_soft_candidates(
    make: Make, server: CompletionsServer, tiny_directory: Any, plain: Any
) -> None:
    import torch

    model, tokenizer = plain("llama")

    def answer(asked: Asked) -> Reply:
        ids = torch.tensor([tokenizer(asked.prompt)["input_ids"]])
        with torch.inference_mode():
            found = torch.log_softmax(model(ids).logits[0, -1], dim=-1)
        return answered(asked, {f"token_id:{i}": float(found[i]) for i in asked.body["logprob_token_ids"]})

    server.answer = answer
    oracle = make(prompt_embeds=True, embeddings=str(tiny_directory("llama")))
    answer_of = oracle.evaluate(request((TEXTS[0],), MIXED, SPEC)).logits[0]
    difference = answer_of - plain_text_logits(model, tokenizer, TEXTS[0].text, MIXED)
    assert np.abs(difference - difference.mean(axis=1, keepdims=True)).max() < 1e-3
    assert not any("prompt_embeds" in asked.body for asked in server.asked)


def test_embeddings_go_nowhere_in_the_open(make: Make, tiny_directory: Any) -> None:
    soft = {"prompt_embeds": True, "embeddings": str(tiny_directory("llama"))}
    with pytest.raises(ModelError, match=r"over https or on this machine alone.*'http://10\.0\.0\.7:8000/v1'"):
        make(base_url="http://10.0.0.7:8000/v1", **soft)
    assert make(base_url="http://[::1]:8000/v1", **soft).info.soft
    assert not make(base_url="http://10.0.0.7:8000/v1").info.soft


# --------------------------------------------------------------------------------------------------- counters
def test_a_counter_knows_beforehand_what_a_server_refuses(
    settings: Callable[..., OpenAIOracleConfig], tokenizer_directory: str
) -> None:
    counter = build_counter(settings(tokenizer=tokenizer_directory))
    assert (counter.soft, counter.width, counter.rounds) == (False, 0, False)
    counter.require(BATCH, NO_ROWS)
    with pytest.raises(ModelError, match="takes no embeddings"):
        counter.require(BATCH, SPEC)
    with pytest.raises(ModelError, match="takes no embeddings"):
        counter.require_embedded(SPEC)
    with pytest.raises(ModelError, match="takes no embeddings"):
        counter.cost(request((Point(np.zeros(5, dtype=np.float32)),), spec=SPEC))
    with pytest.raises(TaskError, match="nothing after the label word"):
        tail = BATCH.examples[0]
        counter.require(Batch((type(tail)("u", "a", " It", 0, " end"),), BATCH.label_words, "train"), NO_ROWS)
    with pytest.raises(ModelError, match="zero_one"):
        build_counter(settings(scores="generated")).require(BATCH, NO_ROWS)


def test_a_counter_of_a_server_that_takes_embeddings(
    settings: Callable[..., OpenAIOracleConfig], tiny_directory: Any
) -> None:
    counter = build_counter(settings(prompt_embeds=True, embeddings=str(tiny_directory("llama"))))
    assert (counter.soft, counter.width) == (True, 32)
    counter.require(BATCH, SPEC)
    counter.require_embedded(SPEC)
    point = Point(np.zeros(SPEC.length * 32, dtype=np.float32))
    assert counter.cost(request((point,), BATCH, SPEC)).tokens == 2 * SPEC.length + (5 + 3) + 2


def test_seconds_follow_from_rates_where_these_are_what_limits(settings: Callable[..., OpenAIOracleConfig]) -> None:
    free = build_counter(settings(concurrency=4)).seconds(request(batch=MIXED))
    assert free == pytest.approx(14 * 0.5 / 4)
    slow = build_counter(settings(concurrency=4, requests_per_minute=7)).seconds(request(batch=MIXED))
    assert slow == pytest.approx(120.0)


def test_a_counter_of_a_vllm_engine_counts_every_row_whole(tiny_directory: Any) -> None:
    config = VllmOracleConfig(kind="vllm", model=str(tiny_directory("llama")), max_model_len=64)
    counter = build_counter(config)
    assert (counter.soft, counter.width, counter.rounds) == (True, 32, False)
    ours = build_counter(TransformersOracleConfig(kind="transformers", model=config.model))
    asked = request((Point(np.zeros(SPEC.length * 32, dtype=np.float32)), *TEXTS), BATCH, SPEC)
    assert counter.cost(asked) == ours.cost(asked)
    assert counter.choose_layout(BATCH, 50) == "prefix"
    assert counter.kept_bytes(BATCH, SPEC) == 0
    assert 0 < counter.seconds(asked) < math.inf
    with pytest.raises(ModelError, match="context of 64 tokens"):
        counter.require(MIXED, SPEC)


# --------------------------------------------------------------------------------------------------- facts
def test_facts_of_a_server_that_reads_text_alone(
    make: Make, server: CompletionsServer, tmp_path: Path, tokenizer_directory: str
) -> None:
    info = make().info
    assert (info.model, info.width, info.vocabulary, info.soft, info.device) == ("m", 0, 0, False, "server")
    assert info.context >= 2**31
    assert info.extra["base_url"] == server.url
    short = make_tokenizer(True)
    short.model_max_length = 12
    short.save_pretrained(tmp_path)
    oracle = make(tokenizer=str(tmp_path))
    assert oracle.info.context == 12
    with pytest.raises(ModelError, match="context of 12 tokens"):
        oracle.evaluate(request((Text("Classify the movie review " * 3),)))
