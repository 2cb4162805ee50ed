"""Sequence limits of a model, by its configuration.

``context``: positions that the model knows. ``reach``: tokens of a row up to which it does not matter to the row how
the model treats longer ones: no window, chunk or change of the rotary embedding begins before.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from distributed_tuner.oracles.local.loading import first_position

POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len")
NO_LIMIT = 2**31
WINDOWS = {"sliding_window": "sliding", "attention_chunk_size": "chunked"}
"""Settings by which some layers see no more than so many tokens, and how ``layer_types`` calls these layers."""
SWITCHING = ("longrope", "dynamic")
"""Rotary embeddings that are another for all positions once a forward pass is longer than the original context."""


def context_of(model_config: Any) -> int:
    """Return the number of positions that the model knows."""
    text = model_config.get_text_config()
    known = min((int(n) for name in POSITIONS if (n := getattr(text, name, None))), default=NO_LIMIT)
    return known - first_position(model_config)


def reach_of(model_config: Any) -> int:
    """Return the tokens of the longest row that reaches over no window, chunk or change of the rotary embedding."""
    text = model_config.get_text_config()
    layers = getattr(text, "layer_types", None)
    windows = [
        int(size)
        for name, kind in WINDOWS.items()
        if (size := getattr(text, name, None)) and (not layers or any(kind in layer for layer in layers))
    ]
    return min([context_of(model_config), *windows, *_rope_switches(text)])


def _rope_switches(text: Any) -> Iterator[int]:
    parameters = getattr(text, "rope_parameters", None) or {}
    each = [part for part in parameters.values() if isinstance(part, Mapping)] or [parameters]
    for rope in each:
        if rope.get("rope_type") in SWITCHING:
            original = rope.get("original_max_position_embeddings")
            original = original or getattr(text, "original_max_position_embeddings", None)
            yield int(original or text.max_position_embeddings)


def every_row_whole(why: str) -> str:
    """Return the warning for a model whose rows cannot share a sequence."""
    return f"the model computes every row whole, which takes longer: {why}"
