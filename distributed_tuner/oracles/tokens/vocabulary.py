"""Between texts and prompt rows: how tokens fill rows, and V^-1, the text of the tokens that rows are nearest to.

Which tokens are allowed, and how they are joined to a text, is the tokenizer's business (``Vocabulary``); which of them
is nearest, the embedding matrix's (``nearest``).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from distributed_tuner.errors import ModelError
from distributed_tuner.seeds import generator
from distributed_tuner.values import TokenSpace

if TYPE_CHECKING:
    from torch import Tensor

PUBLISHED_IDS = range(4, 15000)  # of the published code: without RoBERTa's special tokens and its rarer words
BLOCK_BYTES = 64 * 2**20  # memory of a search in addition to the embedding matrix and the rows
BYTES_A_VALUE = 3 * 4  # a block's embeddings and its scores: as they are, in float32, and once more on the way
NO_TEXT = "\ufffd"  # what a part of a character is decoded to


# --------------------------------------------------------------------------------------------------- text to rows
def fit_ids(ids: Sequence[int], length: int) -> list[int]:
    """Fit a text to ``length`` rows: repeated from its end backwards, so that its end stands next to the example.

    Of a longer text the last ``length`` tokens are kept.
    """
    repeated = list(ids) * (length // len(ids) + 1)
    return repeated[-length:]


def sampled(vocabulary: Sequence[str]) -> Iterator[str]:
    """Yield the words of a vocabulary in an order that is always the same and favours none: answer words."""
    words = [word for word in vocabulary if word.strip().isalpha()]
    yield from (words[i] for i in generator((0, "answer words")).permutation(len(words)))


def require_tokens(count: int, text: str) -> None:
    """Check that a text of ``count`` tokens can fill rows.

    Raises:
        ModelError: it has none.
    """
    if count == 0:
        raise ModelError(
            f"a text must have at least one token to fill the rows of a soft prompt, but {text!r} has none; give it a"
            " word"
        )


# --------------------------------------------------------------------------------------------------- rows to text
class Vocabulary:
    """The tokens that rows may become. ``size`` is the number of the embedding matrix's rows.

    What a token adds to a text, its *piece*, is what it makes of a text before it: " film", "ing". A word is allowed
    under "words" if a text of it twice is read as itself twice, so that it can begin a text and follow another word.
    """

    def __init__(self, tokenizer: Any, size: int) -> None:
        self._tokenizer = tokenizer
        self._size = size
        self._pieces: dict[int, str] = {}
        self._allowed: dict[str, npt.NDArray[np.int64]] = {}

    def ids(self, space: TokenSpace) -> npt.NDArray[np.int64]:
        """Return the allowed tokens, ascending.

        Raises:
            ModelError: there is none.
        """
        kind = space.vocabulary
        if kind not in self._allowed:
            found = self._find(kind)
            if not found:
                raise ModelError(
                    f"a token space must have a token, but this model's tokenizer has none for the vocabulary {kind!r};"
                    " set tokens.vocabulary: all"
                )
            self._allowed[kind] = np.array(found, dtype=np.int64)
        return self._allowed[kind]

    def pieces(self, space: TokenSpace) -> tuple[str, ...]:
        """Return what the allowed tokens are in a text."""
        return tuple(self._all_pieces()[int(i)] for i in self.ids(space))

    def text(self, ids: Sequence[int], space: TokenSpace) -> str:
        """Join tokens: as the tokenizer reads them back for "words", with spaces between for "published"."""
        match space.vocabulary:
            case "words":
                pieces = self._all_pieces()
                return "".join([self._decode([[ids[0]]])[0], *(pieces[i] for i in ids[1:])])
            case "published":
                return " ".join(self._decode([[i] for i in ids]))
            case _:
                return self._decode([list(ids)])[0]

    def _find(self, kind: str) -> list[int]:
        known = self._all_pieces()
        if kind == "published":
            return [i for i in known if i in PUBLISHED_IDS]
        special = set(self._tokenizer.all_special_ids)
        special.update(i for i, token in self._tokenizer.added_tokens_decoder.items() if token.special)
        plain = [i for i in known if i not in special]
        if kind == "all":
            return plain
        printable = [i for i in plain if known[i] and known[i].isprintable() and NO_TEXT not in known[i]]
        if kind == "printable":
            return printable
        return self._read_back([i for i in printable if _is_word(known[i])])

    def _read_back(self, ids: list[int]) -> list[int]:
        if not ids:
            return []
        known = self._all_pieces()
        alone = self._decode([[i] for i in ids])
        twice = [text + known[i] for text, i in zip(alone, ids, strict=True)]
        read = self._tokenizer(twice, add_special_tokens=False, return_attention_mask=False)["input_ids"]
        return [i for i, got in zip(ids, read, strict=True) if list(got) == [i, i]]

    def _all_pieces(self) -> dict[int, str]:
        """Return the piece of every token that has a row of its own, by ascending id."""
        if not self._pieces:
            ids = sorted(i for i in set(self._tokenizer.get_vocab().values()) if i < self._size)
            before = list(self._tokenizer("a", add_special_tokens=False)["input_ids"])
            text = self._decode([before])[0]
            joined = self._decode([[*before, i] for i in ids])
            self._pieces = {i: both.removeprefix(text) for i, both in zip(ids, joined, strict=True)}
        return self._pieces

    def _decode(self, lines: list[list[int]]) -> list[str]:
        texts: list[str] = self._tokenizer.batch_decode(lines, clean_up_tokenization_spaces=False)
        return texts


def _is_word(piece: str) -> bool:
    return piece[0] == " " and not any(map(str.isspace, piece[1:])) and any(map(str.isalpha, piece))


def nearest(
    embed: "Callable[[Any], Tensor]",
    ids: npt.NDArray[np.int64],
    rows_R_D: "Tensor",
    distance: Literal["cosine", "l2", "published"],
    block_bytes: int = BLOCK_BYTES,
) -> "tuple[Tensor, Tensor]":
    """Return the nearest of the tokens ``ids`` to each row, shape (R,), and how near it is; of equals the first.

    ``embed`` returns the embeddings (n, D) of token ids. Nearness is the cosine, or for "l2" what the squared distance
    falls short of the row's own square; "published" takes the token of the smallest cosine. The vocabulary is searched
    in blocks that take no more than ``block_bytes`` each (one token's at least).
    """
    import torch

    with torch.inference_mode():
        wanted = rows_R_D.float()
        step = max(1, block_bytes // (BYTES_A_VALUE * sum(wanted.shape)))
        chosen = torch.full((len(wanted),), int(ids[0]), device=wanted.device)
        best = torch.full((len(wanted),), -torch.inf, device=wanted.device)
        for at in range(0, len(ids), step):
            block = ids[at : at + step]
            near, place = _nearness(wanted, embed(block).float(), distance).max(dim=1)
            better = near > best
            chosen = torch.where(better, torch.from_numpy(block).to(place.device)[place], chosen)
            best = torch.where(better, near, best)
        if distance != "l2":
            best.div_(_norms(wanted))
    return chosen, -best if distance == "published" else best


def _nearness(wanted_R_D: "Tensor", block_V_D: "Tensor", distance: str) -> "Tensor":
    """Return the nearness of every token to every row, for cosines without the row's norm."""
    products = wanted_R_D @ block_V_D.T
    if distance == "l2":
        return products.mul_(2).sub_(block_V_D.square().sum(dim=1))
    cosines = products.div_(_norms(block_V_D))
    return cosines.neg_() if distance == "published" else cosines


def _norms(vectors_N_D: "Tensor") -> "Tensor":
    import torch

    norms: Tensor = torch.linalg.vector_norm(vectors_N_D, dim=1)
    return norms.clamp_min_(1e-12)
