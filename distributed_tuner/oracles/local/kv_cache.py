"""Keys and values of the examples' texts, for the suffix layout: computed once a run, kept on the device, bounded."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

from distributed_tuner.oracles.local.attention import SharedCache, padding_mask

if TYPE_CHECKING:
    from torch import Tensor

    KeyValues: TypeAlias = list[tuple[Tensor, Tensor]]  # a layer each: (T, heads, d)

Text: TypeAlias = tuple[int, ...]


class TextCache:
    """Keeps at most ``limit`` bytes. What does not fit is computed again when it is asked for."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._texts: OrderedDict[Text, KeyValues] = OrderedDict()
        self._stacked: OrderedDict[tuple[Text, ...], SharedCache] = OrderedDict()
        self._bytes = 0

    @property
    def nbytes(self) -> int:
        """Bytes that are kept now."""
        return self._bytes

    def shared(self, texts: Sequence[Text], compute: "Callable[[Text], KeyValues]") -> SharedCache:
        """Return the texts' keys and values as what a block's groups share; ``compute`` makes those of one text.

        A batch that comes again, as the training set does at every step, is stacked once.
        """
        key = tuple(texts)
        if key in self._stacked:
            self._stacked.move_to_end(key)
            return self._stacked[key]
        made = stack([self._of(text, compute) for text in texts])
        self._stacked[key] = made
        self._bytes += _shared_bytes(made)
        self._shrink()
        return made

    def _of(self, text: Text, compute: "Callable[[Text], KeyValues]") -> "KeyValues":
        if text in self._texts:
            self._texts.move_to_end(text)
            return self._texts[text]
        made = compute(text)
        self._texts[text] = made
        self._bytes += _bytes(made)
        self._shrink()
        return made

    def _shrink(self) -> None:
        """Drop the stacked batches first: they can be made again from the texts."""
        while self._bytes > self._limit and self._stacked:
            self._bytes -= _shared_bytes(self._stacked.popitem(last=False)[1])
        while self._bytes > self._limit and self._texts:
            self._bytes -= _bytes(self._texts.popitem(last=False)[1])


def stack(each: "Sequence[KeyValues]") -> SharedCache:
    """Stack the keys and values of several texts, padded on the right to the longest (one token at least)."""
    import torch

    lengths = [kv[0][0].shape[0] for kv in each]
    longest = max(1, *lengths)
    keys, values = (
        [
            torch.stack(
                [
                    torch.nn.functional.pad(kv[layer][part], (0, 0, 0, 0, 0, longest - len(kv[layer][part])))
                    for kv in each
                ]
            ).transpose(1, 2)
            for layer in range(len(each[0]))
        ]
        for part in (0, 1)
    )
    first = keys[0]
    return SharedCache(keys, values, padding_mask(lengths, longest, first.device, first.dtype))


def _bytes(pairs: "KeyValues") -> int:
    return sum(part.nbytes for pair in pairs for part in pair)


def _shared_bytes(shared: SharedCache) -> int:
    return sum(part.nbytes for part in (*shared.keys, *shared.values))
