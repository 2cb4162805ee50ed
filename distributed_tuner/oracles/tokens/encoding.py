"""Encoding of examples and prompts as token ids: label words, layouts, lengths. Needs a tokenizer, no weights.

Owned here is the one rule of how a candidate and an example become a sequence; the oracle only computes it. For a
causal model, which answers at the end of the cue:

- prefix layout: [soft rows][text + cue], text and cue encoded as one string with the tokenizer's special tokens, as
  PEFT's prompt tuning does;
- suffix layout: [text][soft rows][cue], text with special tokens, cue without;
- add layout: [special tokens, filler][text + cue], the soft rows added to the first L of these tokens, as the code of
  ZOT and BBT does;
- text candidates: [special tokens, prompt, newline][text + cue].

A masked model answers at its mask, which stands for the label word, and reads on to the template's end. Special tokens
enclose the whole: [special][soft rows or filler][text, cue, mask, tail][special]. There is no suffix layout.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from distributed_tuner.errors import ModelError, TaskError
from distributed_tuner.oracles.base import GRADIENT_QUERIES, counted
from distributed_tuner.values import Batch, Cost, Example, Layout, PromptSpec, Request, Text

TEXT_SEPARATOR = "\n"
MOST_SHOWN = 40  # characters of a text in a message


class Tokenizer(Protocol):
    """Used part of a transformers tokenizer. ``mask_token`` and its id are None for causal models."""

    mask_token: str | None
    mask_token_id: int | None
    all_special_ids: list[int]

    def __len__(self) -> int: ...

    def __call__(self, text: str, add_special_tokens: bool = True) -> Any: ...

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class MaskedLine:
    """A whole example for a masked model: its ``ids``, where a prompt goes in, and where the answer is read."""

    ids: tuple[int, ...]
    start: int
    mask: int


class Encoder:
    """Token ids of examples, cues, texts and label words; results are kept, since tasks are small and asked often.

    ``rows``: of the model's embeddings, where they are known. ``reach``: tokens of the longest row that may share a
    sequence with others; longer ones are computed whole (limits.py).
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        context: int,
        masked: bool = False,
        rows: int | None = None,
        reach: int | None = None,
    ) -> None:
        self.context = context
        self.reach = context if reach is None else reach
        self.masked = masked
        self._tokenizer = tokenizer
        self._rows = rows
        self._ids: dict[tuple[str, bool], tuple[int, ...]] = {}

    def ids(self, text: str, special: bool) -> tuple[int, ...]:
        """Return the token ids of ``text``, with or without the tokenizer's special tokens.

        A causal model answers behind its text, so that what the tokenizer puts there (end of text) is left out.

        Raises:
            ModelError: a token has no row in the embedding matrix.
        """
        key = (text, special)
        if key not in self._ids:
            found = tuple(self._tokenizer(text, add_special_tokens=special)["input_ids"]) if text or special else ()
            if special and not self.masked and self._behind and found[-len(self._behind) :] == self._behind:
                found = found[: -len(self._behind)]
            self._require_known(found, text)
            self._ids[key] = found
        return self._ids[key]

    @cached_property
    def _behind(self) -> tuple[int, ...]:
        """Tokens that the tokenizer appends to every text."""
        around, text = (tuple(self._tokenizer(text)["input_ids"]) for text in ("", "a"))
        if len(text) <= len(around):
            return ()
        count = 0
        while count < len(around) and around[-1 - count] == text[-1 - count]:
            count += 1
        return around[len(around) - count :]

    def _require_known(self, ids: tuple[int, ...], text: str) -> None:
        unknown = next((i for i in ids if self._rows is not None and i >= self._rows), None)
        if unknown is not None:
            (token,) = self._tokenizer.convert_ids_to_tokens([unknown])
            raise ModelError(
                f"every token must have a row in the model's embeddings, but the tokenizer has {len(self._tokenizer)}"
                f" tokens, the model {self._rows} rows, and {token!r} of {_short(text)!r} is number {unknown}; use the"
                " tokenizer that the model was trained with, or words that do without the token"
            )

    def line(self, example: Example, special: bool) -> tuple[int, ...]:
        """Return the ids of text and cue in one."""
        return self.ids(example.text + example.cue, special)

    def prompt(self, text: str) -> tuple[int, ...]:
        """Return the ids of a text candidate as it stands before the example: special tokens, prompt, newline."""
        return self.ids(text + TEXT_SEPARATOR if text else "", True)

    def line_masked(self, example: Example, batch: Batch, prompt: str = "") -> MaskedLine:
        """Return the ids of an example, special tokens around it and a mask for the label word, after a text prompt.

        The space that label words begin with stands before the mask.

        Raises:
            TaskError: the text holds a mask token of its own.
            ModelError: the tokenizer has none.
        """
        if self._tokenizer.mask_token is None:
            raise ModelError(
                "a model that fills in masks needs a tokenizer with a mask token, but this one has none; use the"
                " tokenizer that the model was trained with"
            )
        space = " " if batch.label_words[0].startswith(" ") else ""
        before = prompt + TEXT_SEPARATOR if prompt else ""
        ids = self.ids(f"{before}{example.text}{example.cue}{space}{self._tokenizer.mask_token}{example.tail}", True)
        masks = [place for place, token in enumerate(ids) if token == self._tokenizer.mask_token_id]
        if len(masks) != 1:
            raise TaskError(
                f"an example must have one {self._tokenizer.mask_token}, where its label word goes, but"
                f" {example.uid!r} has {len(masks)}; take the token out of the text"
            )
        special = set(self._tokenizer.all_special_ids)
        start = next(place for place, token in enumerate(ids) if token not in special or place == masks[0])
        return MaskedLine(ids, start, masks[0])

    def specials(self) -> tuple[int, ...]:
        """Return the special tokens that a causal model's text begins with."""
        return self.ids("", True)

    def label_ids(self, batch: Batch) -> tuple[int, ...]:
        """Return the token id of each label word, in label order.

        A word is encoded as the continuation of the cue, so that the space before it counts; for a masked model it
        stands alone. Rule "single": it must be one token; "first": its first token stands for it.

        Raises:
            TaskError: a word is no single token under "single", two words share a token, a word melts into the cue, or
                the template goes on after a causal model's label word.
        """
        if any(example.tail for example in batch.examples) and not self.masked:
            after = next(example.tail for example in batch.examples if example.tail)
            raise TaskError(
                f"a causal model reads nothing after the label word, but the template continues with {after!r}; end it"
                " with {label_word}, or leave out task.model_family: masked"
            )
        cue = batch.examples[0].cue if batch.examples else ""
        pieces = [self.ids(word, False) if self.masked else self._continuation(cue, word) for word in batch.label_words]
        for word, piece in zip(batch.label_words, pieces, strict=True):
            if len(piece) > 1 and batch.label_rule == "single":
                tokens = self._tokenizer.convert_ids_to_tokens(list(piece))
                raise TaskError(
                    f"a label word must be one token, but {word!r} is {len(piece)}: {tokens}; choose another word, or"
                    " set task.label_rule: first to let its first token stand for it"
                )
        ids = tuple(piece[0] for piece in pieces)
        for j, token in enumerate(ids):
            if token in ids[:j]:
                first, second = batch.label_words[ids.index(token)], batch.label_words[j]
                raise TaskError(
                    f"label words must differ in their token, but {first!r} and {second!r} both become"
                    f" {self._tokenizer.convert_ids_to_tokens([token])[0]!r}; choose other words in task.label_words"
                )
        return ids

    def answer_ids(self, batch: Batch) -> tuple[int, ...]:
        """Return the token ids of the label words, and of the batch's answer words behind them.

        Raises:
            TaskError: as of ``label_ids``, or an answer word is no single token of its own.
        """
        ids = list(self.label_ids(batch))
        known = set(ids)
        for word in batch.answer_words:
            token = self.answer_token(batch, word)
            if token is None or token in known:
                found = self._tokenizer.convert_ids_to_tokens(list(self.ids(word, False)))
                raise TaskError(
                    f"an answer word must be one token that no other word has, but {word!r} is {found}; take it out of"
                    " the words of the head"
                )
            known.add(token)
            ids.append(token)
        return tuple(ids)

    def single_tokens(self, batch: Batch, words: Iterable[str]) -> Iterator[str]:
        """Yield those words that ``answer_ids`` takes, in their order."""
        known = set(self.label_ids(batch))
        for word in words:
            token = self.answer_token(batch, word)
            if token is not None and token not in known:
                known.add(token)
                yield word

    def answer_token(self, batch: Batch, word: str) -> int | None:
        """Return the token of a word at a batch's answer position; None where it is not one token."""
        if self.masked:
            piece = self.ids(word, False)
        else:
            cue = batch.examples[0].cue if batch.examples else ""
            context, both = self.ids(cue, False), self.ids(cue + word, False)
            piece = both[len(context) :] if both[: len(context)] == context else ()
        return piece[0] if len(piece) == 1 else None

    def _continuation(self, cue: str, word: str) -> tuple[int, ...]:
        context = self.ids(cue, False)
        both = self.ids(cue + word, False)
        if both[: len(context)] == context and len(both) > len(context):
            return both[len(context) :]
        hint = "start it with a space" if not word.startswith(" ") else "end the template's cue with a whole word"
        raise TaskError(
            f"a label word must begin a token of its own after {cue!r}, but {word!r} melts into it"
            f" ({self._tokenizer.convert_ids_to_tokens(list(both))}); {hint}"
        )

    def lengths(self, batch: Batch, layout: Layout) -> list[int]:
        """Return each example's tokens without the prompt rows, cue and special tokens included, in a layout."""
        if self.masked:
            return [len(self.line_masked(example, batch).ids) for example in batch.examples]
        match layout:
            case "prefix":
                return [len(self.line(example, True)) for example in batch.examples]
            case "suffix":
                return [len(self.ids(e.text, True)) + len(self.ids(e.cue, False)) for e in batch.examples]
            case "add":
                return [len(self.specials()) + len(self.line(example, False)) for example in batch.examples]

    def choose_layout(self, batch: Batch, length: int) -> Layout:
        """Return the layout that computes fewer tokens a candidate: L + sum of texts, or (L + cue) a row.

        A masked model reads both ways, so that nothing of a text can be computed before the prompt is known: prefix.
        """
        if self.masked:
            return "prefix"
        prefix = self._computed(batch, length, "prefix")
        return "prefix" if prefix <= self._computed(batch, length, "suffix") else "suffix"

    def _computed(self, batch: Batch, length: int, layout: Layout) -> int:
        lengths = [length + n for n in self.lengths(batch, layout)]
        if self.masked:
            return sum(lengths)
        if layout == "suffix":
            own = [length + len(self.ids(example.cue, False)) for example in batch.examples]
            return sum(n if total <= self.reach else total for n, total in zip(own, lengths, strict=True))
        shared = length + (len(self.specials()) if layout == "add" else 0)
        return self._sharing(lengths, shared)

    def _sharing(self, lengths: list[int], shared: int) -> int:
        """Return the tokens of rows that share so many, those that are computed whole excepted."""
        return sum(lengths) - shared * max(0, sum(total <= self.reach for total in lengths) - 1)

    def text_lengths(self, batch: Batch, prompt: str) -> list[int]:
        """Return the tokens of each example with a text prompt."""
        if self.masked:
            return [len(self.line_masked(example, batch, prompt).ids) for example in batch.examples]
        return [len(self.prompt(prompt)) + len(self.line(example, False)) for example in batch.examples]

    def computed_tokens(self, request: Request) -> int:
        """Return the tokens that go through the model: a prefix once a candidate, texts under "suffix" not at all.

        With gradients each counts GRADIENT_QUERIES times.
        """
        batch, spec = request.batch, request.prompt
        total = 0
        for candidate in request.candidates:
            if isinstance(candidate, Text):
                shared = 0 if self.masked else len(self.prompt(candidate.text))
                total += self._sharing(self.text_lengths(batch, candidate.text), shared)
            else:
                total += self._computed(batch, spec.length, spec.layout)
        return total * (GRADIENT_QUERIES if request.gradient else 1)

    def cost(self, request: Request) -> Cost:
        """Return queries, forwards and tokens of a request. Tokens: prompt and text of every forward."""
        batch = request.batch
        rows = len(batch.examples)
        soft = sum(self.lengths(batch, request.prompt.layout)) + rows * request.prompt.length
        tokens = 0
        for candidate in request.candidates:
            tokens += sum(self.text_lengths(batch, candidate.text)) if isinstance(candidate, Text) else soft
        return counted(request, tokens)

    def require_words(self, batch: Batch) -> None:
        """Check that every example has a token of its own to answer at; a masked model always has its mask.

        Raises:
            TaskError: text and cue of an example are empty.
        """
        for example in batch.examples:
            with _named(example):
                answered = self.masked or self.line(example, False)
            if not answered:
                raise TaskError(
                    f"an example must have text or a cue before the label word, but {example.uid!r} has neither; give"
                    " task.template words between its last column and {label_word}, or drop the blank rows"
                )

    def require_fit(self, batch: Batch, prompt: PromptSpec) -> None:
        """Check that no example is blank, that the model can take the layout, and that prompt and text fit into it.

        Raises:
            TaskError: an example has no tokens.
            ModelError: an example with the prompt is longer than the context (names the longest), or a masked model is
                asked for the suffix layout.
        """
        if self.masked and prompt.layout == "suffix":
            raise ModelError(
                "the suffix layout needs a causal model, but this one is a masked one, whose texts look at the prompt"
                " behind them; set prompt.layout to prefix, add or auto"
            )
        self.require_words(batch)
        self._require_room(batch, self.lengths(batch, prompt.layout), prompt.length)

    def require_embedded(self, prompt: PromptSpec) -> None:
        """Check that rows can stand for the tokens of a text.

        Raises:
            ModelError: the rows are added behind a masked model's embedding LayerNorm, where no row is a token's.
        """
        if self.masked and prompt.layout == "add":
            raise ModelError(
                "a text becomes rows by its tokens' embeddings, but prompt.layout is 'add', which for a masked model"
                " adds the rows behind the embedding LayerNorm, where they are no token's; set prompt.layout to prefix"
            )

    def require_text_fits(self, batch: Batch, prompt: str) -> None:
        """Check the same for a text prompt."""
        self.require_words(batch)
        longest = max(self.text_lengths(batch, prompt), default=0)
        if longest > self.context:
            raise ModelError(
                f"prompt and text must fit into the model's context of {self.context} tokens, but the text"
                f" prompt {prompt[:40]!r}... with the longest example makes {longest}; use fewer words"
                " (prompt.length where a search writes them, prompt.text, task.manual_prompt)"
            )

    def _require_room(self, batch: Batch, lengths: list[int], rows: int) -> None:
        longest = max(range(len(lengths)), key=lengths.__getitem__)
        total = rows + lengths[longest]
        if total > self.context:
            raise ModelError(
                f"prompt and text must fit into the model's context of {self.context} tokens, but {rows}"
                f" prompt rows and {lengths[longest]} tokens of example {batch.examples[longest].uid!r} make {total};"
                " shorten prompt.length, or drop the long rows from the data"
            )


def _short(text: str) -> str:
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."


@contextmanager
def _named(example: Example) -> Iterator[None]:
    """Say of which example what is refused is."""
    try:
        yield
    except ModelError as error:
        raise ModelError(f"example {example.name}: {error}") from error
