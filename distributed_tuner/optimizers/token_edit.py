"""Local search on the words of a prompt: random edits of the best prompts so far."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from distributed_tuner.config.optimizer import TokenEditConfig
from distributed_tuner.optimizers.base import Optimizer
from distributed_tuner.seeds import Key, generator
from distributed_tuner.values import Array, Array64, Candidate, Text

TRIES = 20  # at an edit that was not asked before; after these one that was asked will do
REMEMBERED = 2000  # texts that have a loss and are not asked again while there are others


class TokenEdit(Optimizer):
    """A (mu + lambda) search: ``popsize`` edited copies of the ``parents`` best different texts seen so far.

    A parent is drawn uniformly: the pool holds nothing but the best already, and leaning on its first would follow the
    luck of one text on a few examples. A candidate is 1 + G edits away, G geometric, ``edits`` on average. An edit
    replaces, inserts or deletes a word or swaps two neighbours, each as likely as the other where it is possible; it
    takes words of the vocabulary and leaves at most ``dim`` words, and one at least. A longer start is asked as it is,
    and its edits begin with random deletions. Among equal losses the newest text is the better one, so that the pool
    moves on plateaus (``zero_one``).

    The first query of the search is the start. Texts that have a loss (the last ``REMEMBERED``) are not asked again,
    nor is a text twice in a step, unless ``TRIES`` edits in a row give nothing else.

    **Failed queries** are left out, and may be asked again. **Moving**: the pool and the memory of asked texts are
    emptied, and the new text is the first query of the next step.

    Losses are comparable because every step is scored on all training examples.
    """

    kind: ClassVar[str] = "token_edit"
    is_discrete: ClassVar[bool] = True

    def __init__(self, config: TokenEditConfig, *, dim: int, key: Key, start: str, words: Sequence[str]) -> None:
        super().__init__(dim, key)
        self._config = config
        self._words = tuple(words)
        self._start = start
        self._pool: list[tuple[str, float]] = []
        """The best texts and their losses, best first."""
        self._scored: dict[str, None] = {}
        """The texts that have a loss, oldest first."""

    @property
    def queries_per_step(self) -> int:
        return self._config.popsize

    def recommend(self) -> Candidate:
        return Text(self._pool[0][0] if self._pool else self._start)

    # -------------------------------------------------------------------------------------------------- ask and tell
    def _ask(self) -> list[Candidate]:
        asked: list[str] = [] if self._pool else [self._start]
        while len(asked) < self._config.popsize:
            rng = generator((*self.key, self.steps_told, len(asked)))
            asked.append(self._new_text(rng, asked))
        return [Text(text) for text in asked]

    def _new_text(self, rng: np.random.Generator, asked: list[str]) -> str:
        """Return an edited parent that was not asked before; not in this step at least, where that cannot be had."""
        parents = [text for text, _ in self._pool] or [self._start]
        text = ""
        for _ in range(TRIES):
            tried = self._edited(parents[rng.integers(len(parents))], rng)
            if tried not in asked:
                text = tried
                if tried not in self._scored:
                    break
        return text or tried

    def _edited(self, parent: str, rng: np.random.Generator) -> str:
        words = parent.split()
        while len(words) > self.dim:
            del words[rng.integers(len(words))]
        for _ in range(rng.geometric(1 / self._config.edits)):
            self._edit(words, rng)
        return " ".join(words)

    def _edit(self, words: list[str], rng: np.random.Generator) -> None:
        """Change ``words``, at most ``dim`` of them, in place by one edit; never to none at all."""
        count = len(words)
        possible = ["replace"] * (count > 0) + ["insert"] * (count < self.dim) + ["delete", "swap"] * (count > 1)
        match possible[rng.integers(len(possible))]:
            case "replace":
                words[rng.integers(count)] = self._a_word(rng)
            case "insert":
                words.insert(int(rng.integers(count + 1)), self._a_word(rng))
            case "delete":
                del words[rng.integers(count)]
            case "swap":
                left = int(rng.integers(count - 1))
                words[left : left + 2] = words[left + 1], words[left]

    def _a_word(self, rng: np.random.Generator) -> str:
        return self._words[rng.integers(len(self._words))]

    def _tell(self, candidates: tuple[Candidate, ...], losses: Array64, gradients: Array | None) -> None:
        if np.isnan(losses).all():
            return
        told: dict[str, float] = {}
        for candidate, loss in zip(candidates, losses, strict=True):
            if isinstance(candidate, Text) and not np.isnan(loss):
                told[candidate.text] = float(loss)
        older = [(text, loss) for text, loss in self._pool if text not in told]
        self._pool = sorted([*told.items(), *older], key=lambda scored: scored[1])[: self._config.parents]
        self._scored = _newest({**self._scored, **dict.fromkeys(told)})
        self._metrics = {"best_loss": self._pool[0][1], "step_loss": min(told.values())}

    def _relocate_text(self, text: str) -> None:
        self._start = text
        self._pool = []
        self._scored = {}

    # --------------------------------------------------------------------------------------------------------- state
    def _save(self) -> dict[str, Any]:
        return {
            "start": self._start,
            "pool": [text for text, _ in self._pool],
            "pool_losses": [loss for _, loss in self._pool],
            "scored": list(self._scored),
        }

    def _load(self, state: dict[str, Any]) -> None:
        self._start = str(state["start"])
        self._pool = list(zip(state["pool"], map(float, state["pool_losses"]), strict=True))
        self._scored = dict.fromkeys(state["scored"])


def _newest(texts: dict[str, None]) -> dict[str, None]:
    return dict.fromkeys(list(texts)[-REMEMBERED:])
