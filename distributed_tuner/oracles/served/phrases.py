"""Log-probabilities of label phrases from a server that repeats its prompt (``echo``) with those of its tokens.

A phrase stands behind prompt, text and cue as one string, one request a phrase. Which tokens are the phrase's is found
by their text, since servers count characters differently. Plain JSON in, numbers out.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from distributed_tuner.clients.openai_answers import Unusable
from distributed_tuner.oracles.served.logprobs import number
from distributed_tuner.values import LabelRule

NO_ECHO = (
    "label words of several tokens need a server that repeats a prompt with its tokens' log-probabilities (echo with"
    " logprobs), which this one does not: set task.label_rule: first, or {part}.scores: generated and task.loss:"
    " zero_one, or take oracle.kind: transformers or vllm"
)
SPACES = str.maketrans({"\u2581": " ", "\u0120": " ", "\u010a": "\n"})  # how vocabularies write them
ECHO: dict[str, Any] = {"max_tokens": 1, "temperature": 0.0, "logprobs": 1, "echo": True}
"""The fields of a request: one token is written, since some servers take none for any number of them."""


def phrase_score(choice: Mapping[str, Any], line: str, phrase: str, rule: LabelRule) -> float:
    """Return the sum, or by the rule "mean" the mean, of the log-probabilities of a phrase's tokens behind a line.

    Raises:
        Unusable: the answer does not tell them, or a token holds the line's end and the phrase's beginning.
    """
    told = choice.get("logprobs")
    told = told if isinstance(told, dict) else {}
    tokens, values = told.get("tokens"), told.get("token_logprobs")
    if not (isinstance(tokens, list) and isinstance(values, list) and len(tokens) == len(values)):
        raise Unusable("holds no logprobs of the prompt", advice=NO_ECHO)
    texts = [token if isinstance(token, str) else "" for token in tokens]
    found = _span(texts, line, phrase, _written(choice, line + phrase))
    if found is None:
        raise Unusable("does not repeat the prompt in its logprobs", advice=NO_ECHO)
    begin, end = found
    ends = list(accumulate(map(len, texts)))
    starts = [until - len(text) for until, text in zip(ends, texts, strict=True)]
    own = [i for i in range(len(texts)) if starts[i] < end and ends[i] > begin]
    if not own or starts[own[0]] != begin:
        raise Unusable(
            "reads the beginning of a label word and the end of the text before it as one token",
            advice="begin the words of task.label_words with a space, or end the template's cue with a whole word",
        )
    each = [number(values[i]) for i in own]
    known = [value for value in each if value is not None]
    if len(known) < len(each):
        raise Unusable("holds no logprobs of some tokens of its prompt", advice=NO_ECHO)
    return sum(known) / (len(known) if rule == "mean" else 1)


def _written(choice: Mapping[str, Any], prompt: str) -> str | None:
    """Return what was written behind a repeated prompt; None where the text does not begin with it."""
    text = choice.get("text")
    return text[len(prompt) :] if isinstance(text, str) and text.startswith(prompt) else None


def _span(texts: Sequence[str], line: str, phrase: str, written: str | None) -> tuple[int, int] | None:
    """Return where the phrase begins and ends in the joined texts of all tokens; None where it is not there.

    Special tokens may stand before the line, and a character of the line may be parted, whose pieces are no text: then
    the phrase is looked for at the end, before what was written.
    """
    for joined in ("".join(texts), "".join(texts).translate(SPACES)):
        at = joined.find(line + phrase)
        if at >= 0:
            return at + len(line), at + len(line) + len(phrase)
        at = -1 if written is None else joined.rfind(phrase + written)
        if at >= 0:
            return at, at + len(phrase)
    return None
