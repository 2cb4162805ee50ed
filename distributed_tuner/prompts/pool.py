"""The prompt pool: every prompt in words that was scored, and which of them a proposer is shown."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

Source = Literal["trajectory", "proposal", "source_trial", "incumbent"]


@dataclass(frozen=True, slots=True)
class PooledText:
    """A prompt in words, how it scored on the feedback examples, and where it comes from."""

    text: str
    loss: float
    metric: float
    source: Source
    trial_id: str
    stage: int

    @classmethod
    def present_fields(cls, fields: dict[str, Any]) -> dict[str, Any]:
        """Return the fields of a saved one in present words."""
        return fields | {"source": present_source(fields["source"])}


def present_source(source: Any) -> Any:
    """Return where a prompt comes from in present words: "source_trial" was "donor"."""
    return "source_trial" if source == "donor" else source


def best_of(pool: Iterable[PooledText], most: int) -> list[PooledText]:
    """Return the best ``most`` different texts by loss, worst first, as an instruction lists them.

    Of equal texts the best score counts, of equal losses the text that comes first in the alphabet. Losses that are not
    finite are left out.
    """
    best: dict[str, PooledText] = {}
    for entry in pool:
        known = best.get(entry.text)
        if math.isfinite(entry.loss) and (known is None or entry.loss < known.loss):
            best[entry.text] = entry
    ranked = sorted(best.values(), key=lambda entry: (entry.loss, entry.text))
    return ranked[:most][::-1]
