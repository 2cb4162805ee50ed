"""Log-likelihoods of targets, teacher-forced, against the plain pass over each example's whole sequence."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from test_phrases import plain_scores
from tiny_models import ARCHITECTURES, CONTEXT, MIXED, SPEC

from distributed_tuner.config.oracle import AnalyticOracleConfig, Tile
from distributed_tuner.errors import ModelError, TaskError
from distributed_tuner.oracles.analytic import AnalyticOracle
from distributed_tuner.oracles.base import LossOracle, value_and_grad
from distributed_tuner.oracles.codec import codec_of
from distributed_tuner.oracles.wrappers.tiled import TiledOracle
from distributed_tuner.seeds import standard_normal
from distributed_tuner.values import Array64, Batch, Candidate, Point, Request, Text

TARGETS = (" good", " not really a good film", " terrible thing\n", " it is", " dull and slow", " bad\n", " verdict")
TOLERANCE = 1e-4
STANDING = ("llama", "gpt2")
PER = ("token", "example")


def targeted(per: Any = "token", targets: tuple[str, ...] = TARGETS, batch: Batch = MIXED) -> Batch:
    examples = tuple(replace(e, label=0, target=t) for e, t in zip(batch.examples, targets, strict=False))
    return Batch(examples, (), batch.split, per=per)


def points(oracle: LossOracle, count: int = 3) -> tuple[Point, ...]:
    return tuple(Point(standard_normal(("point", i), SPEC.length * oracle.info.width)) for i in range(count))


def plain_losses(oracle: LossOracle, plain: Any, candidate: Candidate, layout: Any, batch: Batch) -> Array64:
    """Return the negative log-likelihoods (E,), each example whole and by itself."""
    spec = replace(SPEC, layout=layout, init="zeros" if layout == "add" else SPEC.init)
    given = candidate.text if isinstance(candidate, Text) else codec_of(oracle).materialize(candidate, spec)
    rule: Any = "mean" if batch.per == "token" else "sum"
    alone = [Batch((e,), (e.target,), batch.split, label_rule=rule) for e in batch.examples]
    return -np.array([plain_scores(*plain, given, layout, one)[0, 0] for one in alone])


def assert_parity(oracle: LossOracle, plain: Any, candidates: Any, layout: Any, batch: Batch) -> None:
    spec = replace(SPEC, layout=layout, init="zeros" if layout == "add" else SPEC.init)
    answer = oracle.evaluate(Request(tuple(candidates), batch, spec))
    wanted = np.stack([plain_losses(oracle, plain, one, layout, batch) for one in candidates])
    np.testing.assert_allclose(answer.example_losses, wanted, atol=TOLERANCE * (1 if batch.per == "token" else 6))
    np.testing.assert_allclose(answer.losses, wanted.mean(axis=1), atol=TOLERANCE * 6)
    assert answer.logits.shape == (len(candidates), len(batch.examples), 1)


@pytest.mark.parametrize("per", PER)
@pytest.mark.parametrize("layout", ["prefix", "suffix", "add"])
@pytest.mark.parametrize("architecture", STANDING)
def test_losses_are_those_of_the_plain_pass(
    architecture: str, layout: str, per: str, tiny_oracle: Any, plain: Any
) -> None:
    oracle = tiny_oracle(architecture, True)
    assert_parity(oracle, plain(architecture, True), points(oracle), layout, targeted(per))


@pytest.mark.extended  # those above stand for them
@pytest.mark.parametrize("layout", ["prefix", "suffix", "add"])
@pytest.mark.parametrize("architecture", sorted(set(ARCHITECTURES) - set(STANDING)))
def test_losses_of_other_architectures(architecture: str, layout: str, tiny_oracle: Any, plain: Any) -> None:
    oracle = tiny_oracle(architecture)
    assert_parity(oracle, plain(architecture), points(oracle), layout, targeted())


def test_prompts_in_words(tiny_oracle: Any, plain: Any) -> None:
    oracle = tiny_oracle("llama", True)
    words = (Text("Classify the movie review"), Text(""))
    assert_parity(oracle, plain("llama", True), words, "prefix", targeted())


@pytest.mark.parametrize("per", PER)
def test_gradients_are_those_of_autograd_over_the_plain_pass(per: Any, tiny_oracle: Any, plain: Any) -> None:
    oracle, (model, tokenizer), batch = tiny_oracle("llama", gradients=True), plain("llama"), targeted(per)
    (point,) = points(oracle, 1)
    answer = value_and_grad(oracle, Request((point,), batch, SPEC))
    rows = torch.from_numpy(codec_of(oracle).materialize(point, SPEC)).requires_grad_()
    embed, losses = model.get_input_embeddings(), []
    for example in batch.examples:
        line, target = (tokenizer(text)["input_ids"] for text in (example.text + example.cue, example.target))
        whole = torch.cat([rows, embed(torch.tensor([*line, *target]))])
        own = torch.log_softmax(model(inputs_embeds=whole[None]).logits[0, -len(target) - 1 : -1], dim=-1)
        each = own[torch.arange(len(target)), target]
        losses.append(-(each.mean() if per == "token" else each.sum()))
    torch.stack(losses).mean().backward()
    assert rows.grad is not None and answer.gradients is not None
    wanted = rows.grad.numpy().reshape(-1) * oracle.info.embedding_std
    np.testing.assert_allclose(answer.gradients[0], wanted, atol=1e-5 * np.abs(wanted).max() + 1e-6)


def test_tiles_come_to_the_same(tiny_oracle: Any) -> None:
    oracle, batch = tiny_oracle("gpt2"), targeted()
    request = Request(points(oracle, 5), batch, SPEC)
    whole, tiled = oracle.evaluate(request), TiledOracle(oracle, Tile(candidates=2, examples=3)).evaluate(request)
    np.testing.assert_allclose(tiled.example_losses, whole.example_losses, atol=1e-5)
    assert (tiled.cost.queries, tiled.cost.forwards, tiled.cost.tokens) == (5, 35, whole.cost.tokens)


def test_tokens_are_those_of_rows_and_targets(tiny_oracle: Any, plain: Any) -> None:
    oracle, (_, tokenizer), batch = tiny_oracle("llama"), plain("llama"), targeted()
    lengths = [len(tokenizer(e.text + e.cue + e.target)["input_ids"]) - 1 for e in batch.examples]  # the last is read
    request = Request(points(oracle, 2), batch, SPEC)
    assert oracle.cost(request).tokens == 2 * (sum(lengths) + SPEC.length * len(lengths))
    assert oracle.evaluate(request).cost.tokens == oracle.cost(request).tokens


def test_a_target_that_is_too_long_is_refused_with_its_example(tiny_oracle: Any) -> None:
    oracle = tiny_oracle("llama")
    batch = targeted(targets=(" good", " not" * CONTEXT))
    with pytest.raises(ModelError, match=r"tokens of example 'train-1' with its target make"):
        oracle.evaluate(Request(points(oracle, 1), batch, SPEC))
    with pytest.raises(ModelError, match="with the longest example makes"):
        oracle.evaluate(Request((Text("some"),), batch, SPEC))


def test_a_target_that_melts_into_its_cue_is_refused_with_its_example(tiny_oracle: Any) -> None:
    example = replace(MIXED.examples[0], cue=" some", target="thing")
    with pytest.raises(TaskError, match="the target of example train-0 must begin a token of its own after ' some'"):
        tiny_oracle("llama").evaluate(Request((Text(""),), Batch((example,), (), "train"), SPEC))


def test_a_masked_model_generates_nothing(tiny_oracle: Any) -> None:
    with pytest.raises(ModelError, match="likelihoods of the task's targets are asked for, but a masked model"):
        tiny_oracle("roberta").evaluate(Request((Text("some"),), targeted(), SPEC))


@pytest.mark.parametrize("function", ["logistic", "quadratic", "flat"])
@pytest.mark.parametrize("per", PER)
def test_the_analytic_oracle_has_slopes_of_its_likelihoods(function: Any, per: Any) -> None:
    oracle, batch = AnalyticOracle(AnalyticOracleConfig(function=function, width=3)), targeted(per)
    spec = replace(SPEC, init="zeros")
    x = standard_normal(("x",), SPEC.length * 3)
    answer = value_and_grad(oracle, Request((Point(x),), batch, spec))
    assert answer.gradients is not None and (answer.example_losses >= 0).all()
    step = np.float32(1e-2)
    for i in (0, 7):
        e = np.eye(len(x), dtype=np.float32)[i] * step
        ahead, behind = (oracle.evaluate(Request((Point(x + d),), batch, spec)).losses[0] for d in (e, -e))
        assert answer.gradients[0, i] == pytest.approx((ahead - behind) / (2 * step), abs=2e-3)
