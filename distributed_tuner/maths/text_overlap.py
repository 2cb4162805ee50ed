"""Overlap of two texts: SQuAD's token F1 and ROUGE-L, as pure functions."""

import re
import string
from collections import Counter
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_WORD = re.compile(r"[^\W_]+")


def squad_tokens(text: str) -> list[str]:
    """Return the words of a text in lower case, without punctuation and articles (Rajpurkar et al. 2016, section 6)."""
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def token_f1(prediction: str, target: str) -> float:
    """Return the F1 of the words that two texts share, in [0, 1] (Rajpurkar et al. 2016, section 6.1).

    Where one has no words it is 1 if the other has none either.
    """
    ours, theirs = squad_tokens(prediction), squad_tokens(target)
    if not ours or not theirs:
        return float(ours == theirs)
    return _f1(sum((Counter(ours) & Counter(theirs)).values()), len(ours), len(theirs))


def rouge_l(prediction: str, target: str) -> float:
    """Return the F1 of the longest common subsequence of words, in [0, 1] (Lin 2004, equations 2 to 4 with beta 1).

    Words are in lower case and not stemmed.
    """
    ours, theirs = _WORD.findall(prediction.lower()), _WORD.findall(target.lower())
    return _f1(longest_common_subsequence(ours, theirs), len(ours), len(theirs))


def longest_common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """Return the length of the longest sequence that is a subsequence of both."""
    before = [0] * (len(b) + 1)
    for one in a:
        row = [0]
        for j, other in enumerate(b):
            row.append(before[j] + 1 if one == other else max(before[j + 1], row[j]))
        before = row
    return before[-1]


def _f1(shared: int, ours: int, theirs: int) -> float:
    return 2 * shared / (ours + theirs) if shared else 0.0
