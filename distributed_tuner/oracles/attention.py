"""Attention over a flat sequence of many rows, for any model whose attention transformers lets us replace.

transformers calls the function registered here in every layer (``AttentionInterface``) and hands it the ``segments``
that the forward pass was called with. Each block's rows see themselves and, where their group shares something (a
prompt, a text), the shared keys and values as well, which are never copied a row: the scores against what is shared
and against a row's own tokens are two batched products under one softmax.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from distributed_tuner.errors import ModelError
from distributed_tuner.oracles.packing import BlockPlan

if TYPE_CHECKING:
    import torch
    from torch import Tensor

NAME = "distributed_tuner_segments"
KNOWN_ARGUMENTS = {"is_causal", "sliding_window", "position_ids", "use_cache", "output_attentions", "cache_position"}


@dataclass(frozen=True, eq=False, slots=True)
class SharedTokens:
    """What a group shares lies in the sequence itself: ``length`` tokens a group, from ``start`` on."""

    start: int
    length: int


@dataclass(frozen=True, eq=False, slots=True)
class SharedCache:
    """What a group shares was computed before. keys, values: a layer each (groups, heads, T, d); padded on the right.

    ``mask`` (groups, 1, 1, 1, T) is minus infinity at padding; None where nothing is padded.
    """

    keys: "Sequence[Tensor]"
    values: "Sequence[Tensor]"
    mask: "Tensor | None"


@dataclass(frozen=True, eq=False, slots=True)
class Block:
    """A planned block on the device. ``places``/``real``: gather and scatter of padded rows; None when none is."""

    plan: BlockPlan
    causal: bool
    places: "Tensor | None"
    real: "Tensor | None"
    mask: "Tensor | None"
    shared: SharedTokens | SharedCache | None


@dataclass(eq=False, slots=True)
class Segments:
    """The blocks of one forward pass, which cover its sequence. ``kept``: filled with each layer's (keys, values)."""

    blocks: tuple[Block, ...]
    keep: bool = False
    kept: "list[tuple[Tensor, Tensor]]" = field(default_factory=list)


def block_on(
    plan: BlockPlan,
    device: "torch.device",
    dtype: "torch.dtype",
    causal: bool = True,
    shared: SharedTokens | SharedCache | None = None,
) -> Block:
    """Put a block's indices and its own mask on the device.

    Among a causal row's own tokens padding needs no mask: it comes last, where no real token looks.
    """
    import torch

    places = torch.from_numpy(plan.places()).to(device) if plan.padded else None
    real = torch.from_numpy(plan.real()).to(device) if plan.padded else None
    lowest = torch.finfo(dtype).min
    mask = None
    if causal:
        mask = torch.full((plan.slots, plan.slots), lowest, dtype=dtype, device=device).triu(1)
    elif plan.padded:
        seen = np.arange(plan.slots)[None, :] < plan.lengths[:, None]
        mask = torch.where(torch.from_numpy(seen).to(device), 0.0, lowest).to(dtype)[:, None, None, :]
    return Block(plan, causal, places, real, mask, shared)


def padding_mask(lengths: Sequence[int], longest: int, device: "torch.device", dtype: "torch.dtype") -> "Tensor | None":
    """Return the mask (G, 1, 1, 1, T) of shared keys that are padded to ``longest``; None where none is."""
    import torch

    if min(lengths) == longest:
        return None
    seen = np.arange(longest)[None, :] < np.array(lengths)[:, None]
    mask = torch.where(torch.from_numpy(seen).to(device), 0.0, torch.finfo(dtype).min).to(dtype)
    return mask[:, None, None, None, :]


def register() -> str:
    """Make the attention known to transformers; returns the name to ask for it by."""
    import torch
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, torch.compiler.disable(segmented_attention))  # type: ignore[no-untyped-call]
    return NAME


def segmented_attention(
    module: Any,
    query: "Tensor",
    key: "Tensor",
    value: "Tensor",
    attention_mask: "Tensor | None",
    scaling: float | None = None,
    dropout: float = 0.0,
    segments: Segments | None = None,
    **more: Any,
) -> "tuple[Tensor, None]":
    """Attend. query (1, H, N, d), key and value (1, Hkv, N, d); returns (1, N, H, d), as transformers wants it.

    Raises:
        ModelError: the model asks for something that is not computed here (capped scores, attention sinks, biases).
    """
    unknown = sorted(name for name, given in more.items() if given is not None and name not in KNOWN_ARGUMENTS)
    if segments is None or attention_mask is not None or unknown:
        what = ", ".join(unknown) or "a mask of its own"
        raise ModelError(
            f"the oracle's attention needs a model with plain attention, but {type(module).__name__} uses {what};"
            " choose GPT-2, OPT, LLaMA, Qwen2, Mistral, RoBERTa or BERT"
        )
    heads, kv_heads, width = query.shape[1], key.shape[1], query.shape[3]
    q = query[0].transpose(0, 1) * (width**-0.5 if scaling is None else scaling)
    q = q.reshape(-1, kv_heads, heads // kv_heads, width)  # (N, Hkv, g, d): g query heads look at the same keys
    k, v = key[0].transpose(0, 1), value[0].transpose(0, 1)  # (N, Hkv, d)
    if segments.keep:
        segments.kept.append((k.contiguous(), v.contiguous()))
    out = q.new_empty(q.shape)
    layer = getattr(module, "layer_idx", None)
    for block in segments.blocks:
        plan = block.plan
        here: Any = slice(plan.start, plan.start + plan.tokens)
        source = here if block.places is None else block.places
        attended = _block(block, q[source], k, v, k[source], v[source], layer)
        out[here] = attended if block.real is None else attended[block.real]
    return out.flatten(1, 2)[None], None


def _block(
    block: Block, q: "Tensor", k: "Tensor", v: "Tensor", own_k: "Tensor", own_v: "Tensor", layer: int | None
) -> "Tensor":
    """Attend within one block: q (G*M*S, Hkv, g, d) padded, own_k and own_v (G*M*S, Hkv, d); returns what q is."""
    import torch

    G, M, S = block.plan.groups, block.plan.members, block.plan.slots
    _, kv_heads, g, d = q.shape
    if block.shared is None:
        q = q.view(G * M, S, kv_heads * g, d).transpose(1, 2)
        own_k, own_v = (
            part.view(G * M, S, kv_heads, d).transpose(1, 2).repeat_interleave(g, dim=1) for part in (own_k, own_v)
        )
        out = torch.nn.functional.scaled_dot_product_attention(
            q, own_k, own_v, attn_mask=None if block.causal else block.mask, is_causal=block.causal, scale=1.0
        )
        return out.transpose(1, 2).reshape(G * M * S, kv_heads, g, d)
    q = q.view(G, M, S, kv_heads, g, d).permute(0, 3, 1, 4, 2, 5).reshape(G, kv_heads, M, g * S, d)
    own_k, own_v = (part.view(G, M, S, kv_heads, d).permute(0, 3, 1, 2, 4) for part in (own_k, own_v))
    shared_k, shared_v, shared_mask = _shared(block.shared, k, v, G, layer)
    length = shared_k.shape[2]
    # scores against what is shared: one product a group, whatever the number of its members
    to_shared = (q.flatten(2, 3) @ shared_k.transpose(2, 3)).view(G, kv_heads, M, g * S, length)
    if shared_mask is not None:
        to_shared = to_shared + shared_mask
    to_own = q @ own_k.transpose(3, 4)
    if block.mask is not None:
        to_own.view(G, kv_heads, M, g, S, S).add_(block.mask)
    weights = torch.softmax(torch.cat([to_shared, to_own], dim=-1), dim=-1)
    from_shared = weights[..., :length].reshape(G, kv_heads, M * g * S, length) @ shared_v
    out = from_shared.view(G, kv_heads, M, g * S, d) + weights[..., length:] @ own_v
    return out.view(G, kv_heads, M, g, S, d).permute(0, 2, 4, 1, 3, 5).reshape(G * M * S, kv_heads, g, d)


def _shared(
    shared: SharedTokens | SharedCache, k: "Tensor", v: "Tensor", groups: int, layer: int | None
) -> "tuple[Tensor, Tensor, Tensor | None]":
    """Return shared keys and values (G, Hkv, T, d), and their mask."""
    if isinstance(shared, SharedCache):
        assert layer is not None, "a causal model of transformers numbers its layers"
        return shared.keys[layer], shared.values[layer], shared.mask
    here = slice(shared.start, shared.start + groups * shared.length)
    keys, values = (part[here].view(groups, shared.length, *part.shape[1:]).transpose(1, 2) for part in (k, v))
    return keys, values, None
