"""Label named by an answer in words. No label where there is doubt.

The label's word must be what the answer says first: behind thoughts, markup, quotation marks, the cue once more, and a
few words that lead in to it ("Answer:", "the label is"). A word further inside may be denied, so it counts for nothing.
"""

import re
import unicodedata
from collections.abc import Sequence

import numpy as np

from distributed_tuner.clients.openai_answers import OUT_OF_TOKENS, Unusable
from distributed_tuner.oracles.served.logprobs import Scored, nothing_of

READ = 4000  # characters of an answer that are looked at
THOUGHTS = re.compile(r"\s*<(think|thinking|thought|reasoning)>.*?</\1>", re.DOTALL | re.IGNORECASE)
THINKING = re.compile(r"\s*<(think|thinking|thought|reasoning)>", re.IGNORECASE)
THOUGHT = re.compile(r"^.*</(think|thinking|thought|reasoning)>", re.DOTALL | re.IGNORECASE)  # begun in the template
CHANNELS = re.compile(r"^.*<\|channel\|>final(<\|message\|>)?", re.DOTALL)
MARKUP = re.compile(
    r"```\w*|\d{1,2}[.)]\s+|</?[a-z][\w-]*>|<\|[^|>]*\|>|\$?\\(?:boxed|text|textbf|mathrm|mathbf)\s*\{", re.IGNORECASE
)
AROUND = re.compile(
    r"[\s\"'`*_~#|(){}\[\]<>\\$.,;:!?=\u2013\u2014\u2022\u201c\u201d\u2018\u2019\u201e\u201a\u00ab\u00bb\u2039\u203a"
    r"\u300c\u300d\u300e\u300f\uff1a\u3010\u3011\ufeff\u200b-]+"
)
IS = r"(?:[:=\uff1a]|->|\u2192|\s[-\u2013\u2014]\s|\b(?:is|was)\b|\bit['\u2019]s\b)"
LEAD_IN = re.compile(rf"(?:[\w'\u2019]+\s+){{0,5}}?(?:[\w'\u2019]+[\s\"'`*_]*)?{IS}", re.IGNORECASE)
VERDICT = re.compile(
    r"\b(?:answer|label|sentiment|category|class|classification|topic|verdict|rating|prediction|conclusion)\b"
    rf"[^.\n]{{0,20}}?{IS}",
    re.IGNORECASE,
)
DENIED = re.compile(r"\b(?:not|no|never|neither|nor|cannot|without)\b|n['\u2019]t\b", re.IGNORECASE)
OR = re.compile(r"[\s\"'`*_]*(?:/|\||\bor\b|\band\b|\bvs\b\.?|,\s*or\b)", re.IGNORECASE)


def generated_scores(text: str, words: Sequence[str], cue: str = "", *, cut: bool = False) -> Scored:
    """Return 1 for the label whose word an answer names, in any case, and 0 for others.

    An answer that names no label, or leaves open which, is a wrong one, whatever the truth: all get minus infinity. It
    counts among ``unmatched_answers``. ``cue``: words in front of the answer, which it may repeat. ``cut``: the model
    had no tokens left.

    Raises:
        Unusable: all that there is of the answer are thoughts.
    """
    said = without_thoughts(text, cut)
    named = named_label(said, words, cue)
    if named is None:
        return Scored(nothing_of(len(words)), {"unmatched_answers": 1}, said.strip() or "(nothing)")
    scores = np.zeros(len(words), dtype=np.float32)
    scores[named] = 1.0
    return Scored(scores)


def named_label(said: str, words: Sequence[str], cue: str = "") -> int | None:
    """Return the label that an answer names; None where it names none, or several."""
    for start in _starts(said[:READ], cue):
        if (found := _label_at(start, words)) is not None:
            label, rest = found
            open_choice = OR.match(rest)
            if open_choice and any(_label_at(other, words) for other in _starts(rest[open_choice.end() :], "")):
                return None
            return label
    return None


def without_thoughts(text: str, cut: bool) -> str:
    """Return an answer without the thoughts before it. ``cut``: the model had no tokens left.

    Raises:
        Unusable: all that there is of it are thoughts.
    """
    said = THOUGHT.sub("", CHANNELS.sub("", THOUGHTS.sub("", text)))
    if THINKING.match(said) and cut:
        raise Unusable(f"{OUT_OF_TOKENS}, all of them thoughts")
    return said


def _starts(said: str, cue: str) -> list[str]:
    """Return where the label's word may begin: with the answer as it is, without what stands around it, and behind
    the cue, a lead-in that denies nothing, or what calls itself the answer."""
    found = [said.lstrip()]
    bare = _bare(said)
    found.append(bare)
    again = _bare(cue)
    if again and bare.casefold().startswith(again.casefold()):
        found.append(_bare(bare[len(again) :]))
    for lead_in in (LEAD_IN.match(bare), *list(VERDICT.finditer(bare))[-1:]):
        if lead_in and not DENIED.search(lead_in[0]):
            found.append(_bare(bare[lead_in.end() :]))
    return found


def _bare(text: str) -> str:
    """Return a text without markup and punctuation in front."""
    while True:
        match = MARKUP.match(text) or AROUND.match(text)
        if match is None:
            return text
        text = text[match.end() :]


def _label_at(text: str, words: Sequence[str]) -> tuple[int, str] | None:
    """Return the label whose word a text begins with, the longest of several, and what follows it."""
    folded = text.casefold()
    matching = [
        (len(word), label)
        for label, word in enumerate(one.strip().casefold() for one in words)
        if word and folded.startswith(word) and _ends(word, folded[len(word) :])
    ]
    if not matching:
        return None
    length, label = max(matching)
    return label, text[length:]


def _ends(word: str, rest: str) -> bool:
    """Tell whether a word ends where ``rest`` begins: no letter or digit goes on, in scripts that part words."""
    if not rest or not word[-1].isalnum() or not rest[0].isalnum():
        return True
    return unicodedata.category(rest[0]) == "Lo"
