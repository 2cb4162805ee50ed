"""The screen before the search: prompts in words, raced by the loss that the head leaves on train.

Each candidate is a query. Instructions first, and what a proposer adds to them; then the best of them in other
templates; then train rows in front of the best of all. Other label words are read from the same answers. Train
alone has few rows to choose among many prompts: the finalists are evaluated as any prompt is, on train and dev, and the
selected one wins. Pure, except for the oracle and the proposer.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from distributed_tuner.config.stage import ScreenStageConfig
from distributed_tuner.errors import BudgetExhausted, ModelError, TaskError
from distributed_tuner.ledger.rows import EventRow, Row, ScreenedText, ScreenRow
from distributed_tuner.oracles.wrappers.budgeted import BudgetedOracle
from distributed_tuner.prompts.spec import NO_ROWS
from distributed_tuner.proposers.base import Proposer
from distributed_tuner.proposers.instruction import Briefing
from distributed_tuner.seeds import Key
from distributed_tuner.stages.accounting import Accounting
from distributed_tuner.stages.proposing import ask
from distributed_tuner.stages.screen_prompts import (
    PROPOSED_WORDS,
    demonstrated,
    drawn,
    instructions,
    read_as,
    screened_batch,
)
from distributed_tuner.stages.selection import Selected
from distributed_tuner.stages.stage import Stage
from distributed_tuner.stages.trial_memory import Memory
from distributed_tuner.stages.trial_state import Found, TrialState
from distributed_tuner.stages.validation import AnyReader, Validator
from distributed_tuner.tasks.base import Task
from distributed_tuner.values import Candidate, Cost, Request, Text

Part = Literal["instructions", "proposer", "proposals", "templates", "demonstrations", "evaluate"]
PROPOSER_SHOWN = 8  # instructions, with how they did


@dataclass(frozen=True, slots=True)
class Screened:
    """A prompt in words that was scored: the lower the better. shown: places in train of rows that stand in it."""

    text: str
    instruction: str
    shown: tuple[int, ...]
    template: str
    label_words: tuple[str, ...]
    proposed: bool = False
    score: float = math.nan
    metric: float = math.nan


class ScreenStage(Stage):
    """One screen of one trial, a part a call of ``advance``; ``found`` then holds what the search starts from.

    looks: who evaluates a finalist, by the reader of its wording, given what was selected before. keep: what must be
    left in the budget for the search. proposer: who is asked where one is configured. best: the trial's best prompt so
    far.
    """

    prepares: ClassVar[bool] = True

    def __init__(
        self,
        config: ScreenStageConfig,
        *,
        key: Key,
        reader: AnyReader,
        oracle: BudgetedOracle,
        accounting: Accounting,
        validator: Callable[[AnyReader, Selected | None], Validator],
        keep: Cost,
        proposer: Proposer | None = None,
        memory: Memory | None = None,
        best: Selected | None = None,
    ) -> None:
        self._config = config
        self._key = key
        self._reader = reader
        self._task = reader.task
        self._oracle = oracle
        self._accounting = accounting
        self._validator = validator
        self._keep = keep
        self._proposer = proposer
        self._memory = memory or Memory()
        self._selected = best
        self._part: Part = "instructions"
        self._proposals: tuple[str, ...] = ()
        self._scored: tuple[Screened, ...] = ()
        self._finalists: tuple[Screened, ...] = ()
        self._winner: Screened | None = None
        self._notes: tuple[str, ...] = ()
        self._cost = Cost()

    @property
    def selected(self) -> Selected | None:
        """The trial's best prompt so far."""
        return self._selected

    @property
    def current(self) -> Candidate:
        """The best prompt of the screen so far."""
        return Text(self._best()[0].text if self._scored else self._task.manual_prompt)

    @property
    def found(self) -> Found:
        """The winner's wording, and the best prompt in it with words and without demonstrations; the manual prompt
        where nothing could be scored."""
        best = self._finite()
        if not best:
            return Found(self._task.manual_prompt)
        winner = self._winner or best[0]
        like = [one for one in best if (one.template, one.label_words) == (winner.template, winner.label_words)]
        alone = [one.text for one in like if one.text and not one.shown]
        instruction = alone[0] if alone else self._task.manual_prompt
        return Found(instruction, self._other_template(winner.template), self._other_words(winner))

    def hand_over(self, state: TrialState, place: int) -> None:
        """Leave the wording and the instruction that the search starts from."""
        state.screened, state.current = self.found, None

    def advance(self) -> list[Row]:
        """Do the next part. Sets ``done`` and ``reason`` when the screen has ended."""
        match self._part:
            case "instructions":
                self._score([self._plain(text) for text in instructions(self._config, self._task)])
                self._part = "templates" if self._proposer is None else "proposer"
            case "proposer":
                self._part = "proposals"
                return self._ask()
            case "proposals":
                self._score([replace(self._plain(text), proposed=True) for text in self._proposals])
                self._part = "templates"
            case "templates":
                self._score(self._in_other_templates())
                self._part = "demonstrations"
            case "demonstrations":
                self._score(self._demonstrated())
                self._part = "evaluate"
            case "evaluate":
                return [*self._validate(), self._row()]
        return []

    def state_dict(self) -> dict[str, Any]:
        """Return the screen between two calls of ``advance``."""
        return {
            "part": self._part,
            "proposals": self._proposals,
            "scored": self._scored,
            "finals": (self._finalists, self._winner),
            "notes": self._notes,
            "cost": self._cost,
            "selected": self.selected,
            "end": (self.done, self.reason),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the screen."""
        self._part = "evaluate" if state["part"] == "look" else state["part"]  # its name in older versions
        self._proposals = tuple(state["proposals"])
        self._scored, self._notes = tuple(state["scored"]), tuple(state["notes"])
        self._finalists, self._winner = state.get("finals", ((), None))  # none in states of before there were any
        self._cost, self._selected = state["cost"], state["selected"]
        self.done, self.reason = state["end"]

    # ------------------------------------------------------------------------------------------------ parts
    def _ask(self) -> list[Row]:
        """Have the proposer write instructions, shown how those before did."""
        assert self._proposer is not None and self._config.proposer is not None
        by_text = {one.text: one for one in reversed(self._finite()) if one.text}
        shown = sorted(by_text.values(), key=lambda one: one.score)[:PROPOSER_SHOWN]
        briefing = Briefing(
            description=self._task.description,
            label_words=self._task.label_words,
            examples=tuple((one.text, one.score, one.metric) for one in reversed(shown)),
            metric=self._task.metric,
            most_words=PROPOSED_WORDS,
            count=self._config.proposals,
        )
        proposed, rows = ask(
            self._proposer,
            briefing,
            accounting=self._accounting,
            memory=self._memory,
            settings=self._config.proposer,
            known={one.text for one in self._scored},
            screen=True,
        )
        self._proposals = proposed.texts[: self._config.proposals]
        if self._proposals:
            return [*rows]
        problem = f"no proposal from {self._proposer.label}: {proposed.problem}"
        self._notes += (problem,)
        if self._memory.told:
            return [*rows]
        self._memory.told = True
        return [*rows, EventRow(trial_id=self._accounting.trial_id, kind="proposer", message=problem)]

    def _in_other_templates(self) -> list[Screened]:
        return [
            replace(one, template=other.template, label_words=other.label_words)
            for one in self._kept(self._task.template)
            for other in self._task.others
        ]

    def _demonstrated(self) -> list[Screened]:
        config = self._config
        return [
            replace(one, text=demonstrated(one.instruction, [task.train[i] for i in rows], task), shown=rows)
            for one in self._kept()
            for task in (self._worded(one),)
            for number in config.demonstrations
            for order in range(config.orders)
            if (rows := drawn(task, number, (*self._key, "demonstrations", number, order)))
        ]

    def _validate(self) -> list[Row]:
        """Evaluate the finalists, all in one part: the wording of the best is not known before."""
        self.done, self.reason = True, "screened"
        rows: list[Row] = []
        for number, one in enumerate(finalists(self._best(), self._config.finalists)):
            before = self._accounting.spent()
            validator = self._validator(self._reader.of(self._worded(one)), self.selected)
            try:
                row = validator.evaluate(Text(one.text), number, one.shown)
            except (ModelError, TaskError) as error:
                self._notes += (f"not evaluated: {error}",)
                self._cost = self._cost + (self._accounting.spent() - before)
                continue
            except BudgetExhausted as exhausted:
                self.reason = f"budget spent ({exhausted})"
                self._notes += (f"not all finalists were evaluated: {exhausted}",)
                self._cost = self._cost + (self._accounting.spent() - before)
                break
            rows.append(row)
            self._finalists += (one,)
            if row.selected:
                self._selected, self._winner = validator.selected, one
        return rows

    # ------------------------------------------------------------------------------------------------ scores
    def _score(self, prompts: Sequence[Screened]) -> None:
        """Score prompts, one request each, so that one that does not fit costs none of the others."""
        for prompt in prompts:
            before = self._accounting.spent()
            try:
                self._scored += tuple(self._answered(prompt))
            except (ModelError, TaskError) as error:
                self._notes += (f"not tried: {error}",)
            except BudgetExhausted as exhausted:
                self._notes += (f"not all was tried: {exhausted}",)
                return
            finally:
                self._cost = self._cost + (self._accounting.spent() - before)

    def _answered(self, prompt: Screened) -> list[Screened]:
        """Ask for a prompt, and read the answer by its own label words and, without demonstrations, by all others."""
        reader = self._reader.of(self._worded(prompt))
        batch = reader.batch("train") if prompt.shown else screened_batch(reader)
        answer = self._oracle.evaluate(Request((Text(prompt.text),), batch, NO_ROWS), keep=self._keep)
        left = reader.left_on_train(answer, prompt.shown)
        found = [replace(prompt, score=left.loss, metric=left.metric)]
        for words in () if prompt.shown else self._task.verbalizers:
            other = replace(prompt, label_words=words)
            left = self._reader.of(self._worded(other)).left_on_train(read_as(answer, batch, words))
            found.append(replace(other, score=left.loss, metric=left.metric))
        return found

    def _plain(self, text: str) -> Screened:
        return Screened(text, text, (), self._task.template, self._task.label_words)

    def _worded(self, one: Screened) -> Task:
        return self._task.worded(one.template, one.label_words)

    def _best(self) -> list[Screened]:
        """Return what was scored, best first; what failed comes last."""
        return sorted(self._scored, key=lambda one: one.score if math.isfinite(one.score) else math.inf)

    def _finite(self) -> list[Screened]:
        return _scored(self._best())

    def _kept(self, template: str | None = None) -> list[Screened]:
        """Return the best without demonstrations, each instruction once a template; of one template where given."""
        alone = [one for one in self._finite() if not one.shown and template in (None, one.template)]
        distinct = {(one.text, one.template): one for one in reversed(alone)}
        return sorted(distinct.values(), key=lambda one: one.score)[: self._config.instructions_kept]

    # ------------------------------------------------------------------------------------------------ rows
    def _row(self) -> ScreenRow:
        found = self.found
        return ScreenRow(
            **self._accounting.names,
            texts=[
                ScreenedText(
                    text=one.text,
                    demonstrations=len(one.shown),
                    loss=one.score,
                    proposed=one.proposed,
                    template=self._other_template(one.template),
                    label_words=list(self._other_words(one)),
                    finalist=one in self._finalists,
                    selected=one == self._winner,
                )
                for one in self._best()
            ],
            instruction=found.instruction,
            template=found.template,
            label_words=list(found.label_words),
            note="; ".join(dict.fromkeys(self._notes)),
            **self._accounting.of(self._cost),
        )

    def _other_template(self, template: str) -> str:
        return "" if template == self._task.template else template

    def _other_words(self, one: Screened) -> tuple[str, ...]:
        return () if one.label_words == self._task.worded(one.template).label_words else one.label_words


def _scored(prompts: Sequence[Screened]) -> list[Screened]:
    return [one for one in prompts if math.isfinite(one.score)]


def finalists(best: Sequence[Screened], count: int) -> list[Screened]:
    """Return at most ``count`` of the prompts, which come best first, that differ in more than their draw of rows.

    Losses on train are comparable where as many rows are left to be read. So the best of each number of demonstrations
    come first, then the second, and so on; of equal rank the lower loss is nearer.
    """
    different: dict[tuple[object, ...], Screened] = {}
    for one in _scored(best):
        different.setdefault((one.instruction, one.template, one.label_words, len(one.shown)), one)
    ranks: Counter[int] = Counter()
    ranked: list[tuple[int, Screened]] = []
    for one in different.values():
        ranked.append((ranks[len(one.shown)], one))
        ranks[len(one.shown)] += 1
    return [one for _, one in sorted(ranked, key=lambda found: (found[0], found[1].score))][:count]
