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
from distributed_tuner.oracles.local.packing import BlockPlan
from distributed_tuner.oracles.tokens.continuations import Mask

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from distributed_tuner.oracles.local.row_cache import RowBlock

NAME = "distributed_tuner_segments"
KNOWN_ARGUMENTS = {"is_causal", "sliding_window", "position_ids", "use_cache", "output_attentions", "cache_position"}


@dataclass(frozen=True, eq=False, slots=True)
class SharedTokens:
    """Shared keys and values in the sequence itself: ``length`` tokens a group, from ``start`` on."""

    start: int
    length: int


@dataclass(frozen=True, eq=False, slots=True)
class SharedCache:
    """Shared keys and values, computed before. keys, values: a layer each (groups, heads, T, d); padded on the right.

    ``mask`` (groups, 1, 1, 1, T) is minus infinity at padding; None where nothing is padded.
    """

    keys: "Sequence[Tensor]"
    values: "Sequence[Tensor]"
    mask: "Tensor | None"


@dataclass(frozen=True, eq=False, slots=True)
class Places:
    """Indices of a block's queries, keys and values among the rows (N * W, d) of a layer, and of its answers.

    A token's W = heads + 2 * kv_heads rows are its queries, keys and values. ``gather``: the rows of queries, keys and
    values as attention wants them. ``scatter`` (tokens * heads,): which row of the answer each query head's is.
    """

    gather: "Tensor"
    scatter: "Tensor"


@dataclass(frozen=True, eq=False, slots=True)
class Block:
    """A planned block on the device.

    ``causal``: each token sees those of its row before it, and no ``mask`` is needed where nothing is shared. ``mask``
    is minus infinity where a row's own token is not seen: (S, S); (G or 1, 1, M or 1, 1, S, S) where rows differ;
    (G*M, 1, 1 or S, S) where nothing is shared. ``longest``: of its own tokens that one sees.
    """

    plan: BlockPlan
    causal: bool
    device: "torch.device"
    mask: "Tensor | None"
    shared: SharedTokens | SharedCache | None
    longest: int
    known: dict[tuple[int, int], Places] = field(default_factory=dict)

    def places(self, heads: int, kv_heads: int) -> Places:
        """Return the block's rows in layers of so many heads; found once, since all layers are alike."""
        key = (heads, kv_heads)
        if key not in self.known:
            self.known[key] = _places(self, heads, kv_heads)
        return self.known[key]


@dataclass(eq=False, slots=True)
class Segments:
    """The blocks of one forward pass, in the order of its sequence, which they cover.

    ``answers``: the places whose hidden states are wanted; None for all. ``kept``: filled with each layer's (keys,
    values). ``rotation``: the pass's rotary embedding, once some layer has made it. ``layers``: how many have attended.
    ``decoded``: instead of blocks, those of rows that are decoded (row_cache.py), one token of each.
    """

    blocks: tuple[Block, ...]
    keep: bool = False
    answers: "Tensor | None" = None
    kept: "list[tuple[Tensor, Tensor]]" = field(default_factory=list)
    rotation: "Tensor | None" = None
    layers: int = 0
    decoded: "Sequence[RowBlock]" = ()

    @property
    def longest(self) -> int:
        """Tokens that one sees at most, with what its row shares."""
        decoded = max((block.longest for block in self.decoded), default=0)
        return max((block.longest + _shared_length(block.shared) for block in self.blocks), default=decoded)


def _shared_length(shared: SharedTokens | SharedCache | None) -> int:
    if isinstance(shared, SharedCache):
        return int(shared.keys[0].shape[2])
    return 0 if shared is None else shared.length


def block_on(
    plan: BlockPlan,
    device: "torch.device",
    dtype: "torch.dtype",
    causal: bool = True,
    shared: SharedTokens | SharedCache | None = None,
    seen: Mask | None = None,
) -> Block:
    """Put a block and its own mask on the device.

    Among a causal row's own tokens padding needs no mask: it comes last, where no real token looks. ``seen``: which of
    a row's own places sees which where that is not all before it, (G or 1, M or 1, S, S).
    """
    import torch

    lowest = torch.finfo(dtype).min
    mask = None
    if seen is not None:
        causal = False
        mask = torch.where(torch.from_numpy(seen).to(device), 0.0, lowest).to(dtype)[:, None, :, None]
        if shared is None:
            every = mask.expand(plan.groups, 1, plan.members, 1, plan.slots, plan.slots)
            mask = every.reshape(-1, 1, plan.slots, plan.slots)
    elif causal:
        mask = torch.full((plan.slots, plan.slots), lowest, dtype=dtype, device=device).triu(1)
    elif plan.padded:
        seen = np.arange(plan.slots)[None, :] < plan.lengths[:, None]
        mask = torch.where(torch.from_numpy(seen).to(device), 0.0, lowest).to(dtype)[:, None, None, :]
    longest = plan.slots if seen is None else int(seen.sum(axis=-1).max())
    return Block(plan, causal, device, mask, shared, longest)


def _places(block: Block, heads: int, kv_heads: int) -> Places:
    """Work out a block's rows: see ``Places``.

    Queries are laid out (G, Hkv, M, g, S) where something is shared, else (G*M, heads, S), and keys and values likewise
    without the g query heads that look at the same; without anything shared they are repeated for each of those.
    """
    import torch

    plan, g = block.plan, heads // kv_heads
    width = heads + 2 * kv_heads
    first = width * plan.places().reshape(plan.groups, 1, plan.members, 1, plan.slots)
    kv, of_group = np.arange(kv_heads)[:, None, None, None], np.arange(g)[:, None]
    queries = first + kv * g + of_group  # (G, Hkv, M, g, S)
    keys = first + heads + kv
    if block.shared is None:
        queries = np.moveaxis(queries, 2, 1)  # (G, M, Hkv, g, S)
        keys = np.broadcast_to(np.moveaxis(keys, 2, 1), queries.shape)
    gather = np.concatenate([part.reshape(-1) for part in (queries, keys, keys + kv_heads)])
    at = np.arange(queries.size).reshape(queries.shape)
    by_slot = at.transpose((0, 1, 4, 2, 3) if block.shared is None else (0, 2, 4, 1, 3)).reshape(-1, heads)
    scatter = by_slot[plan.real()].reshape(-1)
    on = block.device
    return Places(torch.from_numpy(gather).to(on), torch.from_numpy(scatter).to(on))


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
    """Attend. query (1, H, N, d), key (1, Hkv, N, d), value (1, Hkv, N, v); returns (1, N, H, v), as transformers
    wants it. Where values have another width than keys (MLA), zeros make up for it.

    Raises:
        ModelError: the model asks for something that is not computed here (attention sinks, biases, a window).
    """
    unknown = sorted(name for name, given in more.items() if given is not None and name not in KNOWN_ARGUMENTS)
    window = more.get("sliding_window")
    if segments is not None and window is not None and segments.longest > window:
        unknown.append(f"a window of {window} tokens")
    if segments is None or attention_mask is not None or unknown:
        what = ", ".join(unknown) or "a mask of its own"
        raise ModelError(f"rows that share a sequence need plain attention, but {type(module).__name__} uses {what}")
    import torch

    scale = query.shape[3] ** -0.5 if scaling is None else scaling
    parts = [part[0].transpose(0, 1) for part in (query * scale, key, value)]
    width, widest = value.shape[3], max(key.shape[3], value.shape[3])
    if width != key.shape[3]:
        parts = [torch.nn.functional.pad(part, (0, widest - part.shape[2])) for part in parts]
    out = attend(torch.cat(parts, dim=1), query.shape[1], segments, getattr(module, "layer_idx", None))
    return out.view(1, len(out), query.shape[1], widest)[..., :width], None


def attend(
    qkv_N_W_d: "Tensor", heads: int, segments: Segments, layer: int | None, out_N_Hd: "Tensor | None" = None
) -> "Tensor":
    """Return what each token's heads attend to, (N, heads * d).

    ``qkv_N_W_d``: each token's scaled queries, keys and values, W = heads + 2 * kv_heads; contiguous.
    """
    import torch

    count, width, d = qkv_N_W_d.shape
    kv_heads = (width - heads) // 2
    segments.layers += 1
    if segments.decoded:
        return _attend_decoded(qkv_N_W_d, heads, segments)
    if segments.keep:
        keys, values = qkv_N_W_d[:, heads : heads + kv_heads], qkv_N_W_d[:, heads + kv_heads :]
        segments.kept.append((keys.clone(), values.clone()))
    flat = qkv_N_W_d.view(count * width, d)
    found = []
    for block in segments.blocks:
        places = block.places(heads, kv_heads)
        own = flat.index_select(0, places.gather)
        attended = _alone(block, own, heads) if block.shared is None else _shared(block, own, qkv_N_W_d, heads, layer)
        if torch.is_grad_enabled():
            found.append(attended.index_select(0, places.scatter))
            continue
        if out_N_Hd is None:
            out_N_Hd = qkv_N_W_d.new_empty((count, heads * d))
        rows = out_N_Hd[block.plan.start : block.plan.start + block.plan.tokens]
        torch.index_select(attended, 0, places.scatter, out=rows.view(-1, d))
    if found:
        return torch.cat(found).view(count, heads * d)
    assert out_N_Hd is not None
    return out_N_Hd


def _attend_decoded(qkv_N_W_d: "Tensor", heads: int, segments: Segments) -> "Tensor":
    """Return what the new tokens of rows that are decoded attend to."""
    import torch

    layer, counts = segments.layers - 1, [block.count for block in segments.decoded]
    parts = torch.split(qkv_N_W_d, counts)
    found = [block.attend(part, heads, layer) for block, part in zip(segments.decoded, parts, strict=True)]
    return found[0] if len(found) == 1 else torch.cat(found)


def _alone(block: Block, own: "Tensor", heads: int) -> "Tensor":
    """Attend in rows that share nothing: ``own`` as gathered; returns the answers' rows (G*M*heads*S, d)."""
    import torch

    rows, d = block.plan.groups * block.plan.members, own.shape[1]
    q, k, v = own.view(3, rows, heads, block.plan.slots, d)
    mask = None if block.causal else block.mask
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=block.causal, scale=1.0)
    return out.reshape(-1, d)


def _shared(block: Block, own: "Tensor", qkv_N_W_d: "Tensor", heads: int, layer: int | None) -> "Tensor":
    """Attend in rows that share something; returns the answers' rows (G*Hkv*M*g*S, d)."""
    import torch

    G, M, S = block.plan.groups, block.plan.members, block.plan.slots
    kv_heads, d = (qkv_N_W_d.shape[1] - heads) // 2, own.shape[1]
    g, members = heads // kv_heads, G * kv_heads * M
    q, k, v = torch.split(own, [members * g * S, members * S, members * S])
    k, v = k.view(members, S, d), v.view(members, S, d)
    shared_k, shared_v, shared_mask = _what_is_shared(block, qkv_N_W_d, heads, layer)
    length = shared_k.shape[2]
    # scores against what is shared: one product a group, whatever the number of its members
    to_shared = (q.view(G, kv_heads, M * g * S, d) @ shared_k.transpose(2, 3)).view(G, kv_heads, M, g * S, length)
    if shared_mask is not None:
        to_shared = to_shared + shared_mask
    to_own = torch.bmm(q.view(members, g * S, d), k.transpose(1, 2))
    if block.mask is not None:
        to_own.view(G, kv_heads, M, g, S, S).add_(block.mask)
    to_own = to_own.view(G, kv_heads, M, g * S, S)
    weights = softmax(torch.cat([to_shared, to_own], dim=-1))
    from_shared = weights[..., :length].flatten(2, 3) @ shared_v
    to_own = weights[..., length:].flatten(0, 2)
    return torch.baddbmm(from_shared.view(members, g * S, d), to_own, v).view(-1, d)


def softmax(scores: "Tensor") -> "Tensor":
    """Return the softmax over the last axis, in the dtype of ``scores``.

    On a CPU through float32: torch's own for bfloat16 takes up to three times as long, unless rows are multiples of 32.
    """
    import torch

    if scores.device.type == "cpu":
        return torch.softmax(scores, dim=-1, dtype=torch.float32).to(scores.dtype)
    return torch.softmax(scores, dim=-1)


def _what_is_shared(
    block: Block, qkv_N_W_d: "Tensor", heads: int, layer: int | None
) -> "tuple[Tensor, Tensor, Tensor | None]":
    """Return shared keys and values (G, Hkv, T, d), and their mask."""
    shared = block.shared
    if isinstance(shared, SharedCache):
        assert layer is not None, "a causal model of transformers numbers its layers"
        return shared.keys[layer], shared.values[layer], shared.mask
    assert shared is not None
    groups, kv_heads = block.plan.groups, (qkv_N_W_d.shape[1] - heads) // 2
    there = qkv_N_W_d[shared.start : shared.start + groups * shared.length, heads:]
    keys, values = there.view(groups, shared.length, 2, kv_heads, -1).permute(2, 0, 3, 1, 4)
    return keys, values, None
