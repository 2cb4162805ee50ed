"""Label phrases: scores of all their tokens, against the plain pass over each sequence, one a phrase."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import ARCHITECTURES, CONTEXT, MIXED, SPEC, TEXTS, batch_of, filler_ids

from distributed_tuner.config.oracle import TransformersOracleConfig
from distributed_tuner.errors import ModelError, TaskError
from distributed_tuner.maths.losses import cross_entropy
from distributed_tuner.oracles.base import LossOracle
from distributed_tuner.oracles.codec import codec_of
from distributed_tuner.oracles.local.oracle import TransformersOracle
from distributed_tuner.oracles.tokens.continuations import Tree, continuations_of, hang, in_order, seen
from distributed_tuner.seeds import standard_normal
from distributed_tuner.values import Array, Array64, Batch, Candidate, Point, Request, Text

TOLERANCE = 1e-4
PHRASES = (" not good", " good", " not really a good film", " terrible thing")
"""Of 2, 1, 5 and 2 tokens; two of them begin alike, and the second is no beginning of another."""
RULES = ("sum", "mean")
STANDING = ("llama", "gpt2")


def phrased(rule: Any, batch: Batch = MIXED, words: Sequence[str] = PHRASES) -> Batch:
    examples = tuple(replace(example, label=i % len(words)) for i, example in enumerate(batch.examples))
    return replace(batch, examples=examples, label_words=tuple(words), label_rule=rule)


def points(oracle: LossOracle, count: int = 3) -> tuple[Point, ...]:
    return tuple(Point(standard_normal(("point", i), SPEC.length * oracle.info.width)) for i in range(count))


def plain_scores(model: Any, tokenizer: Any, candidate: Array | str, layout: str, batch: Batch) -> Array64:
    """Return the log-probabilities (E, W) of the phrases, each sequence whole and by itself."""
    embed = model.get_input_embeddings()

    def ids(text: str, special: bool) -> list[int]:
        found: list[int] = tokenizer(text, add_special_tokens=special)["input_ids"]
        return found

    def embedded(tokens: list[int]) -> Any:
        return embed(torch.tensor(tokens, dtype=torch.long))

    found = []
    with torch.inference_mode():
        for example in batch.examples:
            if isinstance(candidate, str):
                head = ids(candidate + "\n" if candidate else "", True)
                row = embedded(head + ids(example.text + example.cue, False))
            elif layout == "suffix":
                soft = torch.from_numpy(candidate)
                row = torch.cat([embedded(ids(example.text, True)), soft, embedded(ids(example.cue, False))])
            elif layout == "add":
                under = embedded([*ids("", True), *filler_ids(len(candidate), len(embed.weight))])
                under[: len(candidate)] += torch.from_numpy(candidate)
                row = torch.cat([under, embedded(ids(example.text + example.cue, False))])
            else:
                row = torch.cat([torch.from_numpy(candidate), embedded(ids(example.text + example.cue, True))])
            for word in batch.label_words:
                tokens = ids(word, False)
                logits = model(inputs_embeds=torch.cat([row, embedded(tokens)])[None], use_cache=False).logits[0]
                own = torch.log_softmax(logits[-len(tokens) - 1 : -1].double(), dim=-1)
                each = own[torch.arange(len(tokens)), tokens]
                found.append(float(each.sum() if batch.label_rule == "sum" else each.mean()))
    return np.array(found).reshape(len(batch.examples), len(batch.label_words))


def row_centred(scores: Any) -> Any:
    return scores - scores.mean(axis=-1, keepdims=True)


def assert_parity(
    oracle: LossOracle, plain: tuple[Any, Any], candidates: Sequence[Candidate], layout: Any, batch: Batch
) -> None:
    spec = replace(SPEC, layout=layout, init="zeros" if layout == "add" else SPEC.init)
    answer = oracle.evaluate(Request(tuple(candidates), batch, spec))
    for i, candidate in enumerate(candidates):
        given = candidate.text if isinstance(candidate, Text) else codec_of(oracle).materialize(candidate, spec)
        wanted = plain_scores(*plain, given, layout, batch)
        got = answer.logits[i]
        if batch.label_rule == "sum":
            got, wanted = row_centred(got), row_centred(wanted)
        np.testing.assert_allclose(got, wanted, atol=TOLERANCE)
        losses = cross_entropy(wanted, np.array([example.label for example in batch.examples]))
        np.testing.assert_allclose(answer.example_losses[i], losses, atol=TOLERANCE)


# ------------------------------------------------------------------------------------------------- the tree alone
def test_phrases_that_begin_alike_share_their_first_tokens() -> None:
    tree, read = hang([(1, 2, 3), (4,), (1, 2, 5), (1, 6)])
    assert tree == Tree((1, 2), (-1, 0))
    assert read == ((0, 1, 2), (0,), (0, 1, 2), (0, 1))
    tree, _ = hang([(1, 2, 3), (4, 2, 3)])
    assert tree == Tree((1, 2, 4, 2), (-1, 0, -1, 2))
    assert (tree.depths.tolist(), tree.depth, tree.is_chain) == ([0, 1, 0, 1], 2, False)
    assert tree.sees.tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]
    assert tree.paths == ((0, 1), (2, 3))
    assert Tree().paths == ((),)


def test_a_phrase_that_begins_another_is_read_on_its_way() -> None:
    tree, read = hang([(1,), (1, 2)])
    assert (tree, read) == (Tree((1,), (-1,)), ((0,), (0, 1)))


def test_a_chain_is_a_row_that_goes_on() -> None:
    chain, _ = hang([(7, 8, 9, 10)])
    assert chain.is_chain and chain.paths == ((0, 1, 2),)
    assert seen([3, 2], [chain, Tree()], 6) is None
    fork, _ = hang([(7, 8), (9, 8)])
    mask = seen([2, 1], [fork, Tree()], 4)
    assert mask is not None
    assert mask[0].tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 0, 1]]
    assert mask[1].tolist() == np.eye(4, dtype=bool).tolist()  # what is no row sees itself


def test_continuations_of_rows_that_differ_are_padded() -> None:
    found = continuations_of([[(1, 2, 3)], [(4,)]])
    assert found.tokens.tolist() == [[[1, 2, 3]], [[4, 4, 4]]]
    assert found.places.tolist() == [[[0, 1, 2]], [[3, 3, 3]]]
    assert (found.lengths.tolist(), found.ends.tolist()) == ([[3], [1]], [0, 3])


def test_parts_are_put_back_in_their_order() -> None:
    parts = {2: "c", 0: "aa", 1: "bbb"}
    mixed = "".join(parts.values())
    assert "".join(mixed[i] for i in in_order(list(parts), [2, 3, 1])) == "aabbbc"


# ------------------------------------------------------------------------------------------------- parity
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("layout", ["prefix", "suffix", "add"])
@pytest.mark.parametrize("architecture", STANDING)
def test_scores_are_those_of_the_plain_pass(
    architecture: str, layout: str, rule: str, tiny_oracle: Any, plain: Any
) -> None:
    oracle = tiny_oracle(architecture, True)
    assert_parity(oracle, plain(architecture, True), points(oracle), layout, phrased(rule))


@pytest.mark.extended  # those above stand for them
@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("layout", ["prefix", "suffix", "add"])
@pytest.mark.parametrize("architecture", sorted(set(ARCHITECTURES) - set(STANDING)))
def test_scores_of_other_architectures(architecture: str, layout: str, bos: bool, tiny_oracle: Any, plain: Any) -> None:
    oracle = tiny_oracle(architecture, bos)
    for rule in RULES:
        assert_parity(oracle, plain(architecture, bos), points(oracle), layout, phrased(rule))


@pytest.mark.parametrize("bos", [False, True], ids=["plain", "bos"])
def test_scores_of_prompts_in_words(bos: bool, tiny_oracle: Any, plain: Any) -> None:
    prompts = (Text("Classify the movie review"), Text(""))
    assert_parity(tiny_oracle("llama", bos), plain("llama", bos), prompts, "prefix", phrased("mean"))


@pytest.mark.parametrize("layout", ["prefix", "suffix"])
def test_texts_that_are_seen_once(layout: str, tiny_oracle: Any, plain: Any) -> None:
    oracle = tiny_oracle("llama")
    batch = phrased("sum", batch_of(("", "bad", *TEXTS), split="test"))
    assert_parity(oracle, plain("llama"), points(oracle), layout, batch)


@pytest.mark.parametrize("layout", ["prefix", "suffix", "add"])
def test_rows_beyond_the_reach_are_computed_whole(
    layout: str, tiny_config: Any, plain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    oracle = TransformersOracle(tiny_config("llama", gradients=True))  # layers as they are
    monkeypatch.setattr(oracle._encoder, "reach", 16)  # of the shorter of these rows
    for rule in RULES:
        assert_parity(oracle, plain("llama"), points(oracle), layout, phrased(rule))
    assert_parity(oracle, plain("llama"), (Text("Classify"),), layout, phrased("mean"))


def test_a_tile_of_many_tokens_is_split_without_a_trace(tiny_oracle: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    oracle = tiny_oracle("llama")
    for layout in ("prefix", "suffix", "add"):
        request = Request(points(oracle, 5), phrased("mean"), replace(SPEC, layout=layout))
        whole = oracle.evaluate(request).logits
        with monkeypatch.context() as patch:
            patch.setattr(oracle._packed, "forward_tokens", 40)
            np.testing.assert_allclose(oracle.evaluate(request).logits, whole, atol=1e-5)


# ------------------------------------------------------------------------------------------------- rules
@pytest.mark.parametrize("rule", RULES)
def test_single_words_have_the_bits_of_the_rule_single(rule: Any, tiny_oracle: Any) -> None:
    oracle = tiny_oracle("llama")
    single = Request(points(oracle), MIXED, SPEC)
    found = oracle.evaluate(replace(single, batch=replace(MIXED, label_rule=rule)))
    np.testing.assert_array_equal(found.logits, oracle.evaluate(single).logits)
    assert found.cost.tokens == oracle.cost(single).tokens


def test_the_sum_never_prefers_a_phrase_to_its_own_beginning(tiny_oracle: Any) -> None:
    oracle = tiny_oracle("llama")
    request = Request(points(oracle), phrased("sum", words=(" good", " good film")), SPEC)
    logits = oracle.evaluate(request).logits
    assert (logits[..., 0] > logits[..., 1]).all()
    mean = oracle.evaluate(replace(request, batch=phrased("mean", words=(" good", " good film")))).logits
    assert np.isfinite(mean).all()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("layout", ["prefix", "suffix", "add"])
def test_gradients(rule: str, layout: Any, tiny_config: Any) -> None:
    oracle = TransformersOracle(tiny_config("llama", gradients=True))
    x = 0.5 * standard_normal(("x",), SPEC.length * oracle.info.width)
    spec = replace(SPEC, layout=layout)
    found = oracle.evaluate(Request((Point(x),), phrased(rule), spec, gradient=True))
    assert found.gradients is not None
    np.testing.assert_allclose(
        found.logits, oracle.evaluate(Request((Point(x),), phrased(rule), spec)).logits, atol=TOLERANCE
    )
    step = 0.01 * found.gradients[0] / np.linalg.norm(found.gradients[0])
    up, down = oracle.evaluate(Request((Point(x + step), Point(x - step)), phrased(rule), spec)).losses
    assert (up - down) / 0.02 == pytest.approx(np.linalg.norm(found.gradients[0]), rel=0.02)


@pytest.mark.parametrize("rule", RULES)
def test_answer_words_are_read_at_the_end_of_the_row(rule: Any, tiny_oracle: Any) -> None:
    oracle = tiny_oracle("llama")
    words = (" film", " bright", " not")
    batch = replace(phrased(rule), answer_words=words)
    found = oracle.evaluate(Request(points(oracle), batch, SPEC))
    alone = oracle.evaluate(Request(points(oracle), replace(MIXED, answer_words=words), SPEC))
    assert found.features is not None and alone.features is not None
    assert found.features.shape == (3, len(TEXTS), len(PHRASES) + len(words))
    between = found.features[..., -3:].astype(np.float64), alone.features[..., -3:].astype(np.float64)
    np.testing.assert_allclose(row_centred(between[0]), row_centred(between[1]), atol=0.05)
    np.testing.assert_allclose(
        row_centred(found.features[..., : len(PHRASES)].astype(np.float64)), row_centred(found.logits), atol=0.05
    )


# ------------------------------------------------------------------------------------------------- costs and bad input
def test_costs_count_the_tokens_behind_each_row_once(tiny_oracle: Any, tiny_config: Callable[..., Any]) -> None:
    oracle = tiny_oracle("llama")
    single, several = Request(points(oracle), MIXED, SPEC), Request(points(oracle), phrased("sum"), SPEC)
    behind = 1 + 3 + 1  # " not", then " really a good", and " terrible"
    assert oracle.cost(several).tokens - oracle.cost(single).tokens == 3 * len(TEXTS) * behind
    assert oracle.cost(several) == replace(oracle.cost(single), tokens=oracle.cost(several).tokens)


def test_words_that_cannot_be_scored_are_refused(tiny_oracle: Any) -> None:
    def ask(architecture: str, batch: Batch) -> None:
        oracle = tiny_oracle(architecture)
        oracle.evaluate(Request(points(oracle), batch, SPEC))

    with pytest.raises(TaskError, match=r"' not good' is 2: .*label_rule: first .* or to sum or mean to score it"):
        ask("llama", phrased("single"))
    with pytest.raises(TaskError, match=r"label words must differ in their token, but ' not good' and ' not good'"):
        ask("llama", phrased("sum", words=(" not good", " not good", " bad")))
    with pytest.raises(TaskError, match=r"a masked model fills in one token, so that a label word must be one token"):
        ask("roberta", phrased("mean"))
    long = " a" * (CONTEXT - SPEC.length - 2)
    with pytest.raises(ModelError, match="prompt and text must fit"):
        ask("llama", phrased("sum", batch_of((long,))))


def test_a_phrase_takes_the_room_of_its_longest_path(tiny_config: Any) -> None:
    oracle = TransformersOracle(TransformersOracleConfig.model_validate(tiny_config("llama").model_dump()))
    room = CONTEXT - SPEC.length - 2 - 4  # cue, and four tokens behind the row
    text = "a" + " a" * (room - 1)
    oracle.evaluate(Request(points(oracle), phrased("sum", batch_of((text,))), SPEC))
    with pytest.raises(ModelError, match="prompt and text must fit"):
        oracle.evaluate(Request(points(oracle), phrased("sum", batch_of((text + " a",))), SPEC))
