"""From a server's answer to the label words' scores, and what it says that it billed. Plain JSON in, numbers out.

Servers' answers are not validated by anybody else, so that whatever has not the expected shape is ``Unusable``.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from distributed_tuner.openai_client import tokens_told
from distributed_tuner.values import Array

LOWEST = -9999.0  # what servers write for a logarithmic probability of minus infinity
BY_ID = "token_id:{}"  # how vLLM names a token with ``return_tokens_as_token_ids``


class Unusable(Exception):
    """An answer came, but nothing can be read from it. ``again``: another attempt may do better."""

    def __init__(self, reason: str, again: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.again = again


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that a server billed: read, found in its own cache among those, and written."""

    read: int = 0
    cached: int = 0
    written: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(self.read + other.read, self.cached + other.cached, self.written + other.written)


@dataclass(frozen=True, slots=True)
class Scored:
    """One example's label scores, shape (W,), and what is to be counted about them."""

    scores: Array
    counts: Mapping[str, int] = field(default_factory=dict)


def failed(labels: int, **counts: int) -> Scored:
    """Return the scores of an example that has none: NaN, so that its loss is a failed one."""
    return Scored(np.full(labels, np.nan, dtype=np.float32), counts)


# ------------------------------------------------------------------------------------------------------- the answer
def parsed(body: bytes) -> dict[str, Any]:
    """Return the JSON object of an answer.

    Raises:
        Unusable: it is none.
    """
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise Unusable("is no JSON object", again=True)
    return answer


def first_choice(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the first choice.

    Raises:
        Unusable: there is none.
    """
    choices = answer.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict):
        raise Unusable("holds no choice", again=True)
    return choice


def usage_of(answer: Mapping[str, Any]) -> Usage | None:
    """Return what the server billed; None where it does not tell how much it read."""
    told = answer.get("usage")
    if not isinstance(told, dict):
        return None
    read = tokens_told(told.get("prompt_tokens"))
    details = told.get("prompt_tokens_details")
    cached = tokens_told(details.get("cached_tokens")) if isinstance(details, dict) else 0
    return Usage(read, min(cached, read), tokens_told(told.get("completion_tokens"))) if read else None


def top_logprobs(choice: Mapping[str, Any]) -> dict[str, float]:
    """Return the logarithmic probabilities of the tokens that an answer may begin with, as completions or chats tell.

    Raises:
        Unusable: the answer has none.
    """
    told = choice.get("logprobs")
    told = told if isinstance(told, dict) else {}
    found: dict[str, float] = {}
    for token, value in (*_of_chat(told.get("content")), *_of_completion(told.get("top_logprobs"))):
        logprob = _number(value)
        if isinstance(token, str) and logprob is not None:
            found[token] = max(logprob, found.get(token, LOWEST))
    if not found:
        raise Unusable("holds no logprobs")
    return found


def _of_chat(content: Any) -> Iterator[tuple[Any, Any]]:
    first = content[0] if isinstance(content, list) and content else None
    if isinstance(first, dict):
        others = first.get("top_logprobs")
        for entry in (first, *(others if isinstance(others, list) else ())):
            if isinstance(entry, dict):
                yield entry.get("token"), entry.get("logprob")


def _of_completion(top: Any) -> Iterator[tuple[Any, Any]]:
    first = top[0] if isinstance(top, list) and top else None
    if isinstance(first, dict):
        yield from first.items()


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return None if math.isnan(number) or number > 0.01 else max(number, LOWEST)  # 0.01: a rounded 0


def written(choice: Mapping[str, Any]) -> str:
    """Return the text of a choice; empty where the model wrote none.

    Raises:
        Unusable: the choice has no place for a text.
    """
    message = choice.get("message")
    holder, name = (message, "content") if isinstance(message, dict) else (choice, "text")
    if name not in holder:
        raise Unusable("holds no text")
    text = holder[name]
    return text if isinstance(text, str) else ""


# ------------------------------------------------------------------------------------------------------- the labels
@dataclass(frozen=True, slots=True)
class LabelTokens:
    """The tokens that stand for the label words, in label order.

    ``ids`` and ``texts`` where a tokenizer knows them: each label's token, and how servers may write it, best first.
    Without, tokens are matched with the words: the word itself, the word but for spaces, and then the longest token
    that begins this word and no other.
    """

    words: tuple[str, ...]
    ids: tuple[int, ...] | None = None
    texts: tuple[tuple[str, ...], ...] | None = None

    def scores(self, top: Mapping[str, float]) -> Scored:
        """Return each label's logarithmic probability.

        A label whose token is not among the returned ones gets the smallest of theirs, which its own cannot exceed, and
        counts among ``absent_labels``. Where all are absent nothing is known: NaN, one of ``absent_examples``.
        """
        found = [self._find(label, top) for label in range(len(self.words))]
        absent = found.count(None)
        if absent == len(found):
            return failed(len(found), absent_examples=1)
        bound = min(top.values())
        scores = np.array([bound if value is None else value for value in found], dtype=np.float32)
        return Scored(scores, {"absent_labels": absent} if absent else {})

    def _find(self, label: int, top: Mapping[str, float]) -> float | None:
        if self.texts is not None and self.ids is not None:
            names = (BY_ID.format(self.ids[label]), *self.texts[label])
            return next((top[name] for name in names if name in top), None)
        word = self.words[label]
        if word in top:
            return top[word]
        bare = word.strip()
        alike = [value for token, value in top.items() if token.strip() == bare]
        if alike:
            return max(alike)
        others = [other.strip() for i, other in enumerate(self.words) if i != label]
        beginnings = [token for token in top if _begins_only(token.strip(), bare, others)]
        longest = max((len(token.strip()) for token in beginnings), default=0)
        return max((top[token] for token in beginnings if len(token.strip()) == longest), default=None)


def _begins_only(token: str, word: str, others: Sequence[str]) -> bool:
    return bool(token) and word.startswith(token) and not any(other.startswith(token) for other in others)


def generated_scores(text: str, words: Sequence[str], label: int) -> Scored:
    """Return 1 for the label whose word a text begins with, in any case, the longest of several, and 0 for others.

    An answer that begins with no label word is a wrong one, whatever the truth: the true label alone gets -1, so that
    its loss zero_one is 1. It counts among ``unmatched_answers``.
    """
    said = text.strip().casefold()
    bare = [word.strip().casefold() for word in words]
    matching = [i for i, word in enumerate(bare) if said.startswith(word)]
    scores = np.zeros(len(words), dtype=np.float32)
    if matching:
        scores[max(matching, key=lambda i: len(bare[i]))] = 1.0
        return Scored(scores)
    scores[label] = -1.0
    return Scored(scores, {"unmatched_answers": 1})
