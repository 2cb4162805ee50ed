"""Size of tiles: chosen once from free memory, halved when memory runs out. Arithmetic alone.

The size is one for a whole pool and part of the numbers, so that it is recorded with the run and never chosen again.
"""

import math
from dataclasses import replace
from typing import Any

from distributed_tuner.config.oracle import Tile
from distributed_tuner.values import Batch

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
CPU_MOST = 4  # candidates: larger tiles fall out of a CPU's caches
ACCELERATOR_MOST = 8
FREE_SHARE = 0.5  # of the free memory that a tile may take; the rest is for what else the device holds
HIDDEN_WIDTHS = 8  # residual, normed input, queries, keys, values, attention's and layer's output, one to spare
MOST_PADDED = 1.5  # times the tokens of rows that are decoded together that their keys and values may take
INNER_WIDTHS = 3  # gate, up and their product


def choose_candidates(free: int | None, each: int, most: int) -> int:
    """Return the largest power of two between 2 and ``most`` whose candidates fit into half of the free memory.

    Args:
        free: free bytes of the device; None where it does not tell, which gives ``most``.
        each: bytes that one candidate needs at most.
        most: a power of two.
    """
    candidates = most
    while free is not None and candidates > 2 and candidates * each > FREE_SHARE * free:
        candidates //= 2
    return max(2, candidates)


def most_candidates(device: str) -> int:
    """Return the cap of a device ("cpu", "cuda", "mps")."""
    return CPU_MOST if device == "cpu" else ACCELERATOR_MOST


def candidate_bytes(model_config: Any, dtype_bytes: int, tokens: int) -> int:
    """Return the bytes of activations that a candidate of so many tokens needs at most, by a transformers config.

    Layers are computed one at a time and each frees what it made, so that one layer's tensors are the peak.
    """
    return (
        tokens * dtype_bytes * (HIDDEN_WIDTHS * int(model_config.hidden_size) + INNER_WIDTHS * inner_size(model_config))
    )


def decoded_bytes(kept_numbers: int, dtype_bytes: int, tokens: int) -> int:
    """Return the bytes of keys and values that a candidate of so many tokens keeps at most while answers are decoded.

    ``kept_numbers``: of one token, over all layers. ``tokens``: of its rows with their answers.
    """
    return math.ceil(tokens * kept_numbers * dtype_bytes * MOST_PADDED)


def inner_size(model_config: Any) -> int:
    """Return the width of the widest part of a model's layers, by its transformers config."""
    names = ("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size")
    known = (n for name in names if (n := most(getattr(model_config, name, None))))
    return next(known, 4 * int(model_config.hidden_size))


def most(setting: Any) -> int:
    """Return a setting that is a number, or the largest where each layer has its own; 0 where there is none."""
    return int(max(setting, default=0)) if isinstance(setting, list | tuple) else int(setting or 0)


def longest(batch: Batch, examples: int) -> Batch:
    """Return the batch of the ``examples`` longest texts, by characters: what a full tile holds at most."""
    by_length = sorted(batch.examples, key=lambda example: len(example.text + example.cue))
    return replace(batch, examples=tuple(by_length[-examples:]))


def even_candidates(tile: Tile) -> int:
    """Return the candidates of a tile, an even number. Without a pool that has chosen, "auto" is the CPU's cap."""
    candidates = CPU_MOST if tile.candidates == "auto" else tile.candidates
    return candidates - candidates % 2


def shrunk(tile: Tile, candidates: int, examples: int) -> Tile | None:
    """Return the next smaller size by which a piece of so many candidates and examples is cut; None: it cannot be.

    Candidates are halved down to 2 (a pair is not parted), then examples down to 1.
    """
    wide, tall = even_candidates(tile), tile.examples
    while wide >= candidates and tall >= examples:
        if wide > 2:
            wide = max(2, wide // 2 - wide // 2 % 2)
        elif tall > 1:
            tall //= 2
        else:
            return None
    return Tile(candidates=wide, examples=tall)


def spelled(tile: Tile) -> str:
    """Return a size as it is written in messages."""
    return f"{even_candidates(tile)} candidates x {tile.examples} examples"
