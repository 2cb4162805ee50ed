"""The restart stage: an LLM reads how prompts of the stage before scored, and proposes others to start again from.

Three parts, one a call of ``advance``: the stage's prompts are put into words and scored, the proposer is asked, and
its proposals are scored beside the prompt that the trial came with. Guo et al. 2024; with ``reproduce_paper`` as their
code."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from distributed_tuner.config.stage import RestartStageConfig
from distributed_tuner.errors import BudgetExhausted
from distributed_tuner.ledger.rows import EventRow, ExchangeRow, FeedbackRow, RestartRow, Row, ScoredText, StepRow
from distributed_tuner.oracles.base import LossOracle
from distributed_tuner.oracles.wrappers.budgeted import BudgetedOracle
from distributed_tuner.prompts.pool import PooledText, Source, best_of, present_source
from distributed_tuner.proposers.base import Proposer
from distributed_tuner.proposers.instruction import Briefing
from distributed_tuner.stages.accounting import Accounting
from distributed_tuner.stages.exploit import Exploit
from distributed_tuner.stages.prompt_space import PromptSpace, words_of
from distributed_tuner.stages.proposing import ask, failures_of
from distributed_tuner.stages.selection import Selected
from distributed_tuner.stages.stage import Stage
from distributed_tuner.stages.trajectory import Trajectory
from distributed_tuner.stages.trial_memory import Memory
from distributed_tuner.stages.trial_state import TrialState
from distributed_tuner.stages.validation import Validator, scores_of
from distributed_tuner.tasks.base import Task
from distributed_tuner.values import Batch, Candidate, Cost, Embedded, Evaluation, Request, Start, TokenSpace

PUBLISHED_SHOWN = 5  # distinct prompts, and every second of the first nine where there are so many
PUBLISHED_SPACE = TokenSpace("published", "published")
Part = Literal["read", "wait", "ask", "choose", "evaluate"]


@dataclass(frozen=True, eq=False, slots=True)
class Adopted:
    """The prompt that the next stage starts from."""

    place: Start
    text: str
    source: Literal["proposal", "source_trial"]

    @classmethod
    def present_fields(cls, fields: dict[str, Any]) -> dict[str, Any]:
        """Return the fields of a saved one in present words."""
        return fields | {"source": present_source(fields["source"])}


class RestartStage(Stage):
    """One restart stage of one trial.

    ``incumbent`` is the prompt that the trial comes with. ``waits``: after its first part the stage waits until
    ``go_on`` or ``take_over`` says what a population's schedule decided. ``validator``: no stage follows that would
    look."""

    def __init__(
        self,
        config: RestartStageConfig,
        *,
        task: Task,
        space: PromptSpace,
        model: LossOracle,
        oracle: BudgetedOracle,
        accounting: Accounting,
        validator: Validator | None,
        proposer: Proposer,
        memory: Memory,
        trajectory: Trajectory,
        incumbent: Candidate,
        waits: bool = False,
    ) -> None:
        self._config = config
        self._task = task
        self._space = space
        self._model = model
        self._oracle = oracle
        self._accounting = accounting
        self._validator = validator
        self._proposer = proposer
        self._memory = memory
        self._trajectory = trajectory
        self._incumbent = incumbent
        self._waits = waits
        self._part: Part = "read"
        self._proposals: tuple[str, ...] = ()
        self._exploit: Exploit | None = None
        self._problem = ""
        self.adopted: Adopted | None = None

    # ------------------------------------------------------------------------------------------------ what others see
    @property
    def selected(self) -> Selected | None:
        """The trial's best prompt so far, where this stage looks; else None."""
        return None if self._validator is None else self._validator.selected

    @property
    def current(self) -> Candidate:
        """The prompt that the trial goes on with."""
        return self._incumbent if self.adopted is None else self._space.at(self.adopted.place)

    @property
    def waiting(self) -> bool:
        """True while a population's schedule must decide."""
        return self._part == "wait" and not self.done

    def go_on(self) -> list[Row]:
        """The schedule leaves the trial its prompt; return the row that says so."""
        return self._end("the schedule lets it continue with its own prompt")

    def take_over(self, exploit: Exploit) -> None:
        """The schedule has the trial restart."""
        self._exploit = exploit
        self._part = "ask"

    def hand_over(self, state: TrialState, place: int) -> None:
        """Leave the prompt that was adopted; without one, what a restart stage right before it adopted still stands."""
        state.current, state.trajectory = self.current, Trajectory()
        if self.adopted is not None:
            state.adopted = self.adopted.place

    def advance(self) -> list[Row]:
        """Do the next part. Sets ``done`` and ``reason`` when the stage has ended."""
        parts = {"read": self._read, "ask": self._ask, "choose": self._choose, "evaluate": self._validate}
        before = self._accounting.spent()
        try:
            rows = parts[self._part]()
        except BudgetExhausted as exhausted:
            self.exhausted = True
            rows = self._end(f"budget spent ({exhausted})")
        lost = self._accounting.given_up(before, rows)
        if lost is not None:
            names, accounting = self._accounting.names, self._accounting.of(lost)
            rows = [StepRow(**names, step=0, loss=None, best_loss=None, failed=lost.queries, **accounting), *rows]
        return rows

    def state_dict(self) -> dict[str, Any]:
        """Return the stage between two calls of ``advance``."""
        return {
            "part": self._part,
            "proposals": self._proposals,
            "takeover": self._exploit,
            "problem": self._problem,
            "adopted": self.adopted,
            "incumbent": self._incumbent,
            "selected": self.selected,
            "end": (self.exhausted, self.done, self.reason),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the stage."""
        self._part = "evaluate" if state["part"] == "look" else state["part"]  # its name in older versions
        self._proposals, self._exploit = state["proposals"], state["takeover"]
        self._problem, self.adopted, self._incumbent = state["problem"], state["adopted"], state["incumbent"]
        self.exhausted, self.done, self.reason = state["end"]
        if self._validator is not None:
            self._validator.selected = state["selected"]

    # ------------------------------------------------------------------------------------------------ parts
    def _read(self) -> list[Row]:
        """Put the stage's prompts into words and score them."""
        if self._memory.failures >= self._config.proposer.give_up_after and not self._waits:
            return self._end("the proposer was given up before")
        texts = self._texts()
        if not self._config.reproduce_paper:  # on the same examples, nothing that was scored scores otherwise
            known = {entry.text for entry in self._memory.pool}
            texts = [text for text in texts if text not in known]
        rows: list[Row] = []
        if texts:
            batch = self._feedback()
            answer = self._oracle.evaluate(self._request([self._prompt_of(text) for text in texts], batch))
            scored = self._scored(texts, ["trajectory"] * len(texts), answer, batch)
            rows = [FeedbackRow(**self._accounting.names, texts=scored, **self._accounting.of(answer.cost))]
        self._part = "wait" if self._waits else "ask"
        return rows

    def _texts(self) -> list[str]:
        """Return the texts of the chosen prompts, each once; of the incumbent alone where no stage went before."""
        reproduce_paper = self._config.reproduce_paper
        points = self._trajectory.chosen(self._config.trajectory)
        if reproduce_paper:
            points = [point for point in self._trajectory.recorded if point.step > 0]  # recorded after each step
        candidates = [point.candidate for point in points] or [self._incumbent]
        tokens = self._config.tokens
        space = PUBLISHED_SPACE if reproduce_paper else TokenSpace(tokens.vocabulary, tokens.distance)
        texts = [text for text in dict.fromkeys(self._space.texts(self._model, candidates, space)) if text]
        if not reproduce_paper:
            return texts
        return texts[:: min(2, max(1, len(texts) // PUBLISHED_SHOWN))][:PUBLISHED_SHOWN]

    def _ask(self) -> list[Row]:
        """Have the proposer write."""
        settings, memory = self._config.proposer, self._memory
        self._part = "choose"
        if memory.failures >= settings.give_up_after:
            self._problem = "the proposer was given up before"
            return []
        pool = memory.pool if self._exploit is None else (*self._exploit.pool, *memory.pool)
        briefing, generated = self._with_failures(self._briefing(pool))
        proposed, rows = ask(
            self._proposer,
            briefing,
            accounting=self._accounting,
            memory=memory,
            settings=settings,
            known={entry.text for entry in pool},
            reproduce_paper=self._config.reproduce_paper,
            too_long=lambda text: self._space.is_too_long(self._model, text),
        )
        self._proposals = proposed.texts[: 1 if self._config.reproduce_paper else self._config.proposals]
        return [*generated, *rows, *self._judged(proposed.problem), *self._too_long(rows)]

    def _with_failures(self, briefing: Briefing) -> tuple[Briefing, list[Row]]:
        """Have the best prompt that is shown answer the feedback examples, and add what it gets wrong, of a task with
        targets and where the budget allows it."""
        if not self._task.has_targets or not briefing.examples:
            return briefing, []
        text, loss, _ = briefing.examples[-1]
        batch = self._task.generated_batch("feedback")
        try:
            answer = self._oracle.evaluate(self._request([self._prompt_of(text)], batch))
        except BudgetExhausted:
            return briefing, []
        metric = scores_of(self._task, answer, batch)[self._task.metric]
        scored = [ScoredText(text=text, source="trajectory", loss=loss, metric=metric)]
        row = FeedbackRow(**self._accounting.names, texts=scored, **self._accounting.of(answer.cost))
        return replace(briefing, failures=failures_of(self._task, answer, batch.examples)), [row]

    def _briefing(self, pool: Sequence[PooledText]) -> Briefing:
        stage = self._accounting.stage
        own = [entry for entry in pool if entry.stage == stage and entry.trial_id == self._accounting.trial_id]
        shown = best_of(own, PUBLISHED_SHOWN) if self._config.reproduce_paper else best_of(pool, self._config.shown)
        return Briefing(
            description=self._task.description,
            label_words=self._task.label_words,
            examples=tuple((entry.text, entry.loss, entry.metric) for entry in shown),
            metric=self._task.metric,
            most_words=self._space.most_words,
            count=self._config.proposals,
        )

    def _judged(self, problem: str) -> list[Row]:
        """Count stages without a proposal; warn at the first, and at the one after which the proposer is given up."""
        memory, limit = self._memory, self._config.proposer.give_up_after
        if self._proposals:
            memory.failures = 0
            return []
        memory.failures += 1
        self._problem = problem
        rows: list[Row] = []
        if not memory.told:
            memory.told = True
            rows.append(self._event("proposer", f"no proposal from {self._proposer.label}: {problem}"))
        if memory.failures == limit:
            rows.append(
                self._event(
                    "proposer_given_up",
                    f"{self._proposer.label} had no proposal in {limit} restart stages in a row; the trial goes on"
                    " searching without it",
                )
            )
        return rows

    def _too_long(self, rows: Sequence[ExchangeRow]) -> list[Row]:
        """Tell, once a trial, that proposals are cut; the exchanges count them."""
        if self._memory.cut_told or not any(row.cut for row in rows):
            return []
        self._memory.cut_told = True
        what = f"proposals of more than {self._space.spec.length} tokens are cut there, as are those of later stages"
        return [self._event("proposals_cut", what)]

    def _choose(self) -> list[Row]:
        """Score proposals, the source trial's prompt and the incumbent on the same examples; adopt the best proposal
        if it beats what it must beat."""
        if self._config.reproduce_paper and self._exploit is None:
            return self._adopt_unscored()
        theirs = None if self._exploit is None else self._exploit.place
        if not self._proposals and theirs is None:
            return self._end(self._problem or "no proposal")
        known = self._memory.incumbent_loss if theirs is None else None
        entries: list[tuple[Source, str, Candidate]] = []
        if known is None:
            entries.append(("incumbent", words_of(self._incumbent) or "", self._incumbent))
        if theirs is not None:
            entries.append(("source_trial", words_of(self._space.at(theirs)) or "", self._space.at(theirs)))
        first = len(entries)
        entries += [("proposal", text, self._prompt_of(text)) for text in self._proposals]
        sources, texts, candidates = zip(*entries, strict=True)
        batch = self._feedback()
        answer = self._oracle.evaluate(self._request(candidates, batch))
        scored = self._scored(texts, sources, answer, batch)
        losses = np.where(np.isfinite(answer.losses), answer.losses, math.inf)
        best = first + int(losses[first:].argmin()) if self._proposals else -1
        incumbent = known if known is not None else float(losses[0])
        to_beat = float(losses[first - 1]) if first else incumbent  # the source trial's, where there is one
        wins = best >= 0 and losses[best] < math.inf and (losses[best] < to_beat or self._config.adopt == "always")
        if wins:
            text = self._proposals[best - first]
            self.adopted = self._adoption(text)
        elif theirs is not None:
            self.adopted = Adopted(theirs, words_of(self._space.at(theirs)) or "", "source_trial")
        reason = "" if wins else self._problem or "no proposal beat the prompt that it had to beat"
        self._memory.incumbent_loss = float(losses[best]) if wins else to_beat
        return self._end(reason, incumbent, [text for text in scored if text.source != "incumbent"], answer.cost)

    def _adopt_unscored(self) -> list[Row]:
        if not self._proposals:
            return self._end(self._problem or "no proposal")
        text = self._proposals[0]
        self.adopted = self._adoption(text)
        self._memory.incumbent_loss = None
        return self._end("", None, [ScoredText(text=text, source="proposal", loss=None, metric=None)])

    def _end(
        self,
        reason: str,
        incumbent: float | None = None,
        scored: list[ScoredText] | None = None,
        cost: Cost | None = None,
    ) -> list[Row]:
        """End the choice, and the stage unless an evaluation is still to come."""
        adopted, exploit = self.adopted, self._exploit
        self.reason = reason or f"adopted a {adopted.source if adopted else 'prompt'}"
        if self._validator is not None and (self.adopted is not None or self._validator.selected is None):
            self._part = "evaluate"
        else:
            self.done = True
        return [
            RestartRow(
                **self._accounting.names,
                incumbent_loss=incumbent,
                scored=scored or [],
                adopted="none" if adopted is None else adopted.source,
                text="" if adopted is None else adopted.text,
                source_trial=None if exploit is None else exploit.source_trial,
                settings={} if exploit is None else exploit.settings,
                reason=reason,
                **self._accounting.of(cost or Cost()),
            )
        ]

    def _validate(self) -> list[Row]:
        assert self._validator is not None
        self.done = True
        try:
            return [self._validator.evaluate(self.current, 0)]
        except BudgetExhausted as exhausted:
            self.reason = f"budget spent ({exhausted})"
            return []

    # ------------------------------------------------------------------------------------------------ small things
    def _feedback(self) -> Batch:
        return self._task.batch("dev" if self._config.reproduce_paper else "feedback")

    def _request(self, candidates: Sequence[Candidate], batch: Batch) -> Request:
        return Request(tuple(candidates), batch, self._space.spec)

    def _adoption(self, text: str) -> Adopted:
        return Adopted(self._space.place(self._model, self._prompt_of(text)), text, "proposal")

    def _prompt_of(self, text: str) -> Candidate:
        return Embedded(text, published=True) if self._config.reproduce_paper else self._space.of_text(text)

    def _scored(
        self, texts: Sequence[str], sources: Sequence[Source], answer: Evaluation, batch: Batch
    ) -> list[ScoredText]:
        """Return the scores as rows hold them, and put what has words into the pool."""
        metrics = [scores_of(self._task, answer, batch, i)[self._task.metric] for i in range(len(texts))]
        self._memory.pool += tuple(
            PooledText(text, float(loss), metric, source, self._accounting.trial_id, self._accounting.stage)
            for text, loss, metric, source in zip(texts, answer.losses, metrics, sources, strict=True)
            if text
        )
        return [
            ScoredText(text=text, source=source, loss=float(loss), metric=metric)
            for text, source, loss, metric in zip(texts, sources, answer.losses, metrics, strict=True)
        ]

    def _event(self, kind: str, message: str) -> EventRow:
        return EventRow(trial_id=self._accounting.trial_id, kind=kind, message=message)
