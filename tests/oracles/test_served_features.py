"""Answer features of a server: what its likeliest tokens tell of labels that hide in other words."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from completions_server import Asked, CompletionsServer, Reply, answered
from tiny_models import batch_of, make_tokenizer

from distributed_tuner.config.head import CentroidHeadConfig, HeadConfig, NeighboursHeadConfig, VocabularyHeadConfig
from distributed_tuner.oracles.codec import codec_of
from distributed_tuner.oracles.served.openai import OpenAIOracle
from distributed_tuner.oracles.wrappers.cached import CachedOracle
from distributed_tuner.prompts.spec import NO_ROWS
from distributed_tuner.stages.reading import Reader
from distributed_tuner.tasks.base import Task
from distributed_tuner.values import Batch, Request, Text

Make = Callable[..., OpenAIOracle]
WORDS = (" warm", " cold", " the")
HEADS = [
    VocabularyHeadConfig(kind="vocabulary", answer_words=WORDS),
    CentroidHeadConfig(kind="centroid", answer_words=WORDS),
    NeighboursHeadConfig(kind="knn", answer_words=WORDS),
]


def hidden(asked: Asked) -> Reply:
    """Tell nothing by the label words, and all by others, of which one is not among the likeliest."""
    noise = 0.01 * (sum(asked.prompt.encode()) % 7)
    said, weight = (" warm", -1.5) if "good" in asked.prompt else (" cold", -1.6)
    return answered(asked, {" great": -1.5, " terrible": -1.5, said: weight - noise, " the": -3.0 + noise})


def task() -> Task:
    texts = [f"{'good' if i % 2 else 'poor'} film {i}" for i in range(24)]
    examples = batch_of(texts).examples
    examples = tuple(replace(one, label=int("good" in one.text)) for one in examples)
    words = (" terrible", " great")
    parts = [examples[at::3] for at in range(3)]
    return Task("t", words, words, "cross_entropy", "single", ("accuracy",), "", "", *parts, answer_words=WORDS)


def asked_for(batch: Batch, fresh: bool = False) -> Request:
    return Request((Text("Classify"),), batch, NO_ROWS, fresh=fresh)


@pytest.mark.parametrize("head", HEADS)
def test_a_head_reads_labels_that_hide_in_other_words(head: HeadConfig, make: Make, server: CompletionsServer) -> None:
    server.answer = hidden
    reader, oracle = Reader(task(), head), make()
    train, dev, test = (oracle.evaluate(asked_for(reader.batch(split))) for split in ("train", "dev", "test"))
    read = reader.read(train, dev)
    _, scores = reader.measure(read.state, [test], "test")
    assert scores["accuracy"] == read.dev_metrics["accuracy"] == 1.0
    labels = np.array([example.label for example in task().test])
    assert (test.logits[0].argmax(axis=1) == labels).mean() < 0.8
    assert len(server.asked) == 24, "they come with the answers that are paid for anyway"


def test_features_are_scores_less_their_mean_and_floored_by_what_is_left(make: Make, server: CompletionsServer) -> None:
    server.answer = lambda asked: answered(asked, {" great": -0.5, " terrible": -2.0, " warm": -2.5})
    batch = replace(batch_of(["a good film"]), answer_words=WORDS)
    found = make().evaluate(asked_for(batch))
    scores = np.array([-2.0, -0.5, -2.5, -2.5, -2.5])  # what is left would allow -1.8
    assert found.features is not None and found.features.dtype == np.float16
    np.testing.assert_allclose(found.features[0, 0], scores - scores.mean(), atol=2e-3)
    np.testing.assert_allclose(found.logits[0, 0], [-2.0, -0.5], rtol=1e-6)
    server.answer = lambda asked: answered(asked, {" great": -0.1, " terrible": -2.5})
    found = make().evaluate(asked_for(batch))
    left = np.log(1 - np.exp([-0.1, -2.5]).sum())
    scores = np.array([-2.5, -0.1, left, left, left])
    assert left < -2.5 and found.features is not None
    np.testing.assert_allclose(found.features[0, 0], scores - scores.mean(), atol=4e-3)


def test_what_answers_begin_with_is_told_where_it_is_asked_for(make: Make, server: CompletionsServer) -> None:
    server.answer = hidden
    oracle, batch = make(), batch_of(["good", "poor"])
    assert oracle.evaluate(asked_for(batch)).tops == {}
    tops = oracle.evaluate(asked_for(batch, fresh=True)).tops
    assert set(tops) == {" warm", " cold", " the"}
    assert tops[" warm"] == pytest.approx(np.exp(-1.5), rel=0.1)


def test_features_are_kept_with_the_answers(make: Make, server: CompletionsServer, tmp_path: Any) -> None:
    server.answer = hidden
    oracle = make()
    kept = CachedOracle(oracle, str(tmp_path), oracle._config)
    batch = replace(batch_of(["good", "poor"]), answer_words=WORDS)
    first, again = kept.evaluate(asked_for(batch)), kept.evaluate(asked_for(batch))
    assert len(server.asked) == 2
    assert first.features is not None and again.features is not None
    assert first.features.tobytes() == again.features.tobytes()


def test_a_server_that_tells_of_any_token_is_asked_for_those_of_the_words(
    make: Make, server: CompletionsServer, tokenizer_directory: str
) -> None:
    tokenizer = make_tokenizer(True)
    oracle, plain = make(tokenizer=tokenizer_directory), batch_of(["a good film"])
    words = codec_of(oracle).answer_words(plain, 8)
    assert len(words) == 6 and words == codec_of(oracle).answer_words(plain, 8)
    batch = replace(plain, answer_words=words)
    ids = [tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in (*batch.label_words, *words)]
    server.answer = lambda asked: answered(asked, {f"token_id:{token}": -1.0 - i for i, token in enumerate(ids)})
    found = oracle.evaluate(asked_for(batch))
    assert server.asked[0].body["logprob_token_ids"] == ids
    scores = -1.0 - np.arange(8)
    assert found.features is not None
    np.testing.assert_allclose(found.features[0, 0], scores - scores.mean(), atol=2e-3)
    assert codec_of(make()).answer_words(plain, 8) == ()
