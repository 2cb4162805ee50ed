"""The vLLM oracle in this process: losses of the transformers oracle, and nothing that one candidate has of another."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from small_engine import ENGINE, FEW, LAYOUTS, LENGTH, candidates, mixed, spec_of

from distributed_tuner.config.proposer import LocalProposerConfig
from distributed_tuner.errors import ModelError, ProposerError
from distributed_tuner.maths.losses import cross_entropy, hinge
from distributed_tuner.oracles.base import LossOracle
from distributed_tuner.oracles.writing import writer
from distributed_tuner.proposers.base import Ask
from distributed_tuner.proposers.local import LocalProposer
from distributed_tuner.tasks.base import Task
from distributed_tuner.values import (
    Array,
    Embedded,
    Point,
    Request,
    Sampling,
    Text,
    TokenSpace,
)

pytestmark = pytest.mark.vllm
DTYPES = ("bfloat16", "float32")
Transformers = Callable[[str], LossOracle]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_losses_are_the_transformers_oracles(
    layout: Any, task: Task, engine: LossOracle, transformers_oracle: Transformers
) -> None:
    request = mixed(task, engine.info.width, layout, examples=16)
    found, wanted = engine.evaluate(request), transformers_oracle("bfloat16").evaluate(request)
    apart = np.abs(found.losses - wanted.losses) / np.maximum(1.0, wanted.losses)
    assert apart.max() < 0.03  # each of the two is a hundredth or two from float32, on these few rows
    assert np.ptp(wanted.losses) > 0.2  # the candidates differ by far more than the tolerance
    assert replace(found.cost, seconds=0) == replace(wanted.cost, seconds=0) == engine.cost(request)


def test_it_rounds_no_worse_than_the_plain_way_in_its_dtype(
    task: Task, engine: LossOracle, transformers_oracle: Transformers
) -> None:
    """Logits, not log-probabilities, whose level is another, and from a head in float32."""
    request = mixed(task, engine.info.width, "prefix")
    found, plain, exact = (one.evaluate(request).logits for one in (engine, *map(transformers_oracle, DTYPES)))
    assert np.abs(found - exact).mean() < 1.5 * np.abs(plain - exact).mean()
    assert len(np.unique(found)) > 0.9 * found.size  # bfloat16 has 8 bits: logits near 16 would repeat


@pytest.mark.parametrize(("name", "loss"), [("cross_entropy", cross_entropy), ("hinge", hinge)])
def test_a_loss_is_of_the_same_logits(name: Any, loss: Callable[..., Any], task: Task, engine: LossOracle) -> None:
    request = mixed(task, engine.info.width, "prefix")
    found = engine.evaluate(replace(request, batch=replace(request.batch, loss=name)))
    assert np.array_equal(found.logits, engine.evaluate(request).logits)
    labels = np.array([example.label for example in request.batch.examples])
    assert np.allclose(found.example_losses, loss(found.logits, np.broadcast_to(labels, found.logits.shape[:2])))
    assert np.allclose(found.losses, found.example_losses.mean(axis=1))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_candidates_share_no_keys_and_values(layout: Any, task: Task, engine: LossOracle) -> None:
    """Two candidates alike but for their rows: asked together, the second must not be answered with the first's."""
    request = mixed(task, engine.info.width, layout)
    together = engine.evaluate(request).losses
    alone = [float(engine.evaluate(replace(request, candidates=(one,))).losses[0]) for one in request.candidates]
    assert np.abs(together - alone).max() < 0.02
    first, second = request.candidates[:2]
    behind = engine.evaluate(replace(request, candidates=(first, second))).losses
    before = engine.evaluate(replace(request, candidates=(second, first))).losses
    assert np.abs(behind - before[::-1]).max() < 0.02
    assert abs(behind[0] - behind[1]) > 0.005


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_row_that_differs_late_is_not_taken_for_another(layout: Any, task: Task, engine: LossOracle) -> None:
    """The last row alone differs, so that all blocks of the cache before it are shared."""
    width = engine.info.width
    one = np.random.default_rng(9).standard_normal(LENGTH * width).astype(np.float32)
    other = one.copy()
    other[-width:] = 3 * np.random.default_rng(10).standard_normal(width)
    request = Request((Point(one), Point(other)), task.batch("train", range(FEW)), spec_of(task, layout))
    losses = engine.evaluate(request).losses
    swapped = engine.evaluate(replace(request, candidates=(Point(other), Point(one)))).losses
    assert np.abs(losses - swapped[::-1]).max() < 0.02
    assert losses[0] != losses[1]


def test_the_same_request_gives_the_same_bits_whatever_was_asked_before(task: Task, engine: LossOracle) -> None:
    request = mixed(task, engine.info.width, "prefix")
    first = engine.evaluate(request)
    engine.evaluate(mixed(task, engine.info.width, "suffix"))
    again = engine.evaluate(request)
    assert np.array_equal(first.logits, again.logits)


def test_it_serves_rows_and_tokens_as_the_transformers_oracle(
    task: Task, engine: LossOracle, transformers_oracle: Transformers
) -> None:
    plain = transformers_oracle("bfloat16")
    spec = spec_of(task, "prefix")
    for candidate in candidates(engine.info.width):
        rows: Array = engine.materialize(candidate, spec)
        assert np.array_equal(rows, plain.materialize(candidate, spec))
    rows = engine.materialize(Embedded("Route the message"), spec)
    assert engine.project([rows], "prefix", TokenSpace()) == plain.project([rows], "prefix", TokenSpace())
    assert engine.token_count("Route the message") == plain.token_count("Route the message")
    info = engine.info
    assert info.extra["engine"].startswith("vllm ")
    assert (info.device, info.dtype, info.soft, info.context) == ("cpu", "bfloat16", True, 1023)
    assert info.embedding_std == plain.info.embedding_std


def test_what_it_cannot_do_is_refused_and_leaves_it_answering(task: Task, engine: LossOracle) -> None:
    request = mixed(task, engine.info.width, "prefix")
    with pytest.raises(ModelError, match=r"no gradients.*oracle.kind: transformers"):
        engine.evaluate(replace(request, gradient=True))
    with pytest.raises(ModelError, match="context of 1023 tokens"):
        engine.evaluate(replace(request, candidates=(Text("team " * 1100),)))
    assert np.isfinite(engine.evaluate(request).losses).all()


def test_it_writes_answers_that_follow_from_the_seed_alone(task: Task, engine: LossOracle) -> None:
    asked = "Write three short prompts for judging a film review."
    write = writer(engine).write
    losses = mixed(task, engine.info.width, "prefix")
    before = engine.evaluate(losses)
    first = write(asked, Sampling(24, 0.8, 5))
    assert first.text.strip()
    assert 0 < first.output_tokens <= 24
    assert first.input_tokens > len(asked.split())
    assert first.seconds > 0
    assert np.array_equal(engine.evaluate(losses).logits, before.logits)  # losses are what they were
    assert write(asked, Sampling(24, 0.8, 5)).text == first.text
    assert write(asked, Sampling(24, 0.8, 6)).text != first.text
    assert write(asked, Sampling(24, 0.0, 5)).text == write(asked, Sampling(24, 0.0, 6)).text
    with pytest.raises(ProposerError, match=r"1023 tokens.*lower proposer\.max_tokens"):
        write(asked, Sampling(1020, 0.8, 5))


def test_greedy_answers_are_those_of_the_model_in_transformers(engine: LossOracle) -> None:
    """In bfloat16 two likely words may change places, so the first words alone must agree; and both come to an end."""
    asked = Ask("Name the capital of France.", 1, ("t", 0, 0))
    local = LocalProposer(LocalProposerConfig(kind="local", temperature=0, max_tokens=60)).answer(asked)
    written = writer(engine).write(asked.instruction, Sampling(60, 0.0, 0))
    assert written.text.split()[:4] == local.text.split()[:4]
    assert written.input_tokens == local.input_tokens
    assert written.output_tokens < 60


def test_a_request_of_more_rows_than_are_in_flight_is_answered_in_order(task: Task, engine: LossOracle) -> None:
    spec = replace(spec_of(task, "prefix"), length=2)
    draw = np.random.default_rng(12)
    points = tuple(Point(draw.standard_normal(2 * engine.info.width).astype(np.float32)) for _ in range(9))
    batch = task.batch("train", range(8))
    assert len(points) * len(batch.examples) > ENGINE["max_num_seqs"]
    many = engine.evaluate(Request(points, batch, spec)).losses
    few = [float(engine.evaluate(Request((points[i],), batch, spec)).losses[0]) for i in (0, 4, 8)]
    assert np.abs(many[[0, 4, 8]] - few).max() < 0.02
