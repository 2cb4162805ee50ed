"""Generated answers in the report: those of the manual prompt and of the best tuned one side by side. No HTML here.

Inputs and answers are text that others wrote: cut here, and escaped where they are shown.
"""

from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any, Literal, NamedTuple, TypeAlias

from distributed_tuner.ledger.digest import Digest
from distributed_tuner.ledger.rows import GeneratedText, MeasureRow
from distributed_tuner.report import formatting

SHOWN = 12
"""Test examples that the page shows."""
_INPUT, _ANSWER = 500, 300  # characters

Mark: TypeAlias = Literal["same", "wrong", "missing"]


class Piece(NamedTuple):
    """Words of an answer next to each other: those of the target, others ("wrong"), or the target's that it lacks."""

    text: str
    mark: Mark


class Answered(NamedTuple):
    """One prompt's answer. ``pieces``: the answer against the target; none of an empty one, None if the example
    failed."""

    pieces: tuple[Piece, ...] | None
    right: bool


class AnswerLine(NamedTuple):
    """One test example: its text, both answers, and the text that was wanted."""

    input: str
    before: Answered
    after: Answered
    target: str


class Answers(NamedTuple):
    """All that the section says. ``lines`` are ``SHOWN`` of ``rows`` test examples, changed answers first.

    Right is an answer that equals its target. ``mended``: wrong with the manual prompt, right with the tuned one;
    ``spoiled`` the reverse.
    """

    lines: tuple[AnswerLine, ...]
    rows: int
    changed: int
    before_right: int
    after_right: int
    mended: int
    spoiled: int
    trial_id: str


def answers(digest: Digest, summary: Mapping[str, Any]) -> Answers | None:
    """Return the answers of the manual prompt and of the best trial's; None where the ledger has not both."""
    best = summary["best"].get("tuned") or summary["best"]
    tested = [row for row in digest.measures if row.split == "test" and row.texts]
    after = next((row for row in tested if row.what == "selected" and row.trial_id == best["trial_id"]), None)
    if after is None:
        return None
    before = next((row for row in tested if row.what == "manual_prompt" and row.split_seed == after.split_seed), None)
    if before is None:
        return None
    pairs = paired(before, after)
    changed = [pair for pair in pairs if _bare(pair[0].text) != _bare(pair[1].text)]
    same = [pair for pair in pairs if _bare(pair[0].text) == _bare(pair[1].text)]
    right = [(is_right(one.text, one.target), is_right(other.text, one.target)) for one, other in pairs]
    return Answers(
        lines=tuple(_line(*pair) for pair in [*changed, *same][:SHOWN]),
        rows=len(pairs),
        changed=len(changed),
        before_right=sum(one for one, _ in right),
        after_right=sum(other for _, other in right),
        mended=right.count((False, True)),
        spoiled=right.count((True, False)),
        trial_id=after.trial_id or "",
    )


def paired(before: MeasureRow, after: MeasureRow) -> list[tuple[GeneratedText, GeneratedText]]:
    """Return both answers to each test example that the two rows have, in the order of the test set."""
    answered = {one.uid: one for one in after.texts}
    return [(one, answered[one.uid]) for one in before.texts if one.uid in answered]


def is_right(text: str | None, target: str) -> bool:
    """Return whether an answer is its target, spaces around them aside."""
    return text is not None and _bare(text) == _bare(target)


def marked(text: str, target: str) -> tuple[Piece, ...]:
    """Return an answer word by word against its target, with the words that it lacks where they belong.

    An answer that shares no word with its target is wrong as a whole.
    """
    ours, wanted = text.split(), target.split()
    pieces: list[Piece] = []
    for kind, a, b, c, d in SequenceMatcher(None, ours, wanted, autojunk=False).get_opcodes():
        if kind == "equal":
            pieces += _piece(ours[a:b], "same")
        else:
            pieces += [*_piece(ours[a:b], "wrong"), *_piece(wanted[c:d], "missing")]
    shares = any(piece.mark == "same" for piece in pieces)
    return tuple(piece for piece in pieces if shares or piece.mark != "missing")


def _piece(words: Sequence[str], mark: Mark) -> list[Piece]:
    return [Piece(" ".join(words), mark)] if words else []


def _line(before: GeneratedText, after: GeneratedText) -> AnswerLine:
    target = formatting.one_line(before.target, _ANSWER)
    return AnswerLine(
        formatting.one_line(before.input, _INPUT),
        _answered(before.text, before.target),
        _answered(after.text, before.target),
        target,
    )


def _answered(text: str | None, target: str) -> Answered:
    if text is None:
        return Answered(None, False)
    shown, wanted = formatting.one_line(text, _ANSWER), formatting.one_line(target, _ANSWER)
    return Answered(marked(shown, wanted) if shown else (), is_right(text, target))


def _bare(text: str | None) -> str | None:
    return None if text is None else text.strip()
