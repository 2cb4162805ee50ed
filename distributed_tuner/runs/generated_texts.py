"""Generated answers as a ledger keeps them, for the report: bounded in number and length."""

from collections.abc import Sequence

from distributed_tuner.ledger.rows import GeneratedText
from distributed_tuner.values import Example

MOST = 500
"""Test examples whose answers are kept: the first."""
_CHARACTERS = 500


def kept_texts(
    examples: Sequence[Example], texts: Sequence[str | None], with_inputs: bool = False
) -> list[GeneratedText]:
    """Return the answers to the first examples; ``with_inputs`` also what was asked, and the targets."""
    pairs = list(zip(examples, texts, strict=True))[:MOST]
    if not with_inputs:
        return [GeneratedText(uid=example.uid, text=_cut(text)) for example, text in pairs]
    return [
        GeneratedText(
            uid=example.uid, text=_cut(text), input=_cut(example.text) or "", target=_cut(example.target.strip()) or ""
        )
        for example, text in pairs
    ]


def _cut(text: str | None) -> str | None:
    return None if text is None else text[:_CHARACTERS]
