"""Tokens of candidates and examples: label words, layouts, lengths. The counts are done by hand."""

from dataclasses import replace
from typing import Any

import pytest
from tiny_models import CLS, MASK, SEP, SPEC, batch_of, make_tokenizer

from distributed_tuner.errors import ModelError, TaskError
from distributed_tuner.oracles.tokens.encoding import Encoder
from distributed_tuner.values import Batch, Example, Point, Request, Text


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return make_tokenizer(bos=False)


@pytest.fixture(scope="module")
def bos_tokenizer() -> Any:
    return make_tokenizer(bos=True)


@pytest.fixture
def encoder(tokenizer: Any) -> Encoder:
    return Encoder(tokenizer, context=20)


@pytest.fixture
def bos_encoder(bos_tokenizer: Any) -> Encoder:
    return Encoder(bos_tokenizer, context=20)


def words(cue: str, label_words: tuple[str, ...], rule: Any = "single") -> Batch:
    return Batch((Example("e", "a film", cue, 0),), label_words, "train", label_rule=rule)


# ------------------------------------------------------------------------------------------------------ label words
def test_a_label_word_is_the_token_that_continues_the_cue(encoder: Encoder, tokenizer: Any) -> None:
    ids = encoder.label_ids(words(" It was", (" great", " terrible")))
    assert tokenizer.convert_ids_to_tokens(list(ids)) == ["Ġgreat", "Ġterrible"]
    bare = encoder.label_ids(words(" Verdict\n", ("great", "terrible")))
    assert tokenizer.convert_ids_to_tokens(list(bare)) == ["great", "terrible"]


def test_special_tokens_are_no_part_of_a_label_word(encoder: Encoder, bos_encoder: Encoder) -> None:
    batch = words(" It was", (" great", " terrible"))
    assert bos_encoder.label_ids(batch) == encoder.label_ids(batch)


def test_a_label_word_of_several_tokens_is_refused_and_its_pieces_named(encoder: Encoder) -> None:
    with pytest.raises(TaskError, match=r"' awful' is \d: \['Ġ?a?', .*; choose another word.*label_rule: first"):
        encoder.label_ids(words(" It was", (" great", " awful")))


def test_the_first_rule_lets_the_first_token_stand_for_the_word(encoder: Encoder, tokenizer: Any) -> None:
    ids = encoder.label_ids(words(" It was", (" greatest", " terribleness"), "first"))
    assert ids == tuple(tokenizer(word)["input_ids"][0] for word in (" greatest", " terribleness"))


def test_label_words_that_share_their_token_are_refused(encoder: Encoder) -> None:
    with pytest.raises(TaskError, match="' awful' and ' amber' both become 'Ġa'; choose other words"):
        encoder.label_ids(words(" It", (" great", " awful", " amber"), "first"))


def test_a_label_word_that_melts_into_the_cue_is_refused(encoder: Encoder) -> None:
    with pytest.raises(TaskError, match=r"'thing' melts into it \(\['Ġsomething'\]\); start it with a space"):
        encoder.label_ids(words(" some", ("thing", " great")))


def test_a_cue_that_ends_inside_a_word_is_refused_for_words_with_a_space_too(encoder: Encoder) -> None:
    # the space at the end of the cue and that of the word make another token than the cue's own space
    batch = words(" ", ("great", " terrible"))
    with pytest.raises(TaskError, match="melts into it"):
        encoder.label_ids(batch)


# ---------------------------------------------------------------------------------------------------------- layouts
def test_special_tokens_in_each_layout(bos_encoder: Encoder, bos_tokenizer: Any) -> None:
    """Prefix: before the text; suffix: before the text, not the cue; text candidates: before the prompt alone."""
    example = Example("e", "a film", " It was", 0)

    def names(ids: tuple[int, ...]) -> list[str]:
        return list(bos_tokenizer.convert_ids_to_tokens(list(ids)))

    assert names(bos_encoder.line(example, True)) == [CLS, "a", "Ġfilm", "ĠIt", "Ġwas"]
    assert names(bos_encoder.ids(example.text, True)) == [CLS, "a", "Ġfilm"]
    assert names(bos_encoder.ids(example.cue, False)) == ["ĠIt", "Ġwas"]
    assert names(bos_encoder.prompt("Classify")) == [CLS, "Classify", "Ċ"]
    assert names(bos_encoder.prompt("")) == [CLS]
    assert names(bos_encoder.line(example, False)) == ["a", "Ġfilm", "ĠIt", "Ġwas"]


def test_an_empty_text_prompt_is_no_tokens_where_there_are_no_special_ones(encoder: Encoder) -> None:
    assert encoder.prompt("") == ()
    assert len(encoder.prompt("Classify")) == 2


def test_lengths_by_hand(encoder: Encoder, bos_encoder: Encoder) -> None:
    batch = batch_of(["a good film", "bad", ""])
    assert encoder.lengths(batch, "prefix") == encoder.lengths(batch, "suffix") == [5, 3, 2]
    assert bos_encoder.lengths(batch, "prefix") == bos_encoder.lengths(batch, "suffix") == [6, 4, 3]


def test_text_and_cue_may_share_a_token_in_the_prefix_layout_only(encoder: Encoder) -> None:
    batch = batch_of(["a some"], "thing was")
    assert encoder.lengths(batch, "prefix") == [3]
    assert encoder.lengths(batch, "suffix") == [4]


@pytest.mark.parametrize(
    ("length", "layout"),
    [
        (1, "suffix"),  # 1 + 4 * 5 = 21 tokens as a prefix, 4 * (1 + 2) = 12 as a suffix
        (3, "suffix"),  # 23 and 20
        (4, "prefix"),  # 24 and 24
        (8, "prefix"),  # 28 and 40
    ],
)
def test_the_layout_that_computes_fewer_tokens_is_chosen(encoder: Encoder, length: int, layout: str) -> None:
    assert encoder.choose_layout(batch_of(["a good film"] * 4), length) == layout


def test_computed_tokens_count_what_is_shared_once(encoder: Encoder) -> None:
    batch = batch_of(["a good film", "bad"])
    soft, text = Point(None), Text("Classify the movie")  # type: ignore[arg-type]
    prefix = Request((soft, soft), batch, SPEC)
    assert encoder.computed_tokens(prefix) == 2 * (5 + 5 + 3)
    assert encoder.computed_tokens(replace(prefix, gradient=True)) == 3 * 2 * (5 + 5 + 3)
    assert encoder.computed_tokens(replace(prefix, prompt=replace(SPEC, layout="suffix"))) == 2 * 2 * (5 + 2)
    assert encoder.computed_tokens(replace(prefix, candidates=(text,))) == 4 + 5 + 3
    assert encoder.cost(prefix).tokens == 2 * ((5 + 5) + (5 + 3))


def test_what_fits_is_let_through_and_what_does_not_is_named(encoder: Encoder) -> None:
    encoder.require_fit(batch_of(["a" + " film" * 12]), SPEC)  # 5 + 13 + 2 = 20
    batch = batch_of(["bad", "a" + " film" * 13, "slow"])
    with pytest.raises(ModelError, match=r"context of 20 tokens, but 5 prompt rows and 16 tokens of example 'train-1'"):
        encoder.require_fit(batch, SPEC)


def test_a_blank_example_is_refused_even_behind_a_special_token(encoder: Encoder, bos_encoder: Encoder) -> None:
    for one in (encoder, bos_encoder):
        with pytest.raises(TaskError, match="'train-1' has neither"):
            one.require_fit(batch_of(["bad", ""], ""), SPEC)
        one.require_fit(batch_of(["bad", ""], " It was"), SPEC)


def test_text_after_the_label_word_is_refused_for_causal_models(encoder: Encoder) -> None:
    batch = Batch((Example("a", "it rained", " so it was", 0, tail=" ."),), (" wet", " dry"), "train")
    with pytest.raises(TaskError, match=r"nothing after the label word, but the template continues with ' \.'"):
        encoder.label_ids(batch)


def test_the_add_layout_has_its_special_tokens_before_the_filler(bos_encoder: Encoder) -> None:
    batch = batch_of(["a good film", "bad"])
    assert bos_encoder.lengths(batch, "add") == [6, 4]
    one = Request((Point(None),), batch, replace(SPEC, layout="add", init="zeros"))  # type: ignore[arg-type]
    assert bos_encoder.computed_tokens(one) == 1 + 5 + 5 + 3  # the special token and the filler once
    assert bos_encoder.cost(one).tokens == (1 + 5 + 5) + (1 + 5 + 3)


# ------------------------------------------------------------------------------------------------------ masked models
@pytest.fixture
def masked() -> Encoder:
    return Encoder(make_tokenizer(bos=False, masked=True), context=20, masked=True)


def test_a_masked_line_has_its_mask_where_the_label_word_goes(masked: Encoder) -> None:
    tokenizer = masked._tokenizer
    batch = Batch((Example("e", "a film", " It was", 0, tail=" really"),), (" great", " terrible"), "train")
    line = masked.line_masked(batch.examples[0], batch)
    names = tokenizer.convert_ids_to_tokens(list(line.ids))
    assert [names[0], names[line.mask], names[-1]] == [CLS, MASK, SEP]
    assert "".join(names[1:-1]).replace("\u0120", " ") == f"a film It was{MASK} really"  # the mask takes the space in
    assert line.start == 1
    prompted = masked.line_masked(batch.examples[0], batch, "Classify")
    assert len(prompted.ids) == len(line.ids) + 2


def test_a_mask_in_front_is_no_special_token_to_put_the_prompt_behind(masked: Encoder) -> None:
    batch = Batch((Example("e", "", "", 0, tail=" a film"),), ("great", "terrible"), "train")
    line = masked.line_masked(batch.examples[0], batch)
    assert (line.start, line.mask) == (1, 1)


def test_a_masked_models_label_words_stand_alone(masked: Encoder) -> None:
    ids = masked.label_ids(words(" It was", (" great", " terrible")))
    assert masked._tokenizer.convert_ids_to_tokens(list(ids)) == ["Ġgreat", "Ġterrible"]
    with pytest.raises(TaskError, match=r"' awful' is \d"):
        masked.label_ids(words(" It was", (" great", " awful")))


def test_a_masked_model_computes_every_row_whole(masked: Encoder) -> None:
    batch = batch_of(["a good film", "bad"])
    lengths = masked.lengths(batch, "prefix")
    assert masked.choose_layout(batch, 1) == "prefix"
    request = Request((Point(None),), batch, SPEC)  # type: ignore[arg-type]
    assert masked.computed_tokens(request) == masked.cost(request).tokens == sum(lengths) + 2 * SPEC.length
    with pytest.raises(ModelError, match="suffix layout needs a causal model"):
        masked.require_fit(batch, replace(SPEC, layout="suffix"))


# --------------------------------------------------------------------------------------- what the tokenizer adds, lacks
@pytest.mark.parametrize("single", ["$A </s>", "<s> $A </s>", "<s> $A </s> </s>", "</s> $A </s>", "<s> $A", "$A"])
def test_what_a_tokenizer_puts_behind_a_text_is_left_out(single: str) -> None:
    """A causal model answers at the end of the text, and would be asked behind its end."""
    from tokenizers import processors

    tokenizer = make_tokenizer(bos=False)
    tokenizer.add_special_tokens({"eos_token": "</s>"})
    marks = [(token, tokenizer.convert_tokens_to_ids(token)) for token in (CLS, "</s>")]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=marks)
    encoder = Encoder(tokenizer, context=20)
    before = single.split("$A")[0].split()

    def names(ids: tuple[int, ...]) -> list[str]:
        return tokenizer.convert_ids_to_tokens(list(ids))  # type: ignore[no-any-return]

    (example,) = batch_of(["a film"]).examples
    assert names(encoder.line(example, True)) == [*before, "a", "\u0120film", "\u0120It", "\u0120was"]
    assert names(encoder.ids(example.text, True)) == [*before, "a", "\u0120film"]
    assert names(encoder.prompt("Classify")) == [*before, "Classify", "\u010a"]
    assert names(encoder.prompt("")) == names(encoder.specials()) == before
    assert names(encoder.ids("a</s>", True)) == [*before, "a", "</s>"]  # the user's own


def test_a_masked_model_keeps_what_stands_behind_its_text() -> None:
    encoder = Encoder(make_tokenizer(bos=False, masked=True), context=20, masked=True)
    assert len(encoder.ids("a", True)) == 3


def test_a_token_without_a_row_is_named() -> None:
    tokenizer = make_tokenizer(bos=False)
    rows = len(tokenizer)
    tokenizer.add_tokens([" awful"])
    encoder = Encoder(tokenizer, context=20, rows=rows)
    wanted = rf"the tokenizer has {rows + 1} tokens, the model {rows} rows, and ' awful' of .* is number {rows};"
    with pytest.raises(ModelError, match=wanted):
        encoder.label_ids(replace(batch_of(["a film"]), label_words=(" awful", " good")))
    with pytest.raises(ModelError, match=f"example train-1: .*{wanted}"):
        encoder.require_fit(batch_of(["a film", "an awful film"]), SPEC)
    placed = Example("pool-7", "an awful film", " It was", 0, where="mine.csv, row 8")
    with pytest.raises(ModelError, match=rf"example pool-7 \(mine\.csv, row 8\): .*{wanted}"):
        encoder.require_fit(replace(batch_of(["a film"]), examples=(placed,)), SPEC)
    with pytest.raises(ModelError, match=wanted):
        encoder.require_text_fits(batch_of(["a film"]), "an awful prompt")
    padded = Encoder(tokenizer, context=20, rows=rows + 64)
    padded.require_fit(batch_of(["a film", "an awful film"]), SPEC)
