"""The vLLM oracle in this process: losses of the transformers oracle, and nothing that one candidate has of another."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from small_engine import DTYPE, ENGINE, FEW, LAYOUTS, LENGTH, SHARING, candidates, mixed, spec_of

from distributed_tuner.config.proposer import LocalProposerConfig
from distributed_tuner.errors import ModelError, ProposerError
from distributed_tuner.maths.losses import cross_entropy, hinge
from distributed_tuner.oracles.base import LossOracle
from distributed_tuner.oracles.codec import codec_of
from distributed_tuner.oracles.generation import writer
from distributed_tuner.proposers.base import Ask
from distributed_tuner.proposers.local import LocalProposer
from distributed_tuner.tasks.base import Task
from distributed_tuner.values import (
    Array,
    Batch,
    Decoding,
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
ROUNDING = 0.05
"""Of a loss, by which two ways of computing it in bfloat16 may differ: on these few rows each is one to three
hundredths from float32, and how a row is computed hangs on the machine's kernels and on what else is in the batch."""


def apart(found: Any, wanted: Any) -> float:
    """Return how far losses are apart, as shares of those above 1."""
    return float((np.abs(np.subtract(found, wanted)) / np.maximum(1.0, wanted)).max())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_losses_are_the_transformers_oracles(
    layout: Any, task: Task, engine: LossOracle, transformers_oracle: Transformers
) -> None:
    request = mixed(task, engine.info.width, layout, examples=8)
    found, wanted = engine.evaluate(request), transformers_oracle(DTYPE).evaluate(request)
    assert apart(found.losses, wanted.losses) < ROUNDING
    assert np.ptp(wanted.losses) > 0.2  # the candidates differ by far more than the tolerance
    assert replace(found.cost, seconds=0) == replace(wanted.cost, seconds=0) == engine.cost(request)


def test_greedy_texts_are_the_transformers_oracles(
    task: Task, engine: LossOracle, transformers_oracle: Transformers
) -> None:
    """But for words that rounding decides; and each answer stops at its stop string."""
    request = texts_of(mixed(task, engine.info.width, "prefix"))
    found, wanted = engine.evaluate(request), transformers_oracle(DTYPE).evaluate(request)
    pairs = [pair for rows in zip(found.texts, wanted.texts, strict=True) for pair in zip(*rows, strict=True)]
    assert np.mean([ours == theirs for ours, theirs in pairs]) > 0.6
    assert not any("\n" in text for text, _ in pairs if text is not None)
    assert 0 < found.cost.output_tokens <= engine.cost(request).output_tokens
    assert found.cost.tokens - found.cost.output_tokens == wanted.cost.tokens - wanted.cost.output_tokens


def test_samples_follow_the_seed_the_candidate_and_the_example(task: Task, engine: LossOracle) -> None:
    request = texts_of(mixed(task, engine.info.width, "prefix"), temperature=1.0)
    together = engine.evaluate(request).texts
    alone = [engine.evaluate(replace(request, candidates=(one,))).texts[0] for one in request.candidates[:2]]
    same = [ours == theirs for rows in zip(together, alone, strict=False) for ours, theirs in zip(*rows, strict=True)]
    assert np.mean(same) > 0.6
    other = engine.evaluate(texts_of(request, temperature=1.0, seed=1)).texts
    assert other != together


def texts_of(request: Request, **how: Any) -> Request:
    decoding = Decoding(**({"max_new_tokens": 8} | how))
    return replace(request, batch=replace(request.batch, label_words=(), decoding=decoding))


@pytest.mark.skipif(DTYPE != "bfloat16", reason="this processor has no fast bfloat16")
def test_it_rounds_no_worse_than_the_plain_way_in_its_dtype(
    task: Task, engine: LossOracle, transformers_oracle: Transformers
) -> None:
    """Of label words compared with each other, since the engine tells log-probabilities; and from a head in float32."""
    request = mixed(task, engine.info.width, "prefix", examples=5)
    answers = [one.evaluate(request).logits for one in (engine, *map(transformers_oracle, DTYPES))]
    found, plain, exact = (logits - logits.mean(axis=-1, keepdims=True) for logits in answers)
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


@pytest.mark.parametrize("rule", ["sum", "mean"])
@pytest.mark.parametrize("layout", SHARING)
def test_label_phrases_have_the_losses_of_the_transformers_oracle(
    layout: Any, rule: Any, task: Task, engine: LossOracle, transformers_oracle: Transformers
) -> None:
    asked = mixed(task, engine.info.width, layout)
    phrases = (" technical support", " billing", " billing and payments", " delivery and returns desk")
    words = tuple(codec_of(engine).answer_words(asked.batch, 8)) if rule == "mean" else ()
    batch = replace(asked.batch, label_words=phrases, label_rule=rule, answer_words=words)
    request = replace(asked, batch=batch)
    found, wanted = engine.evaluate(request), transformers_oracle(DTYPE).evaluate(request)
    assert apart(found.losses, wanted.losses) < ROUNDING
    assert np.ptp(wanted.losses) > 3 * ROUNDING
    assert replace(found.cost, seconds=0) == replace(wanted.cost, seconds=0) == engine.cost(request)
    if words:
        assert found.features is not None and wanted.features is not None
        assert np.abs(found.features - wanted.features).mean() < 0.2


@pytest.mark.parametrize("per", ["token", "example"])
def test_targets_have_the_likelihoods_of_the_transformers_oracle(
    per: Any, task: Task, engine: LossOracle, transformers_oracle: Transformers
) -> None:
    asked = mixed(task, engine.info.width, SHARING[0])
    targets = (" technical support\n", " billing\n", " a parcel that never came\n")
    examples = tuple(replace(e, target=targets[i % 3]) for i, e in enumerate(asked.batch.examples))
    request = replace(asked, batch=Batch(examples, (), "train", per=per))
    found, wanted = engine.evaluate(request), transformers_oracle(DTYPE).evaluate(request)
    assert apart(found.losses, wanted.losses) < ROUNDING * (1 if per == "token" else 4)
    assert found.logits.shape == wanted.logits.shape and np.ptp(wanted.losses) > 3 * ROUNDING
    assert replace(found.cost, seconds=0) == engine.cost(request)


@pytest.mark.parametrize("layout", SHARING)
def test_candidates_share_no_keys_and_values(layout: Any, task: Task, engine: LossOracle) -> None:
    """Two candidates alike but for their rows: asked together, the second must not be answered with the first's."""
    request = mixed(task, engine.info.width, layout)
    together = engine.evaluate(request).losses
    alone = [float(engine.evaluate(replace(request, candidates=(one,))).losses[0]) for one in request.candidates]
    assert apart(together, alone) < ROUNDING
    draw = np.random.default_rng(9)
    first, second = (
        Point((scale * draw.standard_normal(LENGTH * engine.info.width)).astype(np.float32)) for scale in (1, 10)
    )
    behind = engine.evaluate(replace(request, candidates=(first, second))).losses
    before = engine.evaluate(replace(request, candidates=(second, first))).losses
    assert apart(behind, before[::-1]) < ROUNDING
    assert apart(behind[:1], behind[1:]) > 3 * ROUNDING


@pytest.mark.parametrize("layout", SHARING)
def test_a_row_that_differs_late_is_not_taken_for_another(layout: Any, task: Task, engine: LossOracle) -> None:
    """The last row alone differs, so that all blocks of the cache before it are shared."""
    width = engine.info.width
    one = np.random.default_rng(9).standard_normal(LENGTH * width).astype(np.float32)
    other = one.copy()
    other[-width:] = 3 * np.random.default_rng(10).standard_normal(width)
    request = Request((Point(one), Point(other)), task.batch("train", range(FEW)), spec_of(task, layout))
    losses = engine.evaluate(request).losses
    swapped = engine.evaluate(replace(request, candidates=(Point(other), Point(one)))).losses
    assert apart(losses, swapped[::-1]) < ROUNDING
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
    plain = transformers_oracle(DTYPE)
    spec = spec_of(task, "prefix")
    for candidate in candidates(engine.info.width):
        rows: Array = codec_of(engine).materialize(candidate, spec)
        assert np.array_equal(rows, codec_of(plain).materialize(candidate, spec))
    rows = codec_of(engine).materialize(Embedded("Route the message"), spec)
    assert codec_of(engine).project([rows], "prefix", TokenSpace()) == codec_of(plain).project(
        [rows], "prefix", TokenSpace()
    )
    assert codec_of(engine).token_count("Route the message") == codec_of(plain).token_count("Route the message")
    info = engine.info
    assert info.extra["engine"].startswith("vllm ")
    assert (info.device, info.dtype, info.soft, info.context) == ("cpu", DTYPE, True, 1023)
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
    request = mixed(task, engine.info.width, "prefix")
    many = replace(request, candidates=3 * request.candidates)
    assert len(many.candidates) * FEW > ENGINE["max_num_seqs"]
    alone = [float(engine.evaluate(replace(request, candidates=(one,))).losses[0]) for one in request.candidates]
    assert apart(engine.evaluate(many).losses, 3 * alone) < ROUNDING
    assert min(apart(*pair) for pair in itertools.pairwise(alone)) > 3 * ROUNDING  # none could stand for its neighbour


def test_the_scores_of_more_words_than_one_request_tells_are_the_transformers_oracles(
    task: Task, engine: LossOracle, transformers_oracle: Transformers
) -> None:
    batch = task.batch("train", range(FEW))
    words = codec_of(engine).answer_words(batch, 150)
    assert words == codec_of(transformers_oracle(DTYPE)).answer_words(batch, 150) and len(words) == 146
    assert engine.info.answer_words == 128
    request = Request((Text(task.manual_prompt),), replace(batch, answer_words=words), spec_of(task, "prefix"))
    found, wanted = engine.evaluate(request), transformers_oracle(DTYPE).evaluate(request)
    assert found.features is not None and wanted.features is not None
    assert found.features.shape == wanted.features.shape == (1, FEW, 150)
    apart_by = np.abs(found.features.astype(float) - wanted.features.astype(float))
    assert apart_by.mean() < 0.05 < wanted.features.astype(float).std() / 4
