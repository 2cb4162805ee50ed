"""The size of a tile: a power of two that fits into half of the free memory, and smaller ones when it does not."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import ARCHITECTURES, SPEC, batch_of, model_config

from distributed_tuner.config.oracle import Tile
from distributed_tuner.config.validation import experiment_of
from distributed_tuner.errors import ConfigError
from distributed_tuner.oracles.tile_size import (
    candidate_bytes,
    choose_candidates,
    decoded_bytes,
    even_candidates,
    longest,
    most_candidates,
    shrunk,
    spelled,
)
from distributed_tuner.oracles.tiling import cut
from distributed_tuner.values import Center, Perturbation, Request

GIB = 2**30


@given(st.integers(0, 2**40), st.integers(0, 2**34), st.sampled_from([2, 4, 8]))
def test_a_size_is_an_even_power_of_two_up_to_the_cap_and_fits_if_any_does(free: int, each: int, most: int) -> None:
    chosen = choose_candidates(free, each, most)
    assert chosen in (2, 4, 8)
    assert chosen <= most
    assert chosen == 2 or chosen * each <= free / 2
    assert chosen == most or 2 * chosen * each > free / 2


def test_sizes_by_hand() -> None:
    assert choose_candidates(16 * GIB, GIB, 8) == 8
    assert choose_candidates(16 * GIB - 1, GIB, 8) == 4
    assert choose_candidates(8 * GIB - 1, GIB, 8) == 2
    assert choose_candidates(0, GIB, 8) == 2, "a pair is not parted"
    assert choose_candidates(None, GIB, 8) == 8, "a device that does not tell gets the cap"
    assert (most_candidates("cpu"), most_candidates("cuda"), most_candidates("mps")) == (4, 8, 8)


def test_a_candidates_bytes_are_one_layers_tensors() -> None:
    llama = SimpleNamespace(hidden_size=576, intermediate_size=1536, num_hidden_layers=30)
    assert candidate_bytes(llama, 2, 1000) == 1000 * 2 * (8 * 576 + 3 * 1536)
    assert candidate_bytes(llama, 4, 1000) == 2 * candidate_bytes(llama, 2, 1000)
    assert candidate_bytes(SimpleNamespace(hidden_size=10), 1, 1) == 8 * 10 + 3 * 40


def test_answers_keep_the_keys_and_values_of_their_rows() -> None:
    smollm2 = 30 * 2 * 3 * 64
    assert decoded_bytes(smollm2, 4, 1000) == 1.5 * 1000 * smollm2 * 4
    assert decoded_bytes(smollm2, 4, 0) == 0


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_tells_its_widths(architecture: str) -> None:
    inner = 4 * 32 if architecture == "gpt2" else 48
    assert candidate_bytes(model_config(architecture, 300), 4, 7) == 7 * 4 * (8 * 32 + 3 * inner)


def test_the_longest_examples_are_those_of_a_full_tile() -> None:
    batch = batch_of(["a", "a good film", "I", "dull plot"])
    assert [example.text for example in longest(batch, 2).examples] == ["dull plot", "a good film"]
    assert len(longest(batch, 64).examples) == 4


def test_sizes_are_halved_down_to_a_pair_and_then_to_one_example() -> None:
    tile, seen = Tile(candidates=8, examples=6), []
    while (smaller := shrunk(tile, even_candidates(tile), tile.examples)) is not None:
        seen.append((smaller.candidates, smaller.examples))
        tile = smaller
    assert seen == [(4, 6), (2, 6), (2, 3), (2, 1)]
    assert shrunk(Tile(candidates=7), 6, 64) == Tile(candidates=2), "odd halves are rounded down to a pair"
    assert spelled(Tile(candidates=7)) == "6 candidates x 64 examples"


@given(st.integers(2, 16), st.integers(1, 64), st.integers(1, 16), st.integers(1, 64))
def test_the_piece_that_did_not_fit_is_smaller_in_the_new_size(wide: int, tall: int, pieces: int, rows: int) -> None:
    tile = Tile(candidates=wide, examples=tall)
    candidates, examples = min(pieces, even_candidates(tile)), min(rows, tall)
    smaller = shrunk(tile, candidates, examples)
    if smaller is None:
        assert candidates <= 2
        assert examples == 1
    else:
        assert even_candidates(smaller) < candidates or smaller.examples < examples


def test_auto_is_the_default_and_without_a_pool_the_cpus_cap() -> None:
    center = Center("c", np.zeros(4, dtype=np.float32))
    request = Request(tuple(Perturbation(center, (i,), 1, 0.1) for i in range(12)), batch_of(["a"] * 9), SPEC)
    assert Tile().candidates == "auto"
    assert cut(request, Tile(examples=5)) == cut(request, Tile(candidates=4, examples=5))


@pytest.mark.parametrize(("value", "said"), [(1, "oracle.tile.candidates"), ("automatic", "oracle.tile.candidates")])
def test_a_size_that_cannot_be_is_refused_by_its_path(value: object, said: str) -> None:
    tree = {
        "name": "x",
        "task": {"kind": "demo"},
        "oracle": {"kind": "analytic", "tile": {"candidates": value}},
        "stages": [{"kind": "search", "optimizer": {"kind": "zot"}}],
    }
    with pytest.raises(ConfigError, match=said):
        experiment_of(tree)
