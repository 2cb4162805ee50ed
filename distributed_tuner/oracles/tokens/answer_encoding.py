"""Encoding of texts and of answers as token ids: label words and phrases, answer words."""

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any, Protocol

from distributed_tuner.errors import ModelError, TaskError
from distributed_tuner.oracles.decoding import require_scores
from distributed_tuner.oracles.tokens.continuations import Continuations, Tokens, Tree, continuations_of
from distributed_tuner.values import Batch, LabelRule

MOST_SHOWN = 40  # characters of a text in a message


class Tokenizer(Protocol):
    """Used part of a transformers tokenizer. ``mask_token`` and its id are None for causal models."""

    mask_token: str | None
    mask_token_id: int | None
    all_special_ids: list[int]

    def __len__(self) -> int: ...

    def __call__(self, text: str, add_special_tokens: bool = True) -> Any: ...

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]: ...


class AnswerEncoder:
    """Token ids of texts and of answers; results are kept, since tasks are small and asked often.

    ``rows``: of the model's embeddings, where they are known.
    """

    def __init__(self, tokenizer: Tokenizer, masked: bool = False, rows: int | None = None) -> None:
        self.masked = masked
        self._tokenizer = tokenizer
        self._rows = rows
        self._ids: dict[tuple[str, bool], tuple[int, ...]] = {}
        self._hung: tuple[Batch, Continuations | None] | None = None

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

    def phrases(self, batch: Batch) -> tuple[Tokens, ...]:
        """Return the tokens of each label word by which it is scored, in label order.

        A word is encoded as the continuation of the cue, so that the space before it counts; for a masked model it
        stands alone. Rule "single": it must be one token; "first": its first token stands for it; "sum" and "mean": all
        its tokens count.

        Raises:
            TaskError: a word is no single token under "single" or in a masked model, two words have the same tokens, a
                word melts into the cue, or the template goes on after a causal model's label word.
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
            self._require_length(word, piece, batch.label_rule)
        if batch.label_rule == "first":
            pieces = [piece[:1] for piece in pieces]
        for j, piece in enumerate(pieces):
            if piece in pieces[:j]:
                first, second = batch.label_words[pieces.index(piece)], batch.label_words[j]
                shown = " ".join(self._tokenizer.convert_ids_to_tokens(list(piece)))
                raise TaskError(
                    f"label words must differ in their token, but {first!r} and {second!r} both become {shown!r};"
                    " choose other words in task.label_words"
                )
        return tuple(pieces)

    def _require_length(self, word: str, piece: Tokens, rule: LabelRule) -> None:
        if len(piece) <= 1 or rule == "first" or (rule != "single" and not self.masked):
            return
        tokens = self._tokenizer.convert_ids_to_tokens(list(piece))
        way = (
            "to let its first token stand for it"
            if self.masked
            else "to let its first token stand for it, or to sum or mean to score it by all its tokens"
        )
        why = "a masked model fills in one token, so that a" if self.masked else "a"
        raise TaskError(
            f"{why} label word must be one token, but {word!r} is {len(piece)}: {tokens}; choose another word, or set"
            f" task.label_rule: first {way}"
        )

    def continuations(self, batch: Batch) -> Continuations | None:
        """Return what stands behind the rows of a batch; None where the label words' tokens at its end tell all.

        Raises:
            TaskError: as of ``phrases``, or as of ``targets``.
        """
        if batch.question == "targets" and (self._hung is None or self._hung[0] is not batch):
            self._hung = (batch, continuations_of([[target] for target in self.targets(batch)]))
        if self._hung is None or self._hung[0] is not batch:
            phrases = self.phrases(batch)
            several = bool(batch.examples) and any(len(phrase) > 1 for phrase in phrases)
            self._hung = (batch, continuations_of([phrases] * len(batch.examples)) if several else None)
        return self._hung[1]

    def targets(self, batch: Batch) -> list[Tokens]:
        """Return the tokens of each example's target, as the continuation of its cue.

        Raises:
            TaskError: one melts into the cue, or has no tokens; names the example.
            ModelError: the model is a masked one.
        """
        self.require_generates(batch)
        return [self._continuation(e.cue, e.target, f"the target of example {e.name}") for e in batch.examples]

    def require_generates(self, batch: Batch) -> None:
        """Check that a masked model is asked for neither targets nor texts.

        Raises:
            ModelError: it is.
        """
        if self.masked:
            require_scores(batch, "a masked model fills in one mask and continues no text")

    def trees(self, batch: Batch) -> tuple[Tree, ...]:
        """Return the tree behind each row of a batch; nothing where there is none."""
        hung = self.continuations(batch)
        return () if hung is None else hung.trees

    def label_ids(self, batch: Batch) -> Tokens:
        """Return the token at the row's end by which each label word is scored, in label order; none of them where
        some have more tokens.

        Raises:
            TaskError: as of ``phrases``.
        """
        phrases = self.phrases(batch)
        return tuple(phrase[0] for phrase in phrases) if all(len(phrase) == 1 for phrase in phrases) else ()

    def answer_ids(self, batch: Batch) -> tuple[int, ...]:
        """Return the token ids of the label words (see ``label_ids``), and of the batch's answer words behind them.

        Raises:
            TaskError: as of ``label_ids``, or an answer word is no single token of its own.
        """
        ids = list(self.label_ids(batch))
        known = self._single(batch)
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
        known = self._single(batch)
        for word in words:
            token = self.answer_token(batch, word)
            if token is not None and token not in known:
                known.add(token)
                yield word

    def _single(self, batch: Batch) -> set[int]:
        """Return the tokens of those label words that are one token, which no answer word may be."""
        return {phrase[0] for phrase in self.phrases(batch) if len(phrase) == 1}

    def answer_token(self, batch: Batch, word: str) -> int | None:
        """Return the token of a word at a batch's answer position; None where it is not one token."""
        if self.masked:
            piece = self.ids(word, False)
        else:
            cue = batch.examples[0].cue if batch.examples else ""
            context, both = self.ids(cue, False), self.ids(cue + word, False)
            piece = both[len(context) :] if both[: len(context)] == context else ()
        return piece[0] if len(piece) == 1 else None

    def _continuation(self, cue: str, word: str, what: str = "a label word") -> tuple[int, ...]:
        context = self.ids(cue, False)
        both = self.ids(cue + word, False)
        if both[: len(context)] == context and len(both) > len(context):
            return both[len(context) :]
        hint = "start it with a space" if not word.startswith(" ") else "end the template's cue with a whole word"
        raise TaskError(
            f"{what} must begin a token of its own after {cue!r}, but {_short(word)!r} melts into it"
            f" ({self._tokenizer.convert_ids_to_tokens(list(both))}); {hint}"
        )


def _short(text: str) -> str:
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."
