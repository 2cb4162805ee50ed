"""Generated answers of the transformers oracle: those of the plain pass, one row and one token at a time."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import CONTEXT, MIXED, SPEC

from benchmarks.families import FAMILIES, make, other_texts
from distributed_tuner.config.oracle import Price, Tile
from distributed_tuner.errors import ModelError
from distributed_tuner.oracles.base import LossOracle
from distributed_tuner.oracles.cost_model import build_counter
from distributed_tuner.oracles.local.row_cache import MOST_PADDED, blocks_of
from distributed_tuner.oracles.wrappers.tiled import TiledOracle
from distributed_tuner.seeds import standard_normal
from distributed_tuner.values import Batch, Candidate, Decoding, Layout, Point, Request, Text

TOKENS = 10
SHORT = tuple(example for example in MIXED.examples if len(example.text) < 150)
STANDING = {
    "LLaMA": "rewritten layers, grouped heads",
    "GPT-2": "positions that are learnt",
    "Phi-3 with LongRoPE": "short rows packed, long ones whole",
    "DeepSeek-V3": "values narrower than keys",
    "Gemma 2": "capped scores, whole rows",
    "LFM2": "a cache that is not of keys and values alone",
    "RWKV": "a pass for each token, where a model's generate gives a batch something else",
}
"""Families that stand for the others, and for what."""


@pytest.fixture
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DISTRIBUTED_TUNER_CACHE", str(tmp_path / "cache"))


def points(oracle: LossOracle, count: int = 3) -> tuple[Point, ...]:
    return tuple(Point(standard_normal(("point", i), SPEC.length * oracle.info.width)) for i in range(count))


def asked(candidates: tuple[Candidate, ...], layout: Layout = "prefix", **how: Any) -> Request:
    decoding = Decoding(**({"max_new_tokens": TOKENS, "stop": ()} | how))
    spec = replace(SPEC, layout=layout, init="zeros" if layout == "add" else "text")
    return Request(candidates, Batch(SHORT, (), "train", decoding=decoding), spec)


def all_of(oracle: LossOracle) -> tuple[Candidate, ...]:
    return (*points(oracle, 2), Text("Classify the movie"), points(oracle, 3)[2], Text(""))


# ------------------------------------------------------------------------------------------------------- parity
@pytest.mark.parametrize("name", STANDING)
def test_texts_are_those_of_the_plain_pass(name: str, tmp_path: Path, own_cache: None) -> None:
    assert not any(other_texts(name, make(FAMILIES[name], tmp_path), TOKENS).values())


@pytest.mark.extended  # those above stand for them
@pytest.mark.parametrize(
    "name", sorted(name for name in FAMILIES.keys() - STANDING.keys() if not FAMILIES[name].masked)
)
def test_texts_of_every_other_family(name: str, tmp_path: Path, own_cache: None) -> None:
    assert not any(other_texts(name, make(FAMILIES[name], tmp_path), TOKENS).values())


@pytest.mark.parametrize("linear", ["plain", "packed_fused"])
@pytest.mark.parametrize("layout", ["prefix", "suffix", "add"])
def test_answers_hang_on_their_row_alone(layout: Layout, linear: str, tiny_oracle: Any) -> None:
    oracle = tiny_oracle("llama", True, linear=linear)
    request = asked(all_of(oracle), layout)
    together = oracle.evaluate(request)
    assert len({text for row in together.texts for text in row}) > len(SHORT)
    for i, candidate in enumerate(request.candidates):
        for j, example in enumerate(SHORT):
            one = replace(request, candidates=(candidate,), batch=replace(request.batch, examples=(example,)))
            assert oracle.evaluate(one).texts == ((together.texts[i][j],),)


@pytest.mark.parametrize("how", [{}, {"temperature": 1.5, "seed": 4}])
@pytest.mark.parametrize("layout", ["prefix", "suffix"])
def test_the_same_texts_whatever_the_tiles(layout: Layout, how: dict[str, Any], tiny_oracle: Any) -> None:
    oracle = tiny_oracle("llama")
    request = asked(all_of(oracle), layout, **how)
    whole = oracle.evaluate(request)
    for tile in (Tile(candidates=2, examples=2), Tile(candidates=4, examples=3)):
        tiled = TiledOracle(oracle, tile).evaluate(request)
        assert tiled.texts == whole.texts
        assert replace(tiled.cost, seconds=0.0) == replace(whole.cost, seconds=0.0)


def test_samples_follow_the_seed_and_the_models_distribution(tiny_oracle: Any) -> None:
    oracle = tiny_oracle("llama")
    greedy, *warm = (
        oracle.evaluate(asked(all_of(oracle), **how)).texts
        for how in ({}, *({"temperature": 1.5, "seed": seed} for seed in (0, 0, 1)))
    )
    assert warm[0] == warm[1] != warm[2]
    assert greedy not in warm
    cold = oracle.evaluate(asked(all_of(oracle), temperature=1e-4)).texts
    assert cold == greedy


# ------------------------------------------------------------------------------------------------------- the end
def test_rows_end_at_stop_strings_and_leave_the_batch(tiny_oracle: Any) -> None:
    oracle = tiny_oracle("llama")
    free = oracle.evaluate(asked(all_of(oracle)))
    middle = max((text for row in free.texts for text in row if text and len(text) > 8), key=len)[3:6]
    request = asked(all_of(oracle), stop=(middle, "no such thing"))
    stopped = oracle.evaluate(request)
    for row, before in zip(stopped.texts, free.texts, strict=True):
        for text, whole in zip(row, before, strict=True):
            assert text is not None and whole is not None and middle not in text
            assert text == whole.partition(middle)[0].strip()
    assert stopped.cost.output_tokens < free.cost.output_tokens
    assert stopped.cost.tokens - stopped.cost.output_tokens == free.cost.tokens - free.cost.output_tokens


@pytest.mark.parametrize("name", ["LLaMA", "Gemma 2"])
def test_rows_end_at_the_models_end_of_text(name: str, tmp_path: Path, own_cache: None) -> None:
    """Tokens that a free model generates are made its ends of text."""
    folder = make(FAMILIES[name], tmp_path)
    assert not any(other_texts(name, folder, TOKENS).values())
    from transformers import GenerationConfig

    GenerationConfig(eos_token_id=list(range(2, 200)), pad_token_id=1).save_pretrained(folder)
    assert not any(other_texts(name, folder, TOKENS).values())


def test_the_bound_is_of_all_tokens_and_the_charge_of_those_that_were_generated(
    tiny_config: Any, tiny_oracle: Any
) -> None:
    price = Price(usd_per_million_input_tokens=1.0, usd_per_million_output_tokens=10.0)
    oracle = tiny_oracle("llama", price=price)
    request = asked(all_of(oracle))
    bound, answer = oracle.cost(request), oracle.evaluate(request)
    rows = len(request.candidates) * len(SHORT)
    assert bound == build_counter(tiny_config("llama", price=price)).cost(request)
    assert bound.output_tokens == rows * TOKENS == answer.cost.output_tokens, "it never ends"
    assert (answer.cost.queries, answer.cost.forwards, answer.cost.tokens) == (
        bound.queries,
        bound.forwards,
        bound.tokens,
    )
    assert bound.usd == pytest.approx((bound.tokens + 9 * bound.output_tokens) / 1e6)
    assert oracle.evaluate(asked(all_of(oracle), max_new_tokens=1)).cost.output_tokens == rows


# ------------------------------------------------------------------------------------------------------- bad input
def test_a_prompt_that_is_no_numbers_fails_its_own_answers_alone(tiny_oracle: Any) -> None:
    oracle = tiny_oracle("llama")
    good = points(oracle, 1)
    broken = Point(np.full(SPEC.length * oracle.info.width, np.nan, dtype=np.float32))
    for how in ({}, {"temperature": 1.0}):
        both = oracle.evaluate(asked((broken, *good), **how))
        assert both.texts[0] == (None,) * len(SHORT)
        assert both.counts == {"failed_answers": len(SHORT)}
        assert both.texts[1:] == oracle.evaluate(asked(good, **how)).texts


@pytest.mark.parametrize("candidate", [Text("Classify"), None])
def test_an_answer_must_have_room(candidate: Candidate | None, tiny_oracle: Any) -> None:
    oracle = tiny_oracle("llama")
    one = points(oracle, 1)[0] if candidate is None else candidate
    with pytest.raises(
        ModelError, match=f"context of {CONTEXT} tokens.*its answer up to 120 more.*lower max_new_tokens"
    ):
        oracle.evaluate(asked((one,), max_new_tokens=120))


def test_a_masked_model_generates_nothing(tiny_oracle: Any, tiny_config: Any) -> None:
    oracle = tiny_oracle("roberta")
    request = asked(points(oracle, 1))
    for ask in (oracle.evaluate, oracle.cost, build_counter(tiny_config("roberta")).cost):
        with pytest.raises(ModelError, match="a masked model fills in one mask and continues no text"):
            ask(request)


def test_texts_have_no_gradient(tiny_oracle: Any) -> None:
    oracle = tiny_oracle("llama", gradients=True)
    with pytest.raises(ModelError, match="no gradient"):
        oracle.evaluate(replace(asked(points(oracle, 1)), gradient=True))
    assert (
        oracle.evaluate(asked(points(oracle, 1))).texts == tiny_oracle("llama").evaluate(asked(points(oracle, 1))).texts
    )


# ------------------------------------------------------------------------------------------------------- blocks
@pytest.mark.parametrize("lengths", [[7], [1, 1, 1], [3, 90, 4, 5, 120, 118, 30], list(range(1, 60))])
def test_rows_of_like_length_make_a_block(lengths: list[int]) -> None:
    blocks = blocks_of(lengths, steps=4)
    assert sorted(row for block in blocks for row in block) == list(range(len(lengths)))
    for block in blocks:
        places = [lengths[row] + 4 for row in block]
        assert max(places) * len(places) <= MOST_PADDED * sum(places)


def test_what_is_small_enough_is_made_at_once(tiny_oracle: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits, and whole rows, in pieces: the same texts."""
    oracle = tiny_oracle("llama")
    wanted = oracle.evaluate(asked(all_of(oracle))).texts
    monkeypatch.setattr("distributed_tuner.oracles.local.decoder.LOGITS", 3 * oracle.info.vocabulary)
    monkeypatch.setattr(oracle._packed, "forward_tokens", 60)
    assert oracle.evaluate(asked(all_of(oracle))).texts == wanted
