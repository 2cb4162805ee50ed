"""Keys and values of rows that are being decoded, and the attention of one new token of each.

Rows lie in blocks: some groups, each of as many members. What a group has in common (a prompt, a text) is kept once and
read by all its members; each row's own tokens stand right-aligned behind it, so that every step writes one column. The
linear layers see the tokens of the rows that go on and nothing else.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from distributed_tuner.oracles.local.attention import SharedCache, softmax
from distributed_tuner.oracles.local.packing import Indices
from distributed_tuner.oracles.tile_size import MOST_PADDED

if TYPE_CHECKING:
    from torch import Tensor

SHRUNK = 0.5  # share of a block's rows that go on, from which it is made smaller


def blocks_of(lengths: Sequence[int], steps: int) -> list[list[int]]:
    """Return the rows of each block, shortest first, so that few places are padding. By the lengths alone."""
    found: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: (lengths[row], row)):
        block = [*found[-1], row] if found else [row]
        real = sum(lengths[one] + steps for one in block)
        if found and (lengths[row] + steps) * len(block) <= MOST_PADDED * real:
            found[-1] = block
        else:
            found.append([row])
    return found


@dataclass(eq=False, slots=True)
class RowBlock:
    """``groups`` x ``members`` rows on their way.

    keys, values: a layer each (G*M, kv_heads, places, d), ``filled`` places of them so far. ``mask`` (G*M, 1, 1,
    places) is minus infinity at padding; None without any. ``shared``: what each group shares; None: nothing.
    ``rows`` (G*M,): which row of the request is at each place of the block; -1: none any more. ``tokens`` (G*M,): of
    each row, with what it shares.
    """

    groups: int
    members: int
    keys: "list[Tensor]"
    values: "list[Tensor]"
    mask: "Tensor | None"
    shared: SharedCache | None
    rows: Indices
    tokens: Indices
    filled: int
    places: "Tensor | None" = None
    """Places of the rows that go on; None: all do."""
    count: int = 0
    """Number of rows that go on."""

    @property
    def longest(self) -> int:
        """Tokens that a row's next one sees at most, itself included."""
        shared = 0 if self.shared is None else int(self.shared.keys[0].shape[2])
        return shared + self.filled + 1

    @property
    def live(self) -> npt.NDArray[np.bool_]:
        """Which rows go on."""
        return self.rows >= 0

    def drop(self, ended: Indices) -> None:
        """Leave out rows of the request that have ended."""
        import torch

        self.rows = np.where(np.isin(self.rows, ended), -1, self.rows)
        live = self.live
        if 0 < live.sum() <= SHRUNK * len(live):
            self._shrink()
            live = self.live
        self.count = int(live.sum())
        self.places = None if live.all() else torch.from_numpy(np.flatnonzero(live)).to(self.keys[0].device)

    def _shrink(self) -> None:
        """Keep the groups with rows that go on, and as many members of each as the fullest has."""
        import torch

        live = self.live.reshape(self.groups, self.members)
        kept = np.flatnonzero(live.any(axis=1))
        order = np.argsort(~live[kept], axis=1, kind="stable")[:, : int(live.sum(axis=1).max())]
        chosen = (kept[:, None] * self.members + order).reshape(-1)
        index, of_groups = (torch.from_numpy(part).to(self.keys[0].device) for part in (chosen, kept))
        for parts in (self.keys, self.values):
            for layer, part in enumerate(parts):
                parts[layer] = part.index_select(0, index)
        self.mask = None if self.mask is None else self.mask.index_select(0, index)
        if self.shared is not None and len(kept) < self.groups:
            self.shared = _of_groups(self.shared, of_groups)
        self.groups, self.members = order.shape
        self.rows, self.tokens = self.rows[chosen], self.tokens[chosen]

    def attend(self, qkv_n_W_d: "Tensor", heads: int, layer: int) -> "Tensor":
        """Return what the heads of each row's new token attend to, (n, heads * d), and keep its key and value.

        ``qkv_n_W_d``: scaled queries, keys and values of the rows that go on, W = heads + 2 * kv_heads.
        """
        import torch

        width, d = qkv_n_W_d.shape[1:]
        kv_heads = (width - heads) // 2
        every = qkv_n_W_d
        if self.places is not None:
            every = qkv_n_W_d.new_zeros((len(self.rows), width, d)).index_copy_(0, self.places, qkv_n_W_d)
        keys, values, until = self.keys[layer], self.values[layer], self.filled + 1
        keys[:, :, self.filled] = every[:, heads : heads + kv_heads]
        values[:, :, self.filled] = every[:, heads + kv_heads :]
        q_R_K_g_d = every[:, :heads].reshape(len(every), kv_heads, heads // kv_heads, d)
        scores = q_R_K_g_d @ keys[:, :, :until].transpose(2, 3)
        if self.mask is not None:
            scores = scores + self.mask[..., :until]
        if self.shared is None:
            out = softmax(scores) @ values[:, :, :until]
        else:
            to_shared = self._to_shared(q_R_K_g_d, layer)
            length = to_shared.shape[-1]
            weights = softmax(torch.cat([to_shared, scores], dim=-1))
            out = weights[..., length:] @ values[:, :, :until]
            out += self._by_row(self._by_group(weights[..., :length]) @ self.shared.values[layer])
        out = out.reshape(len(every), heads * d)
        return out if self.places is None else out.index_select(0, self.places)

    def _to_shared(self, q_R_K_g_d: "Tensor", layer: int) -> "Tensor":
        """Return the scores against what is shared (R, kv_heads, g, T): one product a group and head."""
        assert self.shared is not None
        scores = self._by_group(q_R_K_g_d) @ self.shared.keys[layer].transpose(2, 3)
        if self.shared.mask is not None:
            scores = scores + self.shared.mask[:, 0]
        return self._by_row(scores)

    def _by_group(self, x_R_K_g_x: "Tensor") -> "Tensor":
        """Return (R, K, g, x) as (G, K, M * g, x)."""
        _, kv_heads, g, last = x_R_K_g_x.shape
        by_group = x_R_K_g_x.view(self.groups, self.members, kv_heads, g, last).transpose(1, 2)
        return by_group.reshape(self.groups, kv_heads, self.members * g, last)

    def _by_row(self, x_G_K_Mg_x: "Tensor") -> "Tensor":
        """Return (G, K, M * g, x) as (R, K, g, x)."""
        _, kv_heads, rows, last = x_G_K_Mg_x.shape
        by_member = x_G_K_Mg_x.view(self.groups, kv_heads, self.members, rows // self.members, last)
        return by_member.transpose(1, 2).reshape(self.groups * self.members, kv_heads, -1, last)


def _of_groups(shared: SharedCache, index: "Tensor") -> SharedCache:
    keys, values = ([part.index_select(0, index) for part in parts] for parts in (shared.keys, shared.values))
    mask = None if shared.mask is None else shared.mask.index_select(0, index)
    return replace(shared, keys=keys, values=values, mask=mask)


def row_block(
    kept: "Sequence[tuple[Tensor, Tensor]]",
    own: Indices,
    lengths: Indices,
    steps: int,
    shared: SharedCache | None,
    rows: Indices,
    tokens: Indices,
) -> RowBlock:
    """Return a block of rows that have been read.

    Args:
        kept: a layer each, the keys and values (N, kv_heads, d) of the sequence that was read.
        own: (G, M, S) where each row's own tokens lie in it, right-aligned; padding points anywhere.
        lengths: (G, M) of each row's own tokens.
        steps: tokens that may be generated.
        shared: of the groups.
        rows: (G, M), tokens: (G, M), as in ``RowBlock``.
    """
    import torch

    groups, members, longest = own.shape
    first = kept[0][0]
    index = torch.from_numpy(np.ascontiguousarray(own.reshape(-1))).to(first.device)

    def cached(part: "Tensor") -> "Tensor":
        known = part.index_select(0, index).view(groups * members, longest, *part.shape[1:])
        made = part.new_zeros((groups * members, part.shape[1], longest + steps, part.shape[2]))
        made[:, :, :longest] = known.transpose(1, 2)
        return made

    keys, values = [cached(k) for k, _ in kept], [cached(v) for _, v in kept]
    mask = None
    if int(lengths.min()) < longest:
        padding = np.arange(longest + steps)[None, :] < (longest - lengths.reshape(-1))[:, None]
        mask = torch.where(torch.from_numpy(padding).to(first.device), torch.finfo(first.dtype).min, 0.0)
        mask = mask.to(first.dtype)[:, None, None, :]
    flat = rows.reshape(-1).copy(), tokens.reshape(-1).copy()
    return RowBlock(groups, members, keys, values, mask, shared, *flat, longest, count=groups * members)
