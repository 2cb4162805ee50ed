"""The discrete optimizers of nevergrad's registry on the words of a prompt."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from distributed_tuner.config.optimizer import NevergradConfig
from distributed_tuner.optimizers.nevergrad_search import NevergradSearch
from distributed_tuner.seeds import Key, generator
from distributed_tuner.values import Array64, Candidate, Text

EMPTY_SHARE = 8  # one "no word" for so many words: drawn now and then, or a prompt would only ever grow


@dataclass(frozen=True, eq=False, slots=True)
class Slots:
    """Places for words in a row. An index vector, shape (S,), says which of ``values`` each holds; "" is no word.

    The indices of each slot go round so that ``middle`` is what the start has there. There is an odd number of values,
    hence a middle one.
    """

    start: str
    values: tuple[str, ...]
    offsets: tuple[int, ...]
    """(S,): where in ``values`` the start's words are."""

    @classmethod
    def of(cls, start: str, values: Sequence[str], size: int) -> "Slots":
        """Return ``size`` slots for ``values``, among which are the start's words and no word."""
        words = start.split()[:size]
        return cls(start, tuple(values), tuple(values.index(word) for word in [*words, *[""] * (size - len(words))]))

    @property
    def middle(self) -> int:
        """The index that is the start in every slot."""
        return len(self.values) // 2

    def text(self, indices_S: Array64) -> str:
        """Return the words joined by spaces; the start to the letter, and in full, where every index is the middle."""
        moves = np.rint(indices_S).astype(int) - self.middle
        if not moves.any():
            return self.start
        words = [self.values[(at + int(by)) % len(self.values)] for at, by in zip(self.offsets, moves, strict=True)]
        return " ".join(word for word in words if word)


class NevergradWords(NevergradSearch):
    """``dim`` slots, each with one of ``words`` words of the vocabulary or none; the start's words are among them.

    nevergrad sees one integer a slot, as the array of a Gaussian that is cut at the quantiles: what its own
    ``TransitionChoice`` is underneath, without the list of choices that it copies and searches at every ask. The start
    is the middle of every slot, so that the discrete optimizers, which draw a mutated slot from N(0, 1) around it, draw
    from all values alike. Continuous optimizers (CMA, DE, PSO) work too, but take neighbouring indices for similar
    words, which they are not.

    Of a start with more than ``dim`` words the first ``dim`` are edited; the start itself is asked and recommended as
    it is. Whether a member asks for the start is its own affair: the (1 + 1) ones begin with it. Moved, the search
    takes another draw of the vocabulary.
    """

    is_discrete: ClassVar[bool] = True
    fixed: ClassVar[tuple[str, ...]] = ("optimizer", "space", "words", "num_workers")

    def __init__(
        self, config: NevergradConfig, *, dim: int, key: Key, steps: int, start: str, words: Sequence[str]
    ) -> None:
        super().__init__(config, dim=dim, key=key, steps=steps)
        self._vocabulary = tuple(words)
        self._enter(start, 0)

    def _enter(self, start: str, step: int) -> None:
        """Begin at ``start``, ``step`` steps into the stage, with values drawn for it."""
        own = list(dict.fromkeys(start.split()[: self.dim]))
        others = [word for word in self._vocabulary if word not in own]
        count = min(len(others), max(0, self._config.words - len(own)))
        rng = generator((*self._search_key(step), "words"))
        words = own + [others[index] for index in rng.choice(len(others), count, replace=False)]
        empty = max(1, len(words) // EMPTY_SHARE)
        empty += (len(words) + empty + 1) % 2  # an odd number of values in all
        self._slots = Slots.of(start, (*words, *[""] * empty), self.dim)
        self._begin(step)

    def _parametrization(self, ng: Any, config: NevergradConfig) -> Any:
        count = len(self._slots.values)
        indices = ng.p.Array(init=np.full(self.dim, count / 2)).set_bounds(0, count, method="gaussian")
        return (indices - 0.5).set_integer_casting()

    def _candidate(self, value: Array64) -> Candidate:
        return Text(self._slots.text(value))

    def _relocate_text(self, text: str) -> None:
        self._enter(text, self.steps_told)

    def _save_space(self) -> dict[str, Any]:
        return {"start": self._slots.start, "values": list(self._slots.values)}

    def _load_space(self, state: dict[str, Any]) -> None:
        self._slots = Slots.of(str(state["start"]), tuple(state["values"]), self.dim)
