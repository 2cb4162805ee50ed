"""From an answer in free words to prompts. Lenient: models number, quote, fence, explain, or answer in JSON.

Never raises: an answer in which nothing can be used gives an empty list.
"""

import json
import re
import unicodedata
from collections.abc import Collection, Iterator
from typing import Any

SHORTEST, LONGEST = 3, 500  # characters; what is longer is an essay, not a prompt
PUBLISHED_SHORTEST = 10  # characters that the published code drops
KEYS = ("prompt", "text", "template", "instruction", "content")

FENCE = re.compile(r"^\s*(```|~~~).*$", re.MULTILINE)
MARKER = re.compile(r"^\s*(?:[-*+•‣\u2013\u2014]\s+|[-*•]|\(?\d{1,3}\s*[.):-]\s*|\(?[a-zA-Z][.)]\s+|#{1,6}\s+)")
LABEL = re.compile(r"^(?:new\s+)?(?:prompt|template|instruction)s?\s*\d*\s*[:=]\s*", re.IGNORECASE)
QUOTES = {'"': '"', "'": "'", "`": "`", "“": "”", "\u2018": "\u2019", "«": "»", "„": "“", "*": "*", "_": "_"}


def parse(answer: str, count: int, known: Collection[str] = ()) -> list[str]:
    """Return at most ``count`` different prompts of an answer, in its order, without those that are ``known``."""
    taken = {_key(text) for text in known}
    found: list[str] = []
    for text in map(_cleaned, _candidates(answer)):
        if SHORTEST <= len(text) <= LONGEST and _key(text) not in taken:
            taken.add(_key(text))
            found.append(text)
    return found[:count]


def parse_published(answer: str) -> list[str]:
    """Return the prompts that the published code finds: one a line, one marker taken off, those of 10 characters or
    fewer dropped. Where that code fails (lines of one character), there is no prompt."""
    found = []
    for line in (line.strip() for line in answer.splitlines()):
        if line[:1] in ("-", "*"):
            line = line[1:]
        elif line[1:2] in ("-", ".", "*"):
            line = line[2:]
        line = line.strip()
        if len(line) > 1 and line.startswith('"') and line.endswith('"'):
            line = line[1:-1]
        found.append(line)
    return [line for line in found if len(line) > PUBLISHED_SHORTEST]


def _candidates(answer: str) -> Iterator[str]:
    """Yield what may be prompts: the strings of the answer's JSON, if it holds any, else its lines."""
    strings = list(_strings(_json(answer)))
    if strings:
        yield from strings
        return
    lines = [line.strip() for line in FENCE.sub("", answer).splitlines()]
    marked = [line for line in lines if MARKER.match(line)]
    for line in marked or lines:
        text = MARKER.sub("", line)
        if not text.endswith(":"):  # "Here are three prompts:" is none
            yield LABEL.sub("", text)


def _json(answer: str) -> Any:
    """Return the first JSON list or object in an answer; None where there is none."""
    decoder = json.JSONDecoder()
    for place in (match.start() for match in re.finditer(r"[\[{]", answer)):
        try:
            value, _ = decoder.raw_decode(answer[place:])
        except (ValueError, RecursionError):
            continue
        if value and isinstance(value, list | dict):
            return value
    return None


def _strings(value: Any, depth: int = 3) -> Iterator[str]:
    if depth == 0:
        return
    match value:
        case str():
            if depth < 3:
                yield value
        case list():
            for item in value:
                yield from _strings(item, depth - 1)
        case dict():
            named = [value[key] for key in value if str(key).lower().rstrip("s") in KEYS]
            for item in named or [item for item in value.values() if isinstance(item, list)]:
                yield from _strings(item, depth - 1)


def _cleaned(text: str) -> str:
    """Return a prompt without quotes, control characters and runs of white space."""
    text = "".join(" " if unicodedata.category(char)[0] == "C" else char for char in text)
    text = " ".join(text.split())
    while len(text) > 1 and QUOTES.get(text[0]) == text[-1]:
        text = text[1:-1].strip()
    return text if any(char.isalnum() for char in text) else ""


def _key(text: str) -> str:
    return " ".join(text.split()).casefold()
