"""Templates: how the columns of a row become the text that a model reads around the label word.

Owns parsing, rendering and the rule for spaces. Which columns there are is the caller's to say.

The rule: spaces directly before ``{label_word}`` belong to the label word, because the tokenizers of most language
models attach a space to the word that follows it. ``"It was {label_word}"`` with ``great`` and ``"It was{label_word}"``
with ``" great"`` are the same task; its label word is ``" great"`` and its cue ``" It was"``. Newlines stay in the cue.
So it is with ``{target}``, which stands for the answer of tasks with targets.
"""

import logging
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TypeAlias

from distributed_tuner.config.task import ModelFamily
from distributed_tuner.errors import TaskError

LABEL_WORD, TARGET = "label_word", "target"  # what stands for the answer
Piece: TypeAlias = tuple[str, str | None]  # literal text, then the column that follows it

_LISTED, _LONG = 12, 60
log = logging.getLogger(__name__)


def nearest(name: str, known: Sequence[str]) -> str:
    """Return the known names as the end of a message, the likeliest one first where there is one."""
    close = get_close_matches(name, known, n=1, cutoff=0.6)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}Known: {listed(known)}"


def listed(names: Sequence[str]) -> str:
    """Return names for a message, which stays a line however many and long they are."""
    more = f", and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(repr(name if len(name) <= _LONG else name[:_LONG] + "...") for name in names[:_LISTED]) + more


@dataclass(frozen=True, slots=True)
class Rendered:
    """One row in words: ``text`` up to the last column before the label word, ``cue`` up to it, ``tail`` after it."""

    text: str
    cue: str
    tail: str


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template; make it with ``Template.parse``."""

    source: str
    before: tuple[Piece, ...]
    cue: str
    after: tuple[Piece, ...]
    space: bool
    answer: str = LABEL_WORD

    @classmethod
    def parse(cls, source: str, family: ModelFamily = "causal", answer: str = LABEL_WORD) -> "Template":
        """Parse ``source``. Braces that are meant literally are doubled, as in ``str.format``. ``answer``: the name
        that stands for the answer.

        Raises TaskError where braces do not match, where there is no column or not exactly one ``{label_word}``,
        and where a causal model would have to read on after its answer.
        """
        pieces = _pieces(source)
        columns = [column for _, column in pieces if column is not None]
        if columns.count(answer) != 1:
            raise _bad(source, f"needs exactly one {{{answer}}}, got {columns.count(answer)}")
        if len(columns) == 1:
            raise _bad(source, f"needs at least one column in braces besides {{{answer}}}, such as {{text}}")
        at = next(i for i, (_, column) in enumerate(pieces) if column == answer)
        cue, after = pieces[at][0], tuple(pieces[at + 1 :])
        if family == "causal":
            if any(column is not None or literal.strip() for literal, column in after):
                raise _bad(
                    source, f"must end with {{{answer}}} for a causal model; use model_family: masked, or reorder"
                )
            after = ()
        stripped = cue.rstrip(" ")
        return cls(source, tuple(pieces[:at]), stripped, after, stripped != cue, answer)

    def other(self, source: str, family: ModelFamily = "causal") -> "Template":
        """Parse another template for the same rows: a whole one, or one without columns, which is what stands between
        the text and the label word: another cue. A cue ends with the white space of this template's own.

        Raises TaskError as ``parse``.
        """
        pieces = _pieces(source)
        if [column for _, column in pieces if column is not None] != [self.answer]:
            return Template.parse(source, family, self.answer)
        own = self.cue + " " * self.space
        cue = pieces[0][0]
        if cue == cue.rstrip():
            cue += own[len(own.rstrip()) :]
        after = pieces[1:] or self.after
        return Template.parse(_source([*self.before, (cue, self.answer), *after]), family, self.answer)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the template reads, in order, without repeats."""
        return tuple(dict.fromkeys(c for _, c in (*self.before, *self.after) if c is not None))

    def check_columns(self, known: Sequence[str], where: str) -> None:
        """Raise TaskError for the first column that is not in ``known``, naming the nearest that is."""
        for column in self.columns:
            if column not in known:
                raise _bad(self.source, f"names {{{column}}}, which is no column of {where}: {nearest(column, known)}")

    def label_words(self, words: Sequence[str]) -> tuple[str, ...]:
        """Return ``words`` as they continue the text, with the template's space where they have none of their own.

        Raises TaskError where a word is empty or two are the same.
        """
        final = tuple(" " + word if self.space and not word[:1].isspace() else word for word in words)
        blank = [word for word in words if not word.strip()]
        if blank or len(set(final)) < len(final):
            raise TaskError(f"label words must be different and not empty, got {list(words)}: change label_words")
        joined = [word for word in final if self.cue[-1:].isalpha() and word[:1].isalpha()]
        if joined:
            log.warning(
                "label word %r runs on from %r without a space: write ' %s' or '%s {label_word}' if that is not meant",
                joined[0], self.cue, joined[0], self.cue,
            )  # fmt: skip
        return final

    def target(self, text: str) -> str:
        """Return a target as it continues the text, with the template's space in front of it."""
        return " " + text if self.space else text

    def render(self, row: Mapping[str, str]) -> Rendered:
        """Fill in the columns of ``row``."""
        return Rendered(_fill(self.before, row), self.cue, _fill(self.after, row))


def _pieces(source: str) -> list[Piece]:
    """Split into (literal, column) pairs; literal runs that the parser cuts at doubled braces are joined again."""
    pieces: list[Piece] = []
    literal = ""
    try:
        for text, column, spec, conversion in string.Formatter().parse(source):
            literal += text
            if column is None:
                continue
            if not column or spec or conversion:
                raise ValueError("braces must hold a plain column name")
            pieces.append((literal, column))
            literal = ""
    except ValueError as error:
        raise _bad(source, f"cannot be read ({error}); double the braces that are meant literally") from error
    if literal:
        pieces.append((literal, None))
    return pieces


def _source(pieces: Sequence[Piece]) -> str:
    """Return what ``_pieces`` was given."""
    doubled = str.maketrans({"{": "{{", "}": "}}"})
    return "".join(
        literal.translate(doubled) + (f"{{{column}}}" if column is not None else "") for literal, column in pieces
    )


def _fill(pieces: Sequence[Piece], row: Mapping[str, str]) -> str:
    return "".join(literal + (row[column] if column is not None else "") for literal, column in pieces)


def _bad(source: str, what: str) -> TaskError:
    return TaskError(f"the template {source!r} {what}")
