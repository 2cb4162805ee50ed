"""Checks of a server's answers to one request: when nothing can be learnt from it, and what to warn of.

A failed example costs its candidate, one that the server refuses costs all candidates the same. Only where there is
nothing to read in any answer, or most examples are refused with every prompt, the run ends.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from distributed_tuner.clients.openai_answers import OUT_OF_TOKENS, Refused, Unusable, Usage
from distributed_tuner.errors import ModelError
from distributed_tuner.oracles.served.answer_texts import Written
from distributed_tuner.oracles.served.logprobs import Scored
from distributed_tuner.values import Example

MOST_REFUSED = 0.5  # of the examples
FIRST_WORDS = 40  # characters of an answer that may show that it begins with thoughts
UNUSABLE = (
    "set oracle.scores: generated where a server tells no probabilities, and check oracle.base_url, which ends in /v1,"
    " and oracle.api"
)
NO_TEXT = "check oracle.base_url, which ends in /v1, and oracle.api"
CUT = (
    "{} of {} answers from {} were ended by the server before their tokens were used up; they count as they are: see"
    " its limits of output and context, or set max_new_tokens lower"
)
REASONS = re.compile(r"think|thought|reason|channel", re.IGNORECASE)
LESS = (
    "the model reasons first: turn that down by oracle.extra_body, such as {reasoning_effort: minimal} or"
    " {chat_template_kwargs: {enable_thinking: false}}, or by oracle.system"
)
IN_WORDS = f"{LESS}; or let it, with oracle.scores: generated, task.loss: zero_one and oracle.max_tokens: 2000, say"
MORE = f"{LESS}; or give it more: oracle.max_tokens: 2000, say"

Remark = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Forward:
    """Result of one candidate on one example. ``usage`` includes what answers before the last one took.

    ``unusable``: why nothing can be read from the answer. ``refused``: why there is none. ``tops``: tokens that stand
    for no label word, with their probabilities. ``written``: the text, where texts are asked for.
    """

    scored: Scored
    usage: Usage
    unusable: Unusable | None = None
    refused: Refused | None = None
    tops: Mapping[str, float] = field(default_factory=dict)
    written: Written | None = None


class Checks:
    """Looks at the answers to every request. ``where``: what messages call the server; ``shown``: makes what a model
    wrote fit to be shown; ``explained``: says what a refusal means."""

    def __init__(self, where: str, shown: Callable[[str], str], explained: Callable[[Refused], str]) -> None:
        self._where = where
        self._shown = shown
        self._explained = explained
        self._answered: set[str] = set()  # uids of examples that were, with some prompt
        self._refused: set[str] = set()

    def remarks(self, examples: Sequence[Example], forwards: Sequence[Forward]) -> tuple[Remark, ...]:
        """Return what a person should know of answers to these examples, candidates outermost.

        Raises:
            ModelError: nothing can be read from any answer; most examples are refused, with every prompt so far.
        """
        self._require_readable(forwards)
        early = sum(forward.written is not None and forward.written.early for forward in forwards)
        asked = [examples[i % len(examples)] for i in range(len(forwards))]
        found = [*self._refusals(asked, forwards)]
        self._require_taken(forwards)
        unusable = next((forward.unusable for forward in forwards if forward.unusable is not None), None)
        if unusable is not None:
            advice = MORE if OUT_OF_TOKENS in unusable.reason else ""
            found.append(("unusable_answer", f"an answer {unusable.reason}" + (f": {advice}" if advice else "")))
        sample = next((forward.scored.sample for forward in forwards if forward.scored.sample), "")
        if sample:
            hint = f": {IN_WORDS}" if REASONS.search(sample[:FIRST_WORDS]) else ""
            found.append(("other_answer", f"an answer began {self._shown(sample)!r}{hint}"))
        if early:
            found.append(("cut_answer", CUT.format(early, len(forwards), self._where)))
        return tuple(found)

    def _require_readable(self, forwards: Sequence[Forward]) -> None:
        reasons = [forward.unusable for forward in forwards if forward.unusable is not None]
        if not reasons or len(reasons) + sum(forward.refused is not None for forward in forwards) < len(forwards):
            return
        out_of_tokens = all(OUT_OF_TOKENS in error.reason for error in reasons)
        if out_of_tokens and self._answered:  # some prompts have a model write at length
            return
        told = " or ".join(Counter(error.reason for error in reasons))
        texts = any(forward.written is not None for forward in forwards)
        what, instead = ("hold a text", NO_TEXT) if texts else ("tell the label words' scores", UNUSABLE)
        advice = MORE if out_of_tokens else next((error.advice for error in reasons if error.advice), instead)
        raise ModelError(
            f"an answer must {what}, but each of {len(reasons)} from {self._where} {told};"
            f" {advice.replace('{part}', 'oracle')}"
        )

    def _refusals(self, asked: Sequence[Example], forwards: Sequence[Forward]) -> Iterator[Remark]:
        for example, forward in zip(asked, forwards, strict=True):
            if forward.refused is None:
                self._answered.add(example.uid)
            elif example.uid not in self._refused:
                self._refused.add(example.uid)
                why = "by a filter" if forward.refused.filtered else "perhaps as it is too long"
                yield (
                    "refused_example",
                    f"example {example.name} is refused, {why}: {forward.refused.told}; it counts as one example"
                    " that is answered wrongly, for every prompt that it is refused with",
                )

    def _require_taken(self, forwards: Sequence[Forward]) -> None:
        never = self._refused - self._answered
        if len(never) > MOST_REFUSED * len(self._refused | self._answered):
            refused = next(forward.refused for forward in reversed(forwards) if forward.refused is not None)
            known = len(self._refused | self._answered)
            raise ModelError(
                f"most examples must be answered, but {len(never)} of {known} were refused with every prompt:"
                f" {self._explained(refused)}"
            )
