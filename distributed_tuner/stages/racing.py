"""Racing: the candidates of a step meet block after block, and those that cannot reach the top mu any more stop early.

The losses of examples are never negative (cross-entropy, hinge). So the mean over all examples, with zero for those not
seen yet, is a certain lower bound of a candidate's loss: it stops when that bound exceeds the mu-th best complete loss.
The top mu and their losses are those of the full evaluation. Where the optimizer goes by the ranks of others as well,
these are completed too, and the rest go on until they are behind them. Blocks are the same for all candidates and steps
(common random numbers). Who answers and who pays is left to the stage.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from distributed_tuner.heads.objective import bounds as profiled_bounds
from distributed_tuner.optimizers.base import Race
from distributed_tuner.oracles.base import evened, labels_of
from distributed_tuner.values import LABEL_WORDS, Array, Array64, Batch, Cost, Evaluation, Request

FITTED_TO = 1e-9  # how far Newton's method may be from the best bias, in the loss


@dataclass(frozen=True, slots=True)
class RaceBatch:
    """Next request of a race: candidates, by index, on the examples of one block, a half-open range."""

    candidates: tuple[int, ...]
    examples: tuple[int, int]


class Racing:
    """The rule: which race batch comes next, and what the losses are in the end.

    All candidates run the first block. The mu of lowest mean there (the first of equals) and ``race.exact`` are
    completed; their worst loss is the threshold, and the others run on until their bound exceeds it. A candidate that
    completes among the top mu may lower it. A candidate with a loss that is not finite fails at once; the next most
    promising takes its place.
    """

    def __init__(self, candidates: int, batch: Batch, race: Race) -> None:
        examples = len(batch.examples)
        self._race = race
        self._objective, self._labels = batch.objective, labels_of(batch)
        self._losses_C_E: Array64 = np.zeros((candidates, examples))  # zero where not seen
        self._logits_C_E_W = np.zeros((candidates, examples, len(batch.label_words)), dtype=np.float32)
        self._seen_C = np.zeros(candidates, dtype=np.int64)
        self._failed_C = np.zeros(candidates, dtype=np.bool_)
        self._bounds_C: Array64 | None = None  # of a profiled objective, until more is seen

    def race_batch(self) -> RaceBatch | None:
        """Return what is asked next; None when the race is over."""
        runners = self._runners()
        if not runners:
            return None
        lacking = max(0, self._race.mu - int(self._complete.sum()))
        exact = [i for i in runners if i in self._race.exact]
        if (lacking or exact) and self._seen_C.any():  # no threshold yet: the leading ones, then the most promising
            means_C = self._means_seen()
            runners = sorted(runners, key=lambda i: (-self._seen_C[i], means_C[i], i))
            runners = [i for place, i in enumerate(runners) if place < lacking or i in exact]
        first = int(self._seen_C[runners[0]])
        together = tuple(sorted(i for i in runners if self._seen_C[i] == first))
        return RaceBatch(together, (first, min(first + self._race.block, self._losses_C_E.shape[1])))

    def score(self, race_batch: RaceBatch, example_losses_C_E: Array64, logits_C_E_W: Array | None = None) -> None:
        """Take in the answer to ``race_batch``: a row for each of its candidates, a column for each of its examples.

        ``example_losses_C_E``: of the label words as they are. A profiled objective needs the logits as well.
        """
        rows, (first, last) = list(race_batch.candidates), race_batch.examples
        finite = np.isfinite(example_losses_C_E)
        self._losses_C_E[rows, first:last] = np.where(finite, example_losses_C_E, 0.0)
        if not self._objective.plain:
            assert logits_C_E_W is not None
            told = np.where(finite[..., None], evened(logits_C_E_W, logits_C_E_W), 0.0)
            self._logits_C_E_W[rows, first:last] = told
        self._bounds_C = None
        self._seen_C[rows] = last
        self._failed_C[rows] = ~finite.all(axis=1)

    @property
    def stopped(self) -> int:
        """Number of candidates that stopped early, without failed ones."""
        return int((~self._complete & ~self._failed_C).sum())

    def losses(self) -> Array64:
        """Return the losses for the optimizer once the race is over, shape (C,).

        Complete candidates have the mean over all examples, failed ones NaN. A candidate that stopped has the mean over
        the examples it saw, and in any case more than the threshold: an estimate, behind all that must be exact.
        """
        behind = np.nextafter(self._threshold(), np.inf)
        estimates_C = np.maximum(self._means_seen(), behind)
        losses_C = np.where(self._complete, self._bounds(), estimates_C)
        return np.where(self._failed_C, np.nan, losses_C)

    # ------------------------------------------------------------------------------------------------ parts
    @property
    def _complete(self) -> npt.NDArray[np.bool_]:
        seen_all: npt.NDArray[np.bool_] = self._seen_C == self._losses_C_E.shape[1]
        return seen_all & ~self._failed_C

    def _runners(self) -> list[int]:
        running_C = ~self._complete & ~self._failed_C & (self._bounds() <= self._threshold())
        return [int(i) for i in np.flatnonzero(running_C)]

    def _threshold(self) -> float:
        """Return the mu-th best complete loss, or a worse one that must be exact; infinity until these are complete."""
        complete_C, bounds_C = self._complete, self._bounds()
        complete = np.sort(bounds_C[complete_C])
        exact = [i for i in self._race.exact if not self._failed_C[i]]
        if len(complete) < self._race.mu or not complete_C[exact].all():
            return np.inf
        return float(max([complete[self._race.mu - 1], *bounds_C[exact]]))

    def _bounds(self) -> Array64:
        """Return the lower bounds, which are the losses where all examples were seen.

        Of a profiled objective they are what is left of the examples seen after the bias that fits these best, less
        what its fit may be off. Of the label words both are one sum in one order, and floating-point addition never
        falls when a term grows: no rounding error can lift a bound above the loss.
        """
        if self._objective.plain:
            bounds: Array64 = self._losses_C_E.mean(axis=1)
            return bounds
        if self._bounds_C is None:
            found = profiled_bounds(self._logits_C_E_W, self._seen_C, self._labels, self._objective)
            self._bounds_C = np.where(self._seen_C == self._losses_C_E.shape[1], found, found - FITTED_TO)
        return self._bounds_C

    def _means_seen(self) -> Array64:
        if not self._objective.plain:
            return np.asarray(self._bounds() * self._losses_C_E.shape[1] / np.maximum(self._seen_C, 1))
        means: Array64 = self._losses_C_E.sum(axis=1) / np.maximum(self._seen_C, 1)
        return means


@dataclass(frozen=True, eq=False, slots=True)
class Raced:
    """Result of a race: losses (C,) for the optimizer, cost, and the number of candidates that stopped early."""

    losses: Array64
    cost: Cost
    stopped: int


def run_race(request: Request, race: Race, evaluate: Callable[[Request, int], Evaluation]) -> Raced:
    """Race the candidates of ``request`` over its examples, one request a race batch.

    ``evaluate`` is given a race batch's request and the queries that it counts as. Together, the race batches so far
    count as their forwards divided by the examples of the whole batch, rounded up: never more than the full evaluation.
    """
    examples = request.batch.examples
    racing, cost, forwards = Racing(len(request.candidates), request.batch, race), Cost(), 0
    while (race_batch := racing.race_batch()) is not None:
        first, last = race_batch.examples
        forwards += len(race_batch.candidates) * (last - first)
        queries = -(-forwards // len(examples)) - cost.queries
        candidates = tuple(request.candidates[i] for i in race_batch.candidates)
        batch = replace(request.batch, examples=examples[first:last], objective=LABEL_WORDS)
        answer = evaluate(Request(candidates, batch, request.prompt), queries)
        racing.score(race_batch, answer.example_losses, answer.logits)
        cost = cost + answer.cost
    return Raced(racing.losses(), cost, racing.stopped)
