"""Parsing of proposers' answers: formats that models use, what is dropped, and that no answer makes it fail."""

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from distributed_tuner.proposers.parsing import LONGEST, parse, parse_published

TWO = ["Classify the review", "Judge the mood"]

FORMATS = {
    "lines": "Classify the review\nJudge the mood",
    "blank lines": "\n\n  Classify   the\treview \r\n\r\n\r\nJudge the mood\n\n",
    "numbers": "1. Classify the review\n2. Judge the mood",
    "two digits": "10) Classify the review\n11) Judge the mood",
    "in parentheses": "(1) Classify the review\n(2) Judge the mood",
    "number and dash": "1 - Classify the review\n2 - Judge the mood",
    "letters": "a) Classify the review\nb) Judge the mood",
    "dashes": "- Classify the review\n-Judge the mood",
    "stars": "* Classify the review\n*Judge the mood",
    "bullets": "• Classify the review\n•Judge the mood",
    "strong": "1. **Classify the review**\n2. **Judge the mood**",
    "strong lines": "**Classify the review**\n**Judge the mood**",
    "quotes": "\"Classify the review\"\n'Judge the mood'",
    "other quotes": "“Classify the review”\n«Judge the mood»",
    "backticks": "1. `Classify the review`\n2. `Judge the mood`",
    "labels": "Prompt: Classify the review\nPrompt: Judge the mood",
    "strong labels": "**Prompt 1:** Classify the review\n**Prompt 2**: Judge the mood",
    "labels above": "Prompt 1:\nClassify the review\n\nPrompt 2:\nJudge the mood",
    "templates": "Template 1: Classify the review\nTemplate 2: Judge the mood",
    "labels in sentences": "The next prompt is: Classify the review\nA new prompt: Judge the mood",
    "labels in a list": "1. Prompt: Classify the review\n2. Prompt: Judge the mood",
    "preamble": "Sure, here are two prompts:\n\n1. Classify the review\n2. Judge the mood\n\nI hope that this helps!",
    "preamble without list": "Sure, here are two prompts:\nClassify the review\nJudge the mood",
    "preamble with a stop": "Here are two new prompts.\nClassify the review\nJudge the mood",
    "headings": "## New prompts\nClassify the review\nJudge the mood",
    "fence": "```\nClassify the review\nJudge the mood\n```",
    "fence with text around": "Here:\n```text\n1. Classify the review\n2. Judge the mood\n```\nBye.",
    "scores repeated": "Prompt: Classify the review\nLoss: 0.310, accuracy: 0.9\nPrompt: Judge the mood\nLoss: 0.2",
    "reasons": '1. "Classify the review" - short and clear.\n2. "Judge the mood" (a synonym)',
    "thoughts": "<think>\n1. Perhaps this\n2. Or that\n</think>\nClassify the review\nJudge the mood",
    "JSON strings": json.dumps(TWO),
    "JSON objects": json.dumps([{"prompt": text, "loss": 0.1} for text in TWO]),
    "JSON object with a list": json.dumps({"reasoning": "short is good", "prompts": TWO}),
    "JSON object with objects": json.dumps({"templates": [{"text": text} for text in TWO]}),
    "JSON numbered keys": json.dumps({"prompt1": TWO[0], "prompt_2": TWO[1]}),
    "JSON numbers as keys": json.dumps({"prompts": {"1": TWO[0], "2": TWO[1]}}),
    "JSON lines": "\n".join(json.dumps({"text": text}) for text in TWO),
    "JSON in a fence": f"```json\n{json.dumps(TWO, indent=2)}\n```",
    "JSON with text around": f"Sure! Here they are: {json.dumps(TWO)}\nAnything else?",
    "JSON cut short": '["Classify the review", "Judge the mood", "And th',
    "JSON in lines cut short": '{\n  "prompts": [\n    "Classify the review",\n    "Judge the mood",\n    "And',
    "repeated": "Classify the review\n1. x\n".replace("1. x\n", "")
    + "Judge the mood\nclassify  the Review\nJudge the mood",
    "control characters": "Classify\x00the\x1breview\nJ\u200budge the mood\ufeff",
    "too long beside": f"Classify the review\n{'very ' * 200}long\nJudge the mood",
    "too short beside": "1. a\n2. Classify the review\n3. !!!\n4. Judge the mood",
}


@pytest.mark.parametrize("answer", FORMATS.values(), ids=FORMATS.keys())
def test_the_formats_that_models_answer_in(answer: str) -> None:
    assert parse(answer, 5) == TWO


@pytest.mark.parametrize(
    ("answer", "texts"),
    [
        ("3-way sentiment of this", ["3-way sentiment of this"]),
        ("1.5 stars or five?", ["1.5 stars or five?"]),
        ("1. Mood of the review:\n2. Its tone:", ["Mood of the review:", "Its tone:"]),
        ("It's the film's mood", ["It's the film's mood"]),
        ('"good" or "bad"?', ['"good" or "bad"?']),
        ("[Review] is it good?", ["[Review] is it good?"]),
        ('Say one of ["good", "bad"] now', ['Say one of ["good", "bad"] now']),
        ("{review} Verdict", ["{review} Verdict"]),
        ("1. <script>alert(1)</script>", ["<script>alert(1)</script>"]),
        ("बताओ क्\u200dष", ["बताओ क्\u200dष"]),
        ("判断影评的情感", ["判断影评的情感"]),
    ],
)
def test_what_only_looks_like_decoration_is_left(answer: str, texts: list[str]) -> None:
    assert parse(answer, 5) == texts


@pytest.mark.parametrize(
    "answer",
    [
        "",
        " \n\t",
        "```\n```",
        "a\nb\nc",
        "no list here:",
        "---\n***\n===",
        "[]",
        "{}",
        '{"loss": 0.5}',
        "Loss: 0.5",
        "1.\n2.",
    ],
)
def test_answers_without_a_prompt(answer: str) -> None:
    assert parse(answer, 5) == []


def test_known_prompts_are_no_news_and_no_more_are_taken_than_wanted() -> None:
    answer = "1. Classify the review\n2. Judge the mood\n3. Name the tone\n4. Say more"
    assert parse(answer, 2, {"classify the  REVIEW"}) == ["Judge the mood", "Name the tone"]


def test_the_longest_prompt() -> None:
    assert parse("a" * LONGEST, 1) == ["a" * LONGEST]
    assert parse("a" * (LONGEST + 1), 1) == []


HUGE = [
    "\n" * 200_000,
    "[" * 200_000,
    "[\n" * 100_000,
    '{"a\n' * 50_000,
    '["' * 100_000,
    '["' + "\\" * 100_000,
    "*" * 200_000,
    "prompt" + " " * 200_000,
    "```" * 70_000,
    "<think>" * 30_000,
    ("a: 1, " * 160 + "\n") * 100,
    '["' + ('a"' + " " * 30) * 3000,
]


@pytest.mark.timeout(60)  # some regular expressions would take years
@pytest.mark.parametrize("answer", HUGE, ids=[repr(answer[:10]) for answer in HUGE])
def test_huge_answers_are_read_to_the_end(answer: str) -> None:
    assert all(len(text) <= LONGEST for text in parse(answer, 5))
    assert all(len(text) > 10 for text in parse_published(answer))


CHARACTERS = "\"'`[]{}:,-*#_\\ \n\x00\ud800\u202e\u201c\u201da"
PIECES = st.sampled_from(
    [*CHARACTERS, "1.", "10)", "```json", "Prompt", "word", "<think>", "</think>", "null", "1e999"]
)
NASTY = st.one_of(st.text(), st.text(alphabet=st.characters()), st.lists(PIECES, max_size=40).map("".join))


@settings(max_examples=300, deadline=None)
@given(NASTY, st.integers(0, 4))
@example('"', 3)
@example("-", 3)
@example('[{"prompt": {"prompt": {"prompt": "deep enough"}}}]', 3)
@example("[" + "1" * 5000 + "]", 3)
def test_whatever_comes_it_never_fails_and_gives_clean_prompts(answer: str, count: int) -> None:
    texts = parse(answer, count)
    assert len(texts) <= count
    for text in texts:
        assert 3 <= len(text) <= LONGEST
        assert text == " ".join(text.split())
        assert text.isprintable() or "\u200c" in text or "\u200d" in text
    assert not set(parse(answer, count, texts)) & set(texts)
    assert all(len(text) > 10 for text in parse_published(answer))


# --------------------------------------------------------------------------------------------------- as published
def test_the_published_rules() -> None:
    answer = (
        '- "Classify the review:"\n*Judge the mood of it\n1. Name the tone of it\n2* Say what it is\nNo marker here'
    )
    assert parse_published(answer) == [
        "Classify the review:",
        "Judge the mood of it",
        "Name the tone of it",
        "Say what it is",
        "No marker here",
    ]


def test_the_published_defects() -> None:
    assert parse_published("10. Classify the review") == ["10. Classify the review"]  # two digits are left
    assert parse_published("Here are the templates:") == ["Here are the templates:"]  # so are preambles
    assert parse_published("exactly 10\nexactly 11!") == ["exactly 11!"]
    assert parse_published("a\n\n-\n*\nshort") == []  # where the published code raises IndexError
