"""Between texts and prompt rows: how a text's tokens fill the rows."""

from collections.abc import Sequence

from distributed_tuner.errors import ModelError

PUBLISHED_IDS = range(4, 15000)  # of the published code: without RoBERTa's special tokens and its rarer words


def fit_ids(ids: Sequence[int], length: int) -> list[int]:
    """Fit a text to ``length`` rows: repeated from its end backwards, so that its end stands next to the example.

    Of a longer text the last ``length`` tokens are kept.
    """
    repeated = list(ids) * (length // len(ids) + 1)
    return repeated[-length:]


def require_tokens(count: int, text: str) -> None:
    """Check that a text of ``count`` tokens can fill rows.

    Raises:
        ModelError: it has none.
    """
    if count == 0:
        raise ModelError(
            f"a text must have at least one token to fill the rows of a soft prompt, but {text!r} has none; give it a"
            " word"
        )
