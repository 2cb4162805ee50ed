"""Scores of label words and answer words from a server's reply. Plain JSON in, numbers out."""

import math
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from distributed_tuner.clients.openai_answers import Unusable
from distributed_tuner.values import Array

GENERATED = "set {part}.scores: generated and task.loss: zero_one"
ROUNDED_ZERO = 0.01  # the largest logarithm of a probability
LOWEST = -9999.0  # what servers write for a logarithmic probability of minus infinity
MOST_TOGETHER = 1.5  # of the probabilities of different tokens: far above what rounding makes of one
LEAST_REST = 1e-6  # of the probability that answers leave over: below it is their rounding
BY_ID = "token_id:{}"  # how vLLM names a token with ``return_tokens_as_token_ids``


@dataclass(frozen=True, slots=True)
class Scored:
    """One example's scores of label words and answer words, shape (V,), and what is to be counted about them.

    ``sample``: the beginning of the answer, if it had no label word.
    """

    scores: Array
    counts: Mapping[str, int] = field(default_factory=dict)
    sample: str = ""


def failed(words: int, **counts: int) -> Scored:
    """Return the scores of an example that has none: NaN, so that its loss is a failed one."""
    return Scored(np.full(words, np.nan, dtype=np.float32), counts)


def refused(words: int) -> Scored:
    """Return the scores of an example that the server does not take."""
    return Scored(nothing_of(words), {"refused_examples": 1})


def nothing_of(words: int) -> Array:
    """Return the scores of an example that is wrong whatever the truth: minus infinity, of every word."""
    return np.full(words, -np.inf, dtype=np.float32)


# ------------------------------------------------------------------------------------------------------- the answer
def top_logprobs(choice: Mapping[str, Any]) -> dict[str, float]:
    """Return the logarithmic probabilities of the tokens that an answer may begin with, as completions or chats tell.

    Raises:
        Unusable: the answer has none, or some that cannot be.
    """
    told = choice.get("logprobs")
    told = told if isinstance(told, dict) else {}
    found: dict[str, float] = {}
    for token, value in (*_of_chat(told.get("content")), *_of_completion(told)):
        logprob = number(value)
        if isinstance(token, str) and logprob is not None:
            found[token] = max(logprob, found.get(token, LOWEST))
    if not found:
        raise Unusable(
            "holds no logprobs",
            advice=f"this server tells no probabilities: {GENERATED}",
        )
    if (together := sum(math.exp(value) for value in found.values())) > MOST_TOGETHER:
        raise Unusable(
            f"lists {len(found)} tokens whose probabilities add up to {together:.3g}",
            advice=f"what this server tells are no probabilities: {GENERATED}",
        )
    return found


def bound_of(top: Mapping[str, float]) -> float:
    """Return what the logarithmic probability of a token that was not returned cannot exceed.

    That is the smallest of those that were, if these are the likeliest; and the logarithm of what all of them leave
    over, also if a server lists only the written token.
    """
    rest = 1.0 - sum(math.exp(value) for value in top.values())
    return min(*top.values(), math.log(max(rest, LEAST_REST)))


def _of_chat(content: Any) -> Iterator[tuple[Any, Any]]:
    first = _first(content)
    if isinstance(first, dict):
        others = first.get("top_logprobs")
        for entry in (first, *(others if isinstance(others, list) else ())):
            if isinstance(entry, dict):
                yield entry.get("token"), entry.get("logprob")


def _of_completion(told: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
    top, tokens, values = (_first(told.get(name)) for name in ("top_logprobs", "tokens", "token_logprobs"))
    if isinstance(top, dict):
        yield from top.items()
    yield tokens, values  # the written token, which may be no one of the others


def _first(items: Any) -> Any:
    return items[0] if isinstance(items, list) and items else None


def number(value: Any) -> float | None:
    """Return a logarithm of a probability; None if there is none.

    Raises:
        Unusable: it is something else.
    """
    if value is None:
        return None
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if math.isnan(number) or number > ROUNDED_ZERO:
        raise Unusable(
            f"tells a logprob that is no logarithm of a probability ({reprlib.repr(value)})",
            advice=f"what this server tells are no probabilities: {GENERATED}",
        )
    return max(number, LOWEST)


# ------------------------------------------------------------------------------------------------------- the labels
@dataclass(frozen=True, slots=True)
class LabelTokens:
    """Tokens of the label words, in label order, and of further answer words.

    ``ids`` and ``texts`` where a tokenizer knows them: each label's token, and how servers may write it, best first.
    Without, tokens are matched with the words: the word itself, the word without spaces, and then the longest token
    that begins this word and no other. ``others``: the tokens of each answer word, in the same way; without a
    tokenizer they are taken as tokens.
    """

    words: tuple[str, ...]
    ids: tuple[int, ...] | None = None
    texts: tuple[tuple[str, ...], ...] | None = None
    others: tuple[tuple[str, ...], ...] = ()
    other_ids: tuple[int, ...] = ()

    @property
    def count(self) -> int:
        """Number of words with scores."""
        return len(self.words) + len(self.others)

    def scores(self, top: Mapping[str, float], asked: int = 1) -> Scored:
        """Return each word's logarithmic probability. ``asked``: how many tokens' were asked for.

        A word whose token is not among the returned ones gets the bound that its own cannot exceed; a label counts
        among ``absent_labels`` then, and the answer among ``short_answers`` where it listed fewer tokens than asked.
        Where all labels are absent the answer tells nothing of them: one of ``absent_examples``.
        """
        found = [self._find(label, top) for label in range(len(self.words))]
        absent, counts, sample = found.count(None), {}, ""
        if absent:
            counts["absent_labels"] = absent
            if len(top) < asked:
                counts["short_answers"] = 1
        if absent == len(found):
            counts = {**counts, "absent_labels": 0, "absent_examples": 1}
            sample = max(top, key=lambda token: top[token])
            if not self.others:
                told = {name: number for name, number in counts.items() if number}
                return Scored(nothing_of(self.count), told, sample)
        found += [next((top[name] for name in names if name in top), None) for names in self.others]
        bound = bound_of(top) if None in found else 0.0
        scores = np.array([bound if value is None else value for value in found], dtype=np.float32)
        return Scored(scores, {name: number for name, number in counts.items() if number}, sample)

    def beside(self, top: Mapping[str, float]) -> dict[str, float]:
        """Return the probabilities of the returned tokens that stand for no label word."""
        labels = range(len(self.words))
        return {
            token: math.exp(value)
            for token, value in top.items()
            if not any(self._stands_for(label, token) for label in labels)
        }

    def _stands_for(self, label: int, token: str) -> bool:
        if self.texts is not None and self.ids is not None:
            return token == BY_ID.format(self.ids[label]) or token in self.texts[label]
        return token.strip() == self.words[label].strip()

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
