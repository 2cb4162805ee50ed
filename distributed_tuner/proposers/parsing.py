"""Parsing of proposals from free text. Lenient: models number, quote, fence, label, explain, or answer in JSON.

Never raises: an answer in which nothing can be used gives an empty list.
"""

import json
import re
import unicodedata
from collections.abc import Collection, Iterator
from typing import Any

SHORTEST, LONGEST = 3, 500  # characters; what is longer is an essay, not a prompt
PUBLISHED_SHORTEST = 10  # characters that the published code drops
READ = 100_000  # characters of an answer that are read at all
PLACES = 200  # places at which JSON is looked for
DEPTH = 3  # of lists and objects around a prompt
KEYS = ("prompt", "text", "template", "instruction", "content")
JOINERS = "\u200c\u200d"  # invisible, but letters of some scripts need them

THOUGHTS = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL | re.IGNORECASE)
FENCE = re.compile(r"^[ \t]*(?:```|~~~).*$", re.MULTILINE)
JSON_START = re.compile(r"(?:^|:)[ \t]*([\[{])", re.MULTILINE)
JSON_STRING = re.compile(r'"(?:[^"\\\n]|\\.){1,600}"(?!\s{0,20}:)')
HEADING = re.compile(r"^#{1,6} ")
DASHES = "-\u2013\u2014"
MARKER = re.compile(
    rf"^(?:[{DASHES}+\u2022\u2023] ?"  # bullets
    r"|\*(?![^ *][^*]*\*|\*) ?"  # another bullet, but neither *emphasis* nor **strong**
    r"|\(?\d{1,3} ?(?:[.):](?!\d)| -|-(?= )) ?"  # "1." "10)" "(2)" "1 -", but neither "1.5" nor "3-way"
    r"|\(?[a-zA-Z][.)] )"  # "a)"
)
LABEL = re.compile(
    r"^[*_`]*(?:the |a )?(?:new |next |improved )?(?:prompt|template|instruction)s?(?: ?#?\d{1,3}| is)?"
    r"[*_`]* ?[:=][*_`]* ?",
    re.IGNORECASE,
)
SCORE = re.compile(r'^[{"]*[\w ]{1,20}"?[:=] ?-?[\d.]+%?(?:[,;][\w "]{1,20}[:=] ?-?[\d.]+%?)*[}, ]*$')  # "Loss: 0.5"
OPENING = re.compile(
    r"^(?:sure|certainly|of course|okay|ok|absolutely|here (?:are|is)|below (?:are|is))\b", re.IGNORECASE
)
REASONED = re.compile(rf'^["\u201c]([^"\u201c\u201d]+)["\u201d](?: ?[{DASHES}:(].*|[.,;])$')  # "the prompt" - and why
QUOTES = dict(
    zip(
        "\"'`*_\u201c\u2018\u201e\u00ab\u2039\u300c\u300e",
        "\"'`*_\u201d\u2019\u201c\u00bb\u203a\u300d\u300f",
        strict=True,
    )
)


def parse(answer: str, count: int, known: Collection[str] = ()) -> list[str]:
    """Return at most ``count`` different prompts of an answer, in its order, without those that are ``known``."""
    taken = {_key(text) for text in known}
    found: list[str] = []
    for text in map(_cleaned, _candidates(THOUGHTS.sub("\n", answer[:READ]))):
        if SHORTEST <= len(text) <= LONGEST and _key(text) not in taken:
            taken.add(_key(text))
            found.append(text)
    return found[:count]


def parse_published(answer: str) -> list[str]:
    """Return the prompts that the published code finds: one a line, one marker taken off, those of 10 characters or
    fewer dropped. Where that code fails (lines of one character), there is no prompt in the line."""
    found = []
    for line in (line.strip() for line in answer[:READ].splitlines()):
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
    answer = FENCE.sub("", answer)
    strings = [text for value in _json_values(answer) for text in _strings(value)] or _cut_short(answer)
    yield from strings or _lines(answer)


# ------------------------------------------------------------------------------------------------ JSON
def _json_values(answer: str) -> Iterator[Any]:
    """Yield the lists and objects that begin a line or stand behind a colon."""
    decoder = json.JSONDecoder()
    end = 0
    for place in [match.start(1) for match in JSON_START.finditer(answer)][:PLACES]:
        if place < end:
            continue
        try:
            value, end = decoder.raw_decode(answer, place)
        except (ValueError, RecursionError):
            continue
        yield value


def _strings(value: Any, depth: int = 0) -> Iterator[str]:
    """Yield the prompts of a JSON value: items of lists, and what text-like or numbered keys of objects lead to."""
    match value:
        case str() if depth:
            yield value
        case list() if depth < DEPTH:
            for item in value:
                yield from _strings(item, depth + 1)
        case dict() if depth < DEPTH:
            named = [item for key, item in value.items() if _name(key) in ("", *KEYS)]
            for item in named or [item for item in value.values() if isinstance(item, list)]:
                yield from _strings(item, depth + 1)


def _name(key: str) -> str:
    """Return a key without its number and plural: "Prompts", "prompt_2" -> "prompt"; "3" -> ""."""
    return key.lower().rstrip("0123456789 _-#").removesuffix("s").removeprefix("new_")


def _cut_short(answer: str) -> list[str]:
    """Return the whole strings of a JSON answer that ends too early; none where it is no such answer."""
    answer = answer.strip()
    if answer[:1] not in ("[", "{") or '"' not in answer:
        return []
    return [text for match in JSON_STRING.findall(answer) if (text := _unescaped(match))]


def _unescaped(literal: str) -> str:
    try:
        return str(json.loads(literal))
    except ValueError:
        return ""


# ------------------------------------------------------------------------------------------------ lines
def _lines(answer: str) -> Iterator[str]:
    """Yield the items of a list, where there is one, else the lines; preambles, headings and scores left out."""
    lines = [_spaced(line) for line in answer.splitlines()]
    lines = [line for line in lines if line and len(line) < 2 * LONGEST and not SCORE.match(MARKER.sub("", line))]
    plain = [line for line in lines if not HEADING.match(line)]
    if not plain:
        plain = [HEADING.sub("", line) for line in lines]
    items = [text for line in plain if (text := _item(line))]
    if items:
        yield from items
        return
    for number, line in enumerate(plain):
        preamble = line.endswith(":") or (number == 0 and len(plain) > 1 and OPENING.match(line))
        if not preamble:
            yield line


def _item(line: str) -> str:
    """Return a line without its marker and label; empty where it has neither."""
    text = LABEL.sub("", MARKER.sub("", line))
    return "" if text == line else text


# ------------------------------------------------------------------------------------------------ texts
def _cleaned(text: str) -> str:
    """Return a prompt without quotes, explanations behind them, control characters and runs of white space."""
    text = _spaced(text)
    if reasoned := REASONED.match(text):
        text = reasoned[1].strip()
    while len(text) > 1 and QUOTES.get(text[0]) == text[-1] and text[0] not in text[1:-1].strip(text[0]):
        text = text[1:-1].strip()
    return text if any(char.isalnum() for char in text) else ""


def _spaced(text: str) -> str:
    """Return a text without invisible characters; white space and control characters become single spaces."""
    return " ".join("".join(_visible(char) for char in text).split())


def _visible(char: str) -> str:
    category = unicodedata.category(char)
    if category == "Cc":
        return " "
    return "" if category[0] == "C" and char not in JOINERS else char


def _key(text: str) -> str:
    return " ".join(text.split()).casefold()
