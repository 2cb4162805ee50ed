"""The screen before the search: instructions and demonstrations, raced by the loss that the head leaves on train.

Each candidate is a query. Instructions first; then train rows in front of the best of them. What wins is looked at as
any prompt is. Pure but for the oracle that is asked.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from distributed_tuner.config.stage import ScreenStageConfig
from distributed_tuner.errors import BudgetExhausted, ModelError
from distributed_tuner.ledger.rows import Row, ScreenedText, ScreenRow
from distributed_tuner.oracles.budgeted import BudgetedOracle
from distributed_tuner.prompts.spec import NO_ROWS
from distributed_tuner.seeds import Key, generator
from distributed_tuner.stages.books import Books
from distributed_tuner.stages.looking import Looks
from distributed_tuner.stages.reading import Reader
from distributed_tuner.stages.selection import Selected
from distributed_tuner.tasks.base import Task
from distributed_tuner.values import Candidate, Cost, Example, Request, Text

Part = Literal["instructions", "demonstrations", "look"]


@dataclass(frozen=True, slots=True)
class Screened:
    """A prompt in words that was scored: the lower the better. shown: places in train of rows that stand in it."""

    text: str
    instruction: str
    shown: tuple[int, ...]
    score: float


class ScreenStage:
    """One screen of one trial, a part a call of ``advance``; ``instruction`` then holds what the search starts from.

    keep: what must be left in the budget for the search. ``looks``: looks at the winner.
    """

    def __init__(
        self,
        config: ScreenStageConfig,
        *,
        key: Key,
        reader: Reader,
        oracle: BudgetedOracle,
        books: Books,
        looks: Looks,
        keep: Cost,
    ) -> None:
        self._config = config
        self._key = key
        self._reader = reader
        self._oracle = oracle
        self._books = books
        self._looks = looks
        self._keep = keep
        self._part: Part = "instructions"
        self._scored: tuple[Screened, ...] = ()
        self._notes: tuple[str, ...] = ()
        self._cost = Cost()
        self.done = False
        self.reason = ""

    @property
    def selected(self) -> Selected | None:
        """The trial's best prompt so far."""
        return self._looks.selected

    @property
    def current(self) -> Candidate:
        """The best prompt of the screen so far."""
        return Text(self._best()[0].text if self._scored else self._reader.task.manual_prompt)

    @property
    def instruction(self) -> str:
        """The best prompt with words and without demonstrations; the manual one where nothing could be scored."""
        alone = [one for one in self._best() if one.text and not one.shown and math.isfinite(one.score)]
        return alone[0].text if alone else self._reader.task.manual_prompt

    def advance(self) -> list[Row]:
        """Do the next part. Sets ``done`` and ``reason`` when the screen has ended."""
        if self._part == "instructions":
            texts = instructions(self._config, self._reader.task)
            self._score([Screened(text, text, (), math.nan) for text in texts])
            self._part = "demonstrations"
            return []
        if self._part == "demonstrations":
            self._score(self._demonstrated())
            self._part = "look"
            return [self._row()]
        self.done, self.reason = True, "screened"
        winner = self._best()[0] if self._scored else None
        if winner is None or not math.isfinite(winner.score):
            return []
        try:
            return [self._looks.look(Text(winner.text), 0, winner.shown)]
        except BudgetExhausted as exhausted:
            self.reason = f"budget spent ({exhausted})"
            return []

    def state_dict(self) -> dict[str, Any]:
        """Return the screen between two calls of ``advance``."""
        return {
            "part": self._part,
            "scored": self._scored,
            "notes": self._notes,
            "cost": self._cost,
            "selected": self.selected,
            "end": (self.done, self.reason),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the screen."""
        self._part, self._scored, self._notes = state["part"], tuple(state["scored"]), tuple(state["notes"])
        self._cost, self._looks.selected = state["cost"], state["selected"]
        self.done, self.reason = state["end"]

    # ------------------------------------------------------------------------------------------------ parts
    def _score(self, entries: Sequence[Screened]) -> None:
        """Score prompts, one request each, so that one that does not fit costs none of the others."""
        for entry in entries:
            request = Request((Text(entry.text),), self._reader.batch("train"), NO_ROWS)
            try:
                answer = self._oracle.evaluate(request, keep=self._keep)
            except ModelError as error:
                self._notes += (f"not tried: {error}",)
                continue
            except BudgetExhausted as exhausted:
                self._notes += (f"not all was tried: {exhausted}",)
                return
            self._cost = self._cost + answer.cost
            score = self._reader.left_on_train(answer, entry.shown)
            self._scored += (Screened(entry.text, entry.instruction, entry.shown, score),)

    def _best(self) -> list[Screened]:
        """Return what was scored, best first; what failed comes last."""
        return sorted(self._scored, key=lambda one: one.score if math.isfinite(one.score) else math.inf)

    def _demonstrated(self) -> list[Screened]:
        task, config = self._reader.task, self._config
        kept = [one for one in self._best() if math.isfinite(one.score)][: config.instructions_kept]
        return [
            Screened(demonstrated(one.text, [task.train[i] for i in rows], task), one.text, rows, math.nan)
            for one in kept
            for number in config.demonstrations
            for order in range(config.orders)
            if (rows := drawn(task, number, (*self._key, "demonstrations", number, order)))
        ]

    def _row(self) -> ScreenRow:
        return ScreenRow(
            **self._books.names,
            texts=[ScreenedText(text=one.text, demonstrations=len(one.shown), loss=one.score) for one in self._best()],
            instruction=self.instruction,
            note="; ".join(dict.fromkeys(self._notes)),
            **self._books.of(self._cost),
        )


def instructions(config: ScreenStageConfig, task: Task) -> list[str]:
    """Return the instructions that are tried, each once: the manual prompt, the user's, and neutral patterns."""
    words = [word.strip() for word in task.label_words]
    listed = f"{', '.join(words[:-1])} or {words[-1]}"
    patterns = [
        "",
        f"Classify the text as {listed}.",
        f"{task.description[:1].upper()}{task.description[1:]}: {listed}.",
        f"Read the text and answer with one word: {listed}.",
        f"Which of these fits the text best: {listed}?",
        f"Each text below is labelled {listed}.",
    ]
    tried = [task.manual_prompt, *config.instructions, *(patterns if config.patterns else ())]
    return list(dict.fromkeys(tried))


def drawn(task: Task, number: int, key: Key) -> tuple[int, ...]:
    """Return places in train of rows to show, as even over the labels as can be, in random order.

    None where fewer than two rows of some label would be left to fit a head to.
    """
    stream = generator(key)
    by_label: dict[int, list[int]] = {}
    for place, example in enumerate(task.train):
        by_label.setdefault(example.label, []).append(place)
    pools = [stream.permutation(places).tolist() for _, places in sorted(by_label.items())]
    start = int(stream.integers(len(pools)))
    shown: list[int] = []
    for turn in range(number):
        pool = pools[(start + turn) % len(pools)]
        if len(pool) <= 2:
            return ()
        shown.append(pool.pop())
    return tuple(int(i) for i in stream.permutation(shown))


def demonstrated(instruction: str, examples: Sequence[Example], task: Task) -> str:
    """Return an instruction with examples and their labels behind it, as the model reads them."""
    shown = [f"{e.text}{e.cue}{task.label_words[e.label]}{e.tail}" for e in examples]
    return "\n\n".join([*([instruction] if instruction else []), *shown]) + "\n"


def screen_queries(config: ScreenStageConfig, task: Task) -> int:
    """Return the most queries that a screen asks, its look left out."""
    first = len(instructions(config, task))
    return first + min(first, config.instructions_kept) * len(config.demonstrations) * config.orders


def longest_prompt(config: ScreenStageConfig, task: Task) -> str:
    """Return a prompt about as long as any that is tried, to plan with."""
    instruction = max(instructions(config, task), key=len)
    number = max((*config.demonstrations, 0))
    longest = sorted(task.train, key=lambda example: len(example.text), reverse=True)[:number]
    return demonstrated(instruction, longest, task) if longest else instruction
