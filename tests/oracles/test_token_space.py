"""V^-1: which tokens a text may be made of, that a text is read back, and the search for the nearest token."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tiny_models import make_tokenizer

from distributed_tuner.errors import ModelError
from distributed_tuner.oracles.tokens.vocabulary import BYTES_A_VALUE, Vocabulary, fit_ids, nearest, require_tokens
from distributed_tuner.values import Array, TokenSpace

WORDS = TokenSpace("words")
PRINTABLE = TokenSpace("printable")
ALL = TokenSpace("all")
PUBLISHED = TokenSpace("published")
SMALL = "good film bad movie was it an".split()  # noqa: SIM905


def byte_level() -> Any:
    return make_tokenizer(bos=False)


def byte_level_that_adds_specials() -> Any:
    return make_tokenizer(bos=True)


def byte_level_masked() -> Any:
    return make_tokenizer(bos=False, masked=True)


def word_piece() -> Any:
    """Return a tokenizer as BERT's: lower case, "##" inside words, special tokens around."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokens = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *SMALL,
        "Good",
        "##ing",
        "##a",
        "a",
        "!",
        "##!",
        "7",
        "café",
    ]
    inner = Tokenizer(models.WordPiece({token: i for i, token in enumerate(tokens)}, unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer(lowercase=True)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece()
    inner.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def sentence_piece() -> Any:
    """Return a tokenizer as LLaMA's: a mark stands for every space and one more in front, and words begin with it."""
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    tokens = ["<unk>", "<s>", "</s>", "▁"]
    merges: list[tuple[str, str]] = []
    for word in SMALL:
        text = f"▁{word}"
        tokens += sorted(set(text) - set(tokens))
        for end in range(2, len(text) + 1):
            if text[:end] not in tokens:
                tokens.append(text[:end])
                merges.append((text[: end - 1], text[end - 1]))
    inner = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges, unk_token="<unk>"))
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    inner.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


TOKENIZERS: tuple[Callable[[], Any], ...] = (
    byte_level,
    byte_level_that_adds_specials,
    byte_level_masked,
    word_piece,
    sentence_piece,
)


@pytest.fixture(scope="module", params=TOKENIZERS, ids=lambda make: make.__name__)
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return request.param()


# --------------------------------------------------------------------------------------------------- allowed tokens
def test_words_are_read_back_in_any_order(tokenizer: Any) -> None:
    vocabulary = Vocabulary(tokenizer, len(tokenizer))
    allowed = vocabulary.ids(WORDS)
    assert {f" {word}" for word in SMALL} <= set(vocabulary.pieces(WORDS))
    draws = np.random.default_rng(3)
    for length in (1, 2, 7, 40):
        ids = draws.choice(allowed, length).tolist()
        text = vocabulary.text(ids, WORDS)
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == ids
        assert text.split() == [vocabulary.pieces(WORDS)[list(allowed).index(i)].strip() for i in ids]


def test_the_spaces_lie_in_each_other_and_are_ascending(tokenizer: Any) -> None:
    vocabulary = Vocabulary(tokenizer, len(tokenizer))
    words, printable, plain = (vocabulary.ids(space).tolist() for space in (WORDS, PRINTABLE, ALL))
    assert set(words) < set(printable) <= set(plain)
    assert set(plain) == set(range(len(tokenizer))) - set(tokenizer.all_special_ids)
    assert vocabulary.ids(PUBLISHED).tolist() == list(range(4, len(tokenizer)))
    for ids in (words, printable, plain):
        assert ids == sorted(ids)


def test_a_word_has_a_letter_begins_anew_and_is_spelled_as_the_tokenizer_spells() -> None:
    vocabulary = Vocabulary(word_piece(), 100)
    assert vocabulary.pieces(WORDS) == (*(f" {word}" for word in SMALL), " a")  # not Good, café (normalised), 7, !, ##a
    assert {"ing", "a", "!", " 7", " Good"} <= set(vocabulary.pieces(PRINTABLE))
    assert "[CLS]" not in "".join(vocabulary.pieces(ALL))


def test_bytes_that_are_no_character_are_not_printable() -> None:
    tokenizer = byte_level()
    vocabulary = Vocabulary(tokenizer, len(tokenizer))
    byte, newline = (tokenizer.convert_tokens_to_ids(token) for token in ("é", "Ċ"))  # the byte E9, and a line's end
    assert {byte, newline} <= set(vocabulary.ids(ALL).tolist())
    assert not {byte, newline} & set(vocabulary.ids(PRINTABLE).tolist())


def test_only_tokens_with_a_row_of_their_own_are_allowed() -> None:
    tokenizer = word_piece()
    assert Vocabulary(tokenizer, 7).pieces(WORDS) == (" good", " film")
    assert Vocabulary(tokenizer, 1000).ids(ALL).max() == len(tokenizer) - 1  # padding rows have no token
    with pytest.raises(ModelError, match="has none for the vocabulary 'words'"):
        Vocabulary(tokenizer, 5).ids(WORDS)


def test_published_texts_have_spaces_between_tokens_as_they_are_decoded() -> None:
    tokenizer = byte_level()
    ids = [tokenizer.convert_tokens_to_ids(token) for token in ("Ġgood", "film")]
    vocabulary = Vocabulary(tokenizer, len(tokenizer))
    assert vocabulary.text(ids, PUBLISHED) == " good film"
    assert vocabulary.text(ids, ALL) == vocabulary.text(ids, PRINTABLE) == " goodfilm"


# --------------------------------------------------------------------------------------------------- the search
def direct(embedding: Array, ids: list[int], rows: Array, distance: str) -> list[int]:
    """The nearest token by comparing a row with every token, of equals the first."""
    answer = []
    for row in rows.astype(np.float64):
        tokens = embedding[ids].astype(np.float64)
        if distance == "l2":
            answer.append(int(((tokens - row) ** 2).sum(axis=1).argmin()))
        else:
            cosines = tokens @ row / np.maximum(np.linalg.norm(tokens, axis=1), 1e-12)
            answer.append(int(cosines.argmin() if distance == "published" else cosines.argmax()))
    return [ids[place] for place in answer]


def searched(embedding: Array, ids: list[int], rows: Array, distance: Any, block: int) -> list[int]:
    import torch

    table = torch.from_numpy(embedding)
    most = BYTES_A_VALUE * sum(rows.shape) * block
    found, _ = nearest(lambda i: table[torch.as_tensor(i)], np.array(ids), torch.from_numpy(rows), distance, most)
    return [int(i) for i in found]


@settings(max_examples=60, deadline=None)
@given(
    embedding=arrays(np.float32, st.tuples(st.integers(1, 40), st.just(3)), elements=st.integers(-1, 1).map(float)),
    rows=arrays(np.float32, st.tuples(st.integers(1, 5), st.just(3)), elements=st.integers(-2, 2).map(float)),
    distance=st.sampled_from(["cosine", "l2", "published"]),
    block=st.integers(0, 50),
    data=st.data(),
)
def test_a_search_in_blocks_is_the_direct_one_with_ties(
    embedding: Array, rows: Array, distance: str, block: int, data: st.DataObject
) -> None:
    """Whole numbers have exact products, so that equal tokens are equal wherever they stand."""
    ids = sorted(data.draw(st.sets(st.integers(0, len(embedding) - 1), min_size=1)))
    assert searched(embedding, ids, rows, distance, block) == direct(embedding, ids, rows, distance)


@pytest.mark.parametrize("distance", ["cosine", "l2", "published"])
@pytest.mark.parametrize("block", [1, 7, 64, 300, 1000])
def test_a_search_in_blocks_is_the_direct_one_among_many(distance: str, block: int) -> None:
    draws = np.random.default_rng(5)
    embedding = draws.standard_normal((300, 24)).astype(np.float32) * draws.uniform(0.1, 2.0, (300, 1)).astype(
        np.float32
    )
    rows = draws.standard_normal((40, 24)).astype(np.float32)
    ids = list(range(1, 300, 2))
    assert searched(embedding, ids, rows, distance, block) == direct(embedding, ids, rows, distance)


def test_what_is_asked_of_the_embedding_at_a_time_fits_into_a_block() -> None:
    import torch

    asked: list[int] = []

    def embed(ids: Any) -> Any:
        asked.append(len(ids))
        return torch.zeros(len(ids), 16)

    nearest(embed, np.arange(1000), torch.ones(4, 16), "cosine", block_bytes=BYTES_A_VALUE * (16 + 4) * 128)
    assert asked == [128] * 7 + [104]


def test_how_near_is_the_cosine() -> None:
    import torch

    table = torch.tensor([[1.0, 0.0], [3.0, 4.0]])
    for distance, token, expected in (("cosine", 1, 0.8), ("published", 0, 0.0)):
        found, near = nearest(lambda i: table[torch.as_tensor(i)], np.arange(2), torch.tensor([[0.0, 2.0]]), distance)  # type: ignore[arg-type]
        assert (int(found), float(near)) == (token, pytest.approx(expected))


# --------------------------------------------------------------------------------------------------- text to rows
@pytest.mark.parametrize(("length", "expected"), [(1, [3]), (3, [1, 2, 3]), (5, [2, 3, 1, 2, 3]), (6, [1, 2, 3] * 2)])
def test_a_text_fills_its_rows_from_the_end(length: int, expected: list[int]) -> None:
    assert fit_ids((1, 2, 3), length) == expected


def test_a_text_without_tokens_fills_no_rows() -> None:
    require_tokens(1, "a")
    with pytest.raises(ModelError, match="must have at least one token to fill the rows of a soft prompt, but ''"):
        require_tokens(0, "")
