"""The survey before a search: losses around its start, from which the settings that were left to "auto" are taken.

One request, paid from the trial's budget like a step. What the losses tell is ``maths.survey``'s business; when a
survey is due, and what its settings change, the trial's.
"""

from typing import Any

import numpy as np

from distributed_tuner.config.optimizer import ZotConfig
from distributed_tuner.config.stage import SearchStageConfig
from distributed_tuner.errors import BudgetExhausted
from distributed_tuner.ledger.rows import Row, SurveyRow
from distributed_tuner.maths.survey import (
    Survey,
    learning_rate_of,
    noise_level,
    points_of,
    radius_of,
    signal_to_noise,
    survey,
)
from distributed_tuner.oracles.wrappers.budgeted import BudgetedOracle
from distributed_tuner.seeds import Key
from distributed_tuner.stages.accounting import Books
from distributed_tuner.stages.selection import Selected
from distributed_tuner.values import (
    Array,
    Array64,
    Batch,
    Candidate,
    Center,
    Cost,
    Perturbation,
    Point,
    PromptSpec,
    Request,
)

DIRECTIONS = 8
FAR = 1.0  # of the larger radius, in standard deviations of the model's embeddings; the smaller is half of it
HAIR = 1.0 / 512.0  # between the points whose losses differ by noise alone
HAIRS = 4  # such points on either side
QUERIES = 1 + 2 * HAIRS + 4 * DIRECTIONS
LEAST = 1.0 / 64.0  # of rho, in the same unit
MOST_POINTS = 64


class SurveyStage:
    """One survey of one stage. ``advance`` makes it and returns its row; ``settings`` then holds what was found.

    start: coordinates, shape (P,). unit: how long a standard deviation of the embeddings is in them. keep: what must be
    left in the budget for the search. ``best``: what the stages before selected.
    """

    def __init__(
        self,
        config: SearchStageConfig,
        *,
        key: Key,
        batch: Batch,
        prompt: PromptSpec,
        oracle: BudgetedOracle,
        books: Books,
        start: Array,
        unit: float,
        keep: Cost,
        best: Selected | None,
    ) -> None:
        assert isinstance(config.optimizer, ZotConfig)
        self._optimizer = config.optimizer
        self._key = key
        self._batch = batch
        self._prompt = prompt
        self._oracle = oracle
        self._books = books
        self._start = start
        self._radius = unit * FAR / 2.0
        self._unit = unit
        self._keep = keep
        self.selected = best
        self.done = False
        self.reason = ""
        self.settings: dict[str, float] = {}

    @property
    def current(self) -> Candidate:
        """Where the survey stands."""
        return Point(self._start)

    def advance(self) -> list[Row]:
        """Ask, and say what follows from the answer. Where nothing can be measured, the settings are the defaults."""
        request = Request(self._candidates(), self._batch, self._prompt)
        try:
            answer = self._oracle.evaluate(request, keep=self._keep)
        except BudgetExhausted as exhausted:
            return [self._end(None, f"the survey could not be paid ({exhausted})", Cost())]
        found = self._found(np.asarray(answer.losses, dtype=np.float64))
        note = "" if found else "too many of the survey's queries failed"
        return [self._end(found, note, answer.cost)]

    def state_dict(self) -> dict[str, Any]:
        """Return the survey between two calls of ``advance``."""
        return {"ended": (self.done, self.reason, dict(self.settings))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the survey."""
        self.done, self.reason, self.settings = state["ended"]

    # ------------------------------------------------------------------------------------------------ parts
    def _candidates(self) -> tuple[Candidate, ...]:
        center = Center("/".join([*map(str, self._key), "survey"]), self._start)

        def pair(direction: int, radius: float) -> list[Candidate]:
            return [Perturbation(center, (*self._key, "survey", direction), sign, radius) for sign in (1, -1)]

        hairs = [c for k in range(1, HAIRS + 1) for c in pair(0, k * HAIR * self._unit)]
        pairs = [c for far in (1, 2) for i in range(DIRECTIONS) for c in pair(i, far * self._radius)]
        return (Point(self._start), *hairs, *pairs)

    def _found(self, losses: Array64) -> Survey | None:
        """Return what the losses tell; None where the middle's are not all finite, or fewer than two directions'."""
        hairs, around = losses[: 1 + 2 * HAIRS], losses[1 + 2 * HAIRS :].reshape(2, DIRECTIONS, 2)
        whole = np.isfinite(around).all(axis=(0, 2))
        if not np.isfinite(hairs).all() or whole.sum() < 2:
            return None
        near, far = around[:, whole]
        line = np.concatenate([hairs[2::2][::-1], hairs[:1], hairs[1::2]])
        return survey(float(line.mean()), noise_level(line), near, far, self._radius)

    def _end(self, found: Survey | None, note: str, cost: Cost) -> SurveyRow:
        self.done, self.reason = True, note or "surveyed"
        self.settings = self._settings(found)
        measured: dict[str, Any] = {}
        if found is not None:
            snr = signal_to_noise(found, self.settings["rho"])
            measured = {
                "noise": found.noise,
                "slope": found.slope,
                "trace": found.trace.value,
                "trace_error": found.trace.error,
                "norm": found.norm,
                "effective_dimension": found.effective_dimension,
                "snr": snr if np.isfinite(snr) else None,
            }
        return SurveyRow(**self._books.names, settings=self.settings, note=note, **measured, **self._books.of(cost))

    def _settings(self, found: Survey | None) -> dict[str, float]:
        """Return points, rho and learning rate that the search goes on with, those that were given among them."""
        measured: dict[str, float] = {}
        if found is not None:
            given = self._optimizer.points
            points = points_of(found.effective_dimension, MOST_POINTS) if given == "auto" else given
            rate = learning_rate_of(found, points, longest=self._unit * FAR)
            measured = {"points": points, "rho": radius_of(found, LEAST * self._unit, FAR * self._unit)}
            if rate > 0.0:
                measured["learning_rate"] = rate
        settled = self._optimizer.settled(measured)
        return {name: getattr(settled, name) for name in ("points", "rho", "learning_rate")}
