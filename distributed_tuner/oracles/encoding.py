"""From examples and prompts to token ids: label words, layouts, lengths. Needs a tokenizer, no weights.

Owned here is the one rule of how a candidate and an example become a sequence; the oracle only computes it.

- prefix layout: [soft rows][text + cue], text and cue encoded as one string with the tokenizer's special tokens, as
  PEFT's prompt tuning does;
- suffix layout: [text][soft rows][cue], text with special tokens, cue without;
- text candidates: [special tokens, prompt, newline][text + cue].
"""

from typing import Any, Protocol

from distributed_tuner.errors import ModelError, TaskError
from distributed_tuner.values import Batch, Cost, Example, Layout, PromptSpec, Request, Text

TEXT_SEPARATOR = "\n"


class Tokenizer(Protocol):
    """What is used of a transformers tokenizer."""

    def __call__(self, text: str, add_special_tokens: bool = True) -> Any: ...

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]: ...


class Encoder:
    """Token ids of examples, cues, texts and label words; results are kept, since tasks are small and asked often."""

    def __init__(self, tokenizer: Tokenizer, context: int) -> None:
        self.context = context
        self._tokenizer = tokenizer
        self._ids: dict[tuple[str, bool], tuple[int, ...]] = {}

    def ids(self, text: str, special: bool) -> tuple[int, ...]:
        """Return the token ids of ``text``, with or without the tokenizer's special tokens."""
        key = (text, special)
        if key not in self._ids:
            self._ids[key] = (
                tuple(self._tokenizer(text, add_special_tokens=special)["input_ids"]) if text or special else ()
            )
        return self._ids[key]

    def line(self, example: Example, special: bool) -> tuple[int, ...]:
        """Return the ids of text and cue in one."""
        return self.ids(example.text + example.cue, special)

    def prompt(self, text: str) -> tuple[int, ...]:
        """Return the ids of a text candidate as it stands before the example: special tokens, prompt, newline."""
        return self.ids(text + TEXT_SEPARATOR if text else "", True)

    def label_ids(self, batch: Batch) -> tuple[int, ...]:
        """Return the token id of each label word, in label order.

        A word is encoded as the continuation of the cue, so that the space before it counts. Rule "single": it must be
        one token; "first": its first token stands for it.

        Raises:
            TaskError: a word is no single token under "single", two words share a token, a word melts into the cue, or
                the template goes on after the label word.
        """
        if any(example.tail for example in batch.examples):
            after = next(example.tail for example in batch.examples if example.tail)
            raise TaskError(
                f"a causal model reads nothing after the label word, but the template goes on with {after!r}; end it"
                " with {label_word}, or leave out task.model_family: masked"
            )
        cue = batch.examples[0].cue if batch.examples else ""
        pieces = [self._continuation(cue, word) for word in batch.label_words]
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
        """Return the text tokens of each example, cue included, as the layout encodes them."""
        if layout == "prefix":
            return [len(self.line(example, True)) for example in batch.examples]
        return [len(self.ids(e.text, True)) + len(self.ids(e.cue, False)) for e in batch.examples]

    def choose_layout(self, batch: Batch, length: int) -> Layout:
        """Return the layout that computes fewer tokens a candidate: L + sum of texts, or (L + cue) a row."""
        prefix = length + sum(self.lengths(batch, "prefix"))
        suffix = sum(length + len(self.ids(example.cue, False)) for example in batch.examples)
        return "prefix" if prefix <= suffix else "suffix"

    def computed_tokens(self, request: Request) -> int:
        """Return the tokens that go through the model: a prefix once a candidate, texts under "suffix" not at all."""
        examples, length = request.batch.examples, request.prompt.length
        total = 0
        for candidate in request.candidates:
            if isinstance(candidate, Text):
                total += len(self.prompt(candidate.text)) + sum(len(self.line(e, False)) for e in examples)
            elif request.prompt.layout == "prefix":
                total += length + sum(self.lengths(request.batch, "prefix"))
            else:
                total += sum(length + len(self.ids(e.cue, False)) for e in examples)
        return total

    def cost(self, request: Request) -> Cost:
        """Return queries, forwards and tokens of a request. Tokens: prompt and text of every forward."""
        rows = len(request.batch.examples)
        soft = sum(self.lengths(request.batch, request.prompt.layout)) + rows * request.prompt.length
        tokens = 0
        for candidate in request.candidates:
            if isinstance(candidate, Text):
                prompt = len(self.prompt(candidate.text))
                tokens += sum(prompt + len(self.line(example, False)) for example in request.batch.examples)
            else:
                tokens += soft
        return Cost(len(request.candidates), len(request.candidates) * rows, tokens)

    def require_words(self, batch: Batch) -> None:
        """Check that every example has a token of its own to answer at.

        Raises:
            TaskError: text and cue of an example are empty.
        """
        for example in batch.examples:
            if not self.line(example, False):
                raise TaskError(
                    f"an example must have text or a cue before the label word, but {example.uid!r} has neither; give"
                    " task.template words between its last column and {label_word}, or drop the blank rows"
                )

    def require_fit(self, batch: Batch, prompt: PromptSpec) -> None:
        """Check that no example is blank, and that prompt and text fit into the model's context.

        Raises:
            TaskError: an example has no tokens.
            ModelError: an example with the prompt is longer; names the longest.
        """
        self.require_words(batch)
        lengths = self.lengths(batch, prompt.layout)
        longest = max(range(len(lengths)), key=lengths.__getitem__)
        total = prompt.length + lengths[longest]
        if total > self.context:
            raise ModelError(
                f"prompt and text must fit into the model's context of {self.context} tokens, but {prompt.length}"
                f" prompt rows and {lengths[longest]} tokens of example {batch.examples[longest].uid!r} make {total};"
                " shorten prompt.length, or drop the long rows from the data"
            )
