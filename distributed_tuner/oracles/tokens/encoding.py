"""Encoding of examples and prompts as token ids: layouts, lengths, costs. Needs a tokenizer, no weights.

Owned here is the one rule of how a candidate and an example become a sequence; the oracle only computes it. For a
causal model, which answers at the end of the cue:

- prefix layout: [soft rows][text + cue], text and cue encoded as one string with the tokenizer's special tokens, as
  PEFT's prompt tuning does;
- suffix layout: [text][soft rows][cue], text with special tokens, cue without;
- add layout: [special tokens, filler][text + cue], the soft rows added to the first L of these tokens, as the code of
  ZOT and BBT does;
- text candidates: [special tokens, prompt, newline][text + cue].

Behind that stand the tokens of label phrases (continuations.py).

A masked model answers at its mask, which stands for the label word, and reads on to the template's end. Special tokens
enclose the whole: [special][soft rows or filler][text, cue, mask, tail][special]. There is no suffix layout.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from distributed_tuner.errors import ModelError, TaskError
from distributed_tuner.oracles.base import GRADIENT_QUERIES, counted
from distributed_tuner.oracles.decoding import most_output
from distributed_tuner.oracles.tokens.answer_encoding import AnswerEncoder, Tokenizer
from distributed_tuner.oracles.tokens.continuations import Tree
from distributed_tuner.values import Batch, Cost, Example, Layout, PromptSpec, Request, Text

TEXT_SEPARATOR = "\n"


@dataclass(frozen=True, slots=True)
class MaskedLine:
    """A whole example for a masked model: its ``ids``, where a prompt goes in, and where the answer is read."""

    ids: tuple[int, ...]
    start: int
    mask: int


class Encoder(AnswerEncoder):
    """Token ids of examples, cues and prompts, and of the answers behind them; lengths and costs of rows.

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
        super().__init__(tokenizer, masked, rows)
        self.context = context
        self.reach = context if reach is None else reach

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
        self.require_generates(batch)
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

    def lengths(self, batch: Batch, layout: Layout) -> list[int]:
        """Return each example's tokens without the prompt rows, in a layout: cue and special tokens included, and what
        stands behind the row."""
        rows = self.rows_alone(batch, layout)
        return [row + len(tree.tokens) for row, tree in zip(rows, self._hanging(batch), strict=True)]

    def spans(self, batch: Batch, layout: Layout) -> list[int]:
        """Return the positions that each example takes without the prompt rows, in a layout.

        They are fewer than its tokens where several continuations stand at the same positions behind the row.
        """
        rows = self.rows_alone(batch, layout)
        return [row + tree.depth for row, tree in zip(rows, self._hanging(batch), strict=True)]

    def rows_alone(self, batch: Batch, layout: Layout) -> list[int]:
        """Return each example's tokens without the prompt rows and without what stands behind the row."""
        if self.masked:
            return [len(self.line_masked(example, batch).ids) for example in batch.examples]
        match layout:
            case "prefix":
                return [len(self.line(example, True)) for example in batch.examples]
            case "suffix":
                return [len(self.ids(e.text, True)) + len(self.ids(e.cue, False)) for e in batch.examples]
            case "add":
                return [len(self.specials()) + len(self.line(example, False)) for example in batch.examples]

    def _hanging(self, batch: Batch) -> Sequence[Tree]:
        return self.trees(batch) or [Tree()] * len(batch.examples)

    def choose_layout(self, batch: Batch, length: int) -> Layout:
        """Return the layout that computes fewer tokens a candidate: L + sum of texts, or (L + cue) a row.

        A masked model reads both ways, so that nothing of a text can be computed before the prompt is known: prefix.
        """
        if self.masked:
            return "prefix"
        prefix = self._computed(batch, length, "prefix")
        return "prefix" if prefix <= self._computed(batch, length, "suffix") else "suffix"

    def _computed(self, batch: Batch, length: int, layout: Layout) -> int:
        rows = [length + n for n in self.rows_alone(batch, layout)]
        if self.masked:
            return sum(rows)
        if layout == "suffix":
            own = [length + len(self.ids(example.cue, False)) for example in batch.examples]
            return self._sharing(batch, rows, own)
        shared = length + (len(self.specials()) if layout == "add" else 0)
        return self._sharing(batch, rows, [row - shared for row in rows], shared)

    def _sharing(self, batch: Batch, rows: list[int], own: list[int], once: int = 0) -> int:
        """Return the computed tokens of rows, of which so many are each one's own and ``once`` are computed once.

        Rows beyond the reach share nothing, and are computed once for each path behind them.
        """
        total, sharing = 0, False
        for row, mine, tree in zip(rows, own, self._hanging(batch), strict=True):
            if row + tree.depth <= self.reach:
                total, sharing = total + mine + len(tree.tokens), True
            else:
                total += sum(row + len(path) for path in tree.paths)
        return total + (once if sharing else 0)

    def text_lengths(self, batch: Batch, prompt: str) -> list[int]:
        """Return the tokens of each example with a text prompt, and of what stands behind the row."""
        rows = self._textrows_alone(batch, prompt)
        return [row + len(tree.tokens) for row, tree in zip(rows, self._hanging(batch), strict=True)]

    def text_spans(self, batch: Batch, prompt: str) -> list[int]:
        """Return the positions that each example takes with a text prompt."""
        rows = self._textrows_alone(batch, prompt)
        return [row + tree.depth for row, tree in zip(rows, self._hanging(batch), strict=True)]

    def _textrows_alone(self, batch: Batch, prompt: str) -> list[int]:
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
                rows = self._textrows_alone(batch, candidate.text)
                total += self._sharing(batch, rows, [row - shared for row in rows], shared)
            else:
                total += self._computed(batch, spec.length, spec.layout)
        return total * (GRADIENT_QUERIES if request.gradient else 1) + most_output(request)

    def cost(self, request: Request) -> Cost:
        """Return queries, forwards and tokens of a request. Tokens: prompt and text of every forward, and the most
        that may be generated."""
        batch = request.batch
        self.require_generates(batch)
        rows = len(batch.examples)
        soft = sum(self.lengths(batch, request.prompt.layout)) + rows * request.prompt.length
        tokens = 0
        for candidate in request.candidates:
            tokens += sum(self.text_lengths(batch, candidate.text)) if isinstance(candidate, Text) else soft
        return counted(request, tokens, most_output(request))

    def require_words(self, batch: Batch) -> None:
        """Check that every example has a token of its own to answer at; a masked model always has its mask.

        Raises:
            TaskError: text and cue of an example are empty.
        """
        self.require_generates(batch)
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
        self._require_room(batch, self.spans(batch, prompt.layout), prompt.length)

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
        longest = max(self.text_spans(batch, prompt), default=0)
        output = _new_tokens(batch)
        if longest + output > self.context:
            raise ModelError(
                f"prompt and text must fit into the model's context of {self.context} tokens, but the text"
                f" prompt {prompt[:40]!r}... with the longest example makes {longest}{_answered(output)}; use fewer"
                f" words (prompt.length where a search writes them, prompt.text, task.manual_prompt){_fewer(output)}"
            )

    def _require_room(self, batch: Batch, lengths: list[int], rows: int) -> None:
        longest = max(range(len(lengths)), key=lengths.__getitem__)
        total, output = rows + lengths[longest], _new_tokens(batch)
        if total + output > self.context:
            behind = " with its target" if batch.question == "targets" else ""
            raise ModelError(
                f"prompt and text must fit into the model's context of {self.context} tokens, but {rows} prompt rows"
                f" and {lengths[longest]} tokens of example {batch.examples[longest].uid!r}{behind} make {total}"
                f"{_answered(output)}; shorten prompt.length, or drop the long rows from the data{_fewer(output)}"
            )


def _new_tokens(batch: Batch) -> int:
    """Return the most tokens that an answer may have."""
    return batch.decoding.max_new_tokens if batch.decoding is not None and batch.question == "texts" else 0


def _answered(output: int) -> str:
    return f" and its answer up to {output} more" if output else ""


def _fewer(output: int) -> str:
    return ", or lower max_new_tokens" if output else ""


@contextmanager
def _named(example: Example) -> Iterator[None]:
    """Say of which example what is refused is."""
    try:
        yield
    except ModelError as error:
        raise ModelError(f"example {example.name}: {error}") from error
