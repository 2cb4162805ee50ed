"""Generated texts from a server's replies, and the settings that they are asked for with.

A text that is empty is an answer; one for which no tokens were left is none. What a filter keeps back counts as an
empty answer, which is wrong for every prompt alike.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from distributed_tuner.clients.openai_answers import Usage, cut_short, written
from distributed_tuner.oracles.decoding import seed_for, trimmed
from distributed_tuner.oracles.served.answer_words import without_thoughts
from distributed_tuner.values import Candidate, Decoding, Example

MOST_STOPS = 4  # of OpenAI's API; the others are looked for here


@dataclass(frozen=True, slots=True)
class Written:
    """One example's text; None: it failed. ``counts``: what is to be counted about it. ``early``: the server ended it
    before the tokens that it may have were used up."""

    text: str | None
    counts: Mapping[str, int] = field(default_factory=dict)
    early: bool = False


REFUSED = Written("", {"refused_examples": 1})
FAILED = Written(None, {"unusable_answers": 1})


def decoding_settings(
    decoding: Decoding, output: int, thinks: bool, candidate: Candidate, example: Example
) -> dict[str, Any]:
    """Return a request's fields other than the prompt.

    ``output``: tokens that may be written, thoughts included. ``thinks``: there may be some, which a stop string would
    end, so that none is sent.
    """
    settings: dict[str, Any] = {"max_tokens": output, "temperature": decoding.temperature}
    if decoding.stop and not thinks:
        settings["stop"] = list(decoding.stop[:MOST_STOPS])
    if decoding.temperature > 0:
        settings["seed"] = seed_for(decoding, candidate, example.uid)
    return settings


def written_text(
    choice: Mapping[str, Any], decoding: Decoding, *, chat: bool, output: int, usage: Usage | None
) -> Written:
    """Return the text of a choice. ``output``: tokens that it might have; ``usage``: those that it took, if known.

    A chat's answer does not begin with white space.

    Raises:
        Unusable: there is no place for a text, or no tokens were left for one.
    """
    cut = cut_short(choice)
    said = without_thoughts(written(choice), cut)
    early = cut and usage is not None and 0 < usage.written < output
    text = trimmed(said.lstrip() if chat else said, decoding.stop)
    return Written(text, {"cut_answers": 1} if early else {}, early)
