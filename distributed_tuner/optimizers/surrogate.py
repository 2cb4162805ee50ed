"""A search by a surrogate: a Gaussian process of all queries so far, and steps to where it expects the lowest loss.

The process is ``maths.gaussian_process``'s; here are the prompts that it has seen, as coefficients of random vectors,
and what is asked next. There is no learning rate: how far a step goes is tried.
"""

import math
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from distributed_tuner.config.optimizer import SurrogateConfig
from distributed_tuner.errors import OptimizerError
from distributed_tuner.maths import gaussian_process
from distributed_tuner.maths.gaussian_process import GaussianProcess, squared_distances
from distributed_tuner.maths.heads import centred
from distributed_tuner.optimizers.answer_loss import AnswerLoss
from distributed_tuner.optimizers.base import Optimizer
from distributed_tuner.optimizers.centers import make_center
from distributed_tuner.optimizers.span import Span
from distributed_tuner.seeds import Key
from distributed_tuner.values import Answers, Array, Array64, Candidate, Perturbation, Point

LENGTHS = (0.7, 1.0, 1.4, 2.0, 2.8, 4.0)  # of the kernel, in distances of a probe from its centre
NOISES = (0.003, 0.01, 0.03, 0.1, 0.3)
REACHES = (0.35, 0.7, 1.4, 2.8)  # of the steps that are tried at once, in the same unit, were the loss linear
AROUND = 2  # which of them the next probes lie around
LATEST = 500  # queries that the process is fitted to: the work of a fit grows with their cube
NUMBERS = 2**23  # of answers that are kept: 32 MiB; fewer than LATEST queries are, from 16,777 rows x label words on
VECTORS = 2048  # of the span, at most: the state grows with their square, to 32 MiB here
ITERATIONS = 80  # of the minimiser, on a function that costs no query


class Surrogate(Optimizer):
    """Descent on a model of the loss: a Gaussian-process surrogate, with damped steps as in Levenberg's method.

    The process predicts the loss (``of: losses``), or the label words' scores on every train example, less their mean
    in each row (``of: answers``). The loss of expected answers is computed as that of real ones is.

    A step has ``popsize`` candidates: from the best point so far, the minimisers of what the process expects plus
    ``damping / 2 |x - best|^2``, for a ladder of dampings, and probes ``x + rho z`` around one of them. The first step
    is the start and probes around it. Length and noise of the process are those under which the losses are likeliest.
    Each probe measures a new direction, all queries so far are used, and the minimisers lie in the span of all probes.

    Losses are compared from step to step, so that each is taken on all training examples. Failed queries are left out,
    and so are those with scores that are not finite, where answers are learnt from.
    ``recommend`` is the start or step with the lowest loss so far, first of ties; a probe has gone its whole length in
    a random direction, and teaches only. ``relocate`` begins anew around the point: what was learnt elsewhere is
    forgotten. So does the state of another trial, whose examples may be others: it begins anew around what that one
    recommended. And after ``VECTORS`` probes it begins anew around its best point, so that its state is bounded.

    Args:
        config: the settings (``distributed_tuner.config.optimizer.SurrogateConfig``).
        dim: P, coordinates of a prompt: its rows L times the model's width D.
        key: prefix of all its random numbers, such as (seed, trial, stage).
        start: x before the first step, shape (P,), float32. Its unit is a standard deviation of the
            embeddings, or 1 (``prompt.scale``).

    Example: 60 queries on a formula; an oracle's ``evaluate`` takes its place.

        >>> import numpy as np
        >>> from distributed_tuner.config.optimizer import SurrogateConfig
        >>> from distributed_tuner.optimizers import build
        >>> from distributed_tuner.prompts.recipes import Recipes
        >>> recipes = Recipes(embedding_std=1.0)
        >>> optimizer = build(SurrogateConfig(popsize=10), dim=40, key=(0,), steps=6)
        >>> for _ in range(6):
        ...     prompts = [recipes.coordinates(asked, dim=40, unit=1.0) for asked in optimizer.ask()]
        ...     optimizer.tell([float(np.sum((x - 0.5) ** 2)) for x in prompts])
        >>> x = recipes.coordinates(optimizer.recommend(), dim=40, unit=1.0)
        >>> float(np.sum((x - 0.5) ** 2)) < 8  # of 10 at the start
        True
    """

    kind: ClassVar[str] = "surrogate"

    def __init__(self, config: SurrogateConfig, *, dim: int, key: Key, start: Array) -> None:
        super().__init__(dim, key)
        self._config = config
        self._begin(start)

    def _begin(self, start: Array) -> None:
        self._span = Span(start)
        self._a_N_J: Array64 = np.zeros((0, 0))
        self._outputs_N_Q: npt.NDArray[Any] = np.zeros((0, 1))
        self._loss_of: AnswerLoss | None = None
        self._best_J: Array64 = np.zeros(0)
        self._best_loss = math.inf
        self._asked_C_J: Array64 = np.zeros((0, 0))

    @property
    def queries_per_step(self) -> int:
        return self._config.popsize

    @property
    def wants_answers(self) -> bool:
        return self._config.of == "answers"

    def recommend(self) -> Candidate:
        return Point(self._span.points(self._best_J[None])[0])

    def _ask(self) -> list[Candidate]:
        steps_C_J = self._steps() if len(self._outputs_N_Q) else np.zeros((1, 0))
        around = min(AROUND, len(steps_C_J) - 1)
        vectors, count = len(self._span), self._config.popsize - len(steps_C_J)
        probes = np.hstack([np.repeat(steps_C_J[around][None], count, axis=0), self._config.rho * np.eye(count)])
        self._asked_C_J = np.vstack([_widened(steps_C_J, vectors + count), probes])
        points = self._span.points(steps_C_J)
        center = make_center(self.key, self.steps_told, points[around])
        return [
            *(Point(x) for x in points),
            *(Perturbation(center, (*self.key, self.steps_told, i), 1, self._config.rho) for i in range(count)),
        ]

    def _tell(self, candidates: tuple[Candidate, ...], losses: Array64, gradients: Array | None) -> None:
        self._learn(candidates, losses, losses[:, None])

    def _tell_answers(self, candidates: tuple[Candidate, ...], losses: Array64, answers: Answers) -> None:
        with np.errstate(invalid="ignore"):
            outputs_C_Q = centred(answers.logits).reshape(len(losses), -1).astype(np.float32)
        failed = ~np.isfinite(outputs_C_Q).all(axis=1)
        if failed.all() and not np.isnan(losses).all():
            raise OptimizerError(
                "a surrogate of answers learns from the label words' scores, but in step"
                f" {self.steps_told} no candidate has finite scores for all of them; set the optimizer's of: losses"
            )
        loss_of = AnswerLoss.of(answers.batch)
        if self._loss_of not in (None, loss_of):
            raise OptimizerError(
                "a surrogate of answers compares the same examples in every step, but those of step"
                f" {self.steps_told} are others; build a new optimizer for another batch"
            )
        self._loss_of = loss_of
        self._learn(candidates, np.where(failed, np.nan, losses), outputs_C_Q)

    def _learn(self, candidates: tuple[Candidate, ...], losses: Array64, outputs_C_Q: npt.NDArray[Any]) -> None:
        """Take in a step: of each candidate the loss and what the process is to predict."""
        told = ~np.isnan(losses)
        if not told.any():
            return
        kept = min(LATEST, max(1, NUMBERS // outputs_C_Q.shape[1]))
        before = self._outputs_N_Q.reshape(-1, outputs_C_Q.shape[1])
        self._span.add([candidate.key for candidate in candidates if isinstance(candidate, Perturbation)])
        width = len(self._span)
        self._a_N_J = np.vstack([_widened(self._a_N_J, width), self._asked_C_J[told]])[-kept:]
        self._outputs_N_Q = np.vstack([before, outputs_C_Q[told]]).astype(outputs_C_Q.dtype)[-kept:]
        self._best_J = _widened(self._best_J[None], width)[0]
        for candidate, a_J, loss in zip(candidates, self._asked_C_J, losses, strict=True):
            if isinstance(candidate, Point) and loss < self._best_loss:
                self._best_J, self._best_loss = a_J.copy(), float(loss)
        self._metrics |= {"best_loss": self._best_loss, "step_loss": float(np.nanmin(losses))}
        if len(self._span) + self._config.popsize > VECTORS:
            self._begin(self._span.points(self._best_J[None])[0])

    # ---------------------------------------------------------------------------------------------------- the model
    def _steps(self) -> Array64:
        """Return the damped minimisers as coefficients (C, J)."""
        from scipy.optimize import minimize  # takes a while to load, and a plan does without

        gram, best_J, radius = self._span.gram, self._best_J, self._config.rho * math.sqrt(self.dim)
        squared_N_N = squared_distances(self._a_N_J, self._a_N_J, gram)
        lengths = [length * radius for length in LENGTHS]
        process = gaussian_process.fit(squared_N_N, self._outputs_N_Q, lengths, NOISES)
        _, away_J = self._expected(process, best_J)
        slope = math.sqrt(max(0.0, float(away_J @ gram @ away_J)))

        def damped(a_J: Array64, damping: float) -> tuple[float, Array64]:
            loss, slope_J = self._expected(process, a_J)
            step_J = a_J - best_J
            return loss + 0.5 * damping * float(step_J @ gram @ step_J), gram @ (slope_J + damping * step_J)

        found = [
            minimize(damped, best_J, (slope / (reach * radius),), "L-BFGS-B", True, options={"maxiter": ITERATIONS}).x
            for reach in REACHES
        ]
        self._metrics = {
            "expected_loss": min(self._expected(process, a_J)[0] for a_J in found),
            "kernel_length": process.length,
            "kernel_noise": process.noise,
        }
        return np.array(found)

    def _expected(self, process: GaussianProcess, a_J: Array64) -> tuple[float, Array64]:
        """Return the loss that the process expects at a point, and its slope as coefficients of the vectors, (J,)."""
        squared_N = squared_distances(a_J[None], self._a_N_J, self._span.gram)[0]
        outputs_Q = process.predict(squared_N)
        loss, slope_Q = (float(outputs_Q[0]), np.ones(1)) if self._loss_of is None else self._loss_of(outputs_Q)
        pulls_N = process.pulls(squared_N, slope_Q)
        return loss, self._a_N_J.T @ pulls_N - pulls_N.sum() * a_J

    # ---------------------------------------------------------------------------------------------------- the state
    def _relocate(self, x: Array) -> None:
        self._begin(x)

    def _save(self) -> dict[str, Any]:
        loss_of = self._loss_of
        learnt: dict[str, Any] = (
            {"losses": self._outputs_N_Q[:, 0].copy()}
            if loss_of is None
            else {"answers": self._outputs_N_Q.copy(), "loss_of": loss_of.save()}
        )
        return {
            "key": list(self.key),
            "span": self._span.save(),
            "coefficients": self._a_N_J.copy(),
            "best": self._best_J.copy(),
            "best_loss": self._best_loss,
            **learnt,
        }

    def _load(self, state: dict[str, Any]) -> None:
        span, best_J = Span.restored(state["span"]), np.array(state["best"], dtype=np.float64)
        if tuple(state["key"]) != self.key:
            self._begin(span.points(best_J[None])[0])
            return
        self._begin(span.start)
        self._span, self._best_J = span, best_J
        if "answers" in state:
            self._loss_of = AnswerLoss.restored(state["loss_of"])
            self._outputs_N_Q = np.array(state["answers"], dtype=np.float32)
        else:
            self._outputs_N_Q = np.array(state["losses"], dtype=np.float64)[:, None]
        self._a_N_J = np.array(state["coefficients"], dtype=np.float64).reshape(len(self._outputs_N_Q), len(span))
        self._best_loss = float(state["best_loss"])


def _widened(a_C_J: Array64, width: int) -> Array64:
    """Return coefficients (C, width): none of further vectors."""
    return np.pad(a_C_J, ((0, 0), (0, width - a_C_J.shape[1])))
