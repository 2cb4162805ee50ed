"""Defaults of cost models without a choice of layouts: rows in front of the text, no tokens known, no calibration."""

from collections.abc import Sequence

from distributed_tuner.values import Batch, Layout, PromptSpec


class PlainCounter:
    """Base of cost models that know requests and answers alone (``cost_model.Counter``)."""

    facts = None
    rounds = False
    model_bytes = 0
    takes_suffix = True

    def choose_layout(self, batch: Batch, length: int) -> Layout:
        return "prefix"

    def kept_bytes(self, batch: Batch, prompt: PromptSpec) -> int:
        return 0

    def why_slow(self, batch: Batch, prompt: PromptSpec) -> str:
        return ""

    def tokens(self, batch: Batch, words: Sequence[str]) -> list[int | None]:
        return [None] * (len(batch.label_words) + len(words))
