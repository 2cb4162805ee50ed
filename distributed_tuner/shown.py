"""Redaction of text that others wrote, before it is shown: no terminal control characters, no keys."""

import re

_KEY = re.compile(
    r"""
    (?<![A-Za-z0-9])(?:sk|pk|rk|gsk|xai|hf|ghp|glpat|AIza)[-_]?(?=[\w-]*\d)(?:(?<=[-_])[\w-]{8,}|(?<=AIza)[\w-]{20,})
    | (?<![A-Za-z0-9])(?=[A-Za-z]*[0-9])(?=[0-9]*[A-Za-z])[A-Za-z0-9]{20,}
    """,
    re.VERBOSE,
)
"""Pattern of keys: providers' prefixes, and 20 or more letters and digits in a row."""


def plain(text: str) -> str:
    """Return a text with a blank for each character that does not print: escapes, line breaks, marks that turn it."""
    return text if text.isprintable() else "".join(char if char.isprintable() else " " for char in text)


def masked(text: str) -> str:
    """Return a text without what looks like a key."""
    return _KEY.sub(lambda found: f"{found[0][:3]}***", text)
