"""Parity check of an oracle: the same losses again, alone as among others, and as the plain model gives them.

A wrong loss looks like any other. So a few prompts are scored on a few examples before a run, in ways that must agree.
What is measured and what is refused is owned here; what is asked with, and what follows for a run, is the caller's.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np

from distributed_tuner.errors import ModelError
from distributed_tuner.maths.losses import cross_entropy
from distributed_tuner.oracles.base import LossOracle
from distributed_tuner.oracles.tiling import summed
from distributed_tuner.values import (
    Array,
    Array64,
    Batch,
    Candidate,
    Center,
    Cost,
    Evaluation,
    Perturbation,
    Point,
    PromptSpec,
    Request,
    Text,
)

EXAMPLES = 8  # that parity cases are scored on
TIMES = 3  # that each is scored: with the others, with them again, and alone
STEADY = 1e-3  # of a loss: an answer that differs by less is the same one
NOISE_LIMIT = 0.5  # an endpoint whose answer changes by more when it is asked again cannot be searched with
TOLERANCE = {"float32": 0.01}  # of a loss, by the dtype that the oracle computes in
FEW_BITS = 0.05  # ... in bfloat16 and the like
ROWS = 4.0  # single examples may be so many tolerances off: rounding averages out over them
ALIKE = 0.25  # of the plain path's difference of two prompts, below which they are taken for one

Canaries = dict[str, Candidate]
Plain = Callable[[Request], Array | None]
"""Returns the logits (C, E, W) of the plain forward pass; None where there is none."""


@dataclass(frozen=True, slots=True)
class Parity:
    """Measurements: the largest differences over the parity cases, NaN if no two losses were finite.

    Of losses, relative to them where they are above 1. repeated: of a request and the same again; together: of a parity
    case alone and among the others, both RMS over examples. plain: of the mean loss and the plain path's; None: it was
    not run. beyond: tokens that a forward with a text was billed more than the oracle had counted. counts, remarks and
    tops: of all answers.
    """

    repeated: float
    together: float
    plain: float | None
    beyond: float
    counts: Mapping[str, int]
    cost: Cost
    remarks: tuple[tuple[str, str], ...] = ()
    tops: Mapping[str, float] = field(default_factory=dict)

    @property
    def noisy(self) -> bool:
        """The same question has different answers, so that none can be kept in the place of another."""
        return not self.repeated <= STEADY


def canaries(text: str, spec: PromptSpec, width: int, embedding_std: float) -> Canaries:
    """Return the prompts that are scored: two texts, and for a soft prompt its start and two points near it.

    The model's embeddings have ``width`` numbers and the standard deviation ``embedding_std``.
    """
    named: Canaries = {"no prompt": Text("")}
    if text:
        named["the prompt in words"] = Text(text)
    if spec.length:
        start = Center("parity", np.zeros(spec.length * width, dtype=np.float32))
        radius = 1.0 if spec.scale == "embedding" else embedding_std
        named["the soft prompt at its start"] = Point(start.vector)
        for i in (1, 2):
            named[f"soft prompt {i} beside it"] = Perturbation(start, ("parity", i), 1, radius)
    return named


def check(oracle: LossOracle, named: Canaries, batch: Batch, spec: PromptSpec, plain: Plain, hint: str) -> Parity:
    """Score the parity cases together, again, and each alone; compare with the plain path where there is one.

    ``hint`` is what a refusal advises where the plain path disagrees.

    Raises:
        ModelError: no loss is finite; answers to one question are too far apart; two prompts that differ in their rows
            have one answer; the plain path has another answer.
    """
    batch = replace(batch, examples=batch.examples[:EXAMPLES])
    names, asked = list(named), Request(tuple(named.values()), batch, spec, fresh=True)
    first, again = oracle.evaluate(asked), oracle.evaluate(asked)
    losses = _losses(first.logits, batch)
    if not np.isfinite(losses).any():
        said = f" ({first.remarks[-1][1]})" if first.remarks else ""
        if batch.question == "targets":
            raise ModelError(
                f"the model must score the targets, but none of {losses.size} answers had a likelihood{said}; set"
                " objective: metric, which generates texts instead"
            )
        raise ModelError(
            f"the model must score the label words, but none of {losses.size} answers had any of"
            f" {list(batch.label_words)}{said}; set words that it would write (task.label_words), or a manual prompt"
            " that asks for one of them alone; where probabilities are read, a larger oracle.top_logprobs, or"
            " oracle.scores: generated"
        )
    repeated = _apart(losses, _losses(again.logits, batch))
    _require(repeated, NOISE_LIMIT, names, "the same question must have about the same answer, but asked again")
    noise, tolerance = _largest(repeated), TOLERANCE.get(oracle.info.dtype, FEW_BITS)
    alone = [oracle.evaluate(one) for one in reversed(_each(asked))][::-1]  # what is left of another question shows
    losses_alone = _losses(np.concatenate([answer.logits for answer in alone]), batch)
    together = _apart(losses, losses_alone)
    slack = 0.0 if math.isnan(noise) else noise
    hint_alone = _mixed_up(losses, losses_alone, together, names)
    rule = "a prompt must have the same loss alone and among others, but alone"
    _require(together, ROWS * tolerance + 3 * slack, names, rule, hint_alone)
    logits = plain(asked)
    expected = None if logits is None else _losses(logits, batch)
    _require_told_apart(asked.candidates, names, losses, expected)
    away = None
    if expected is not None:
        away = _away(losses, expected)
        _require(away, tolerance + slack, names, "a served model must answer as transformers does, but beside it", hint)
    answers = (first, again, *alone)
    return Parity(
        noise,
        _largest(together),
        None if away is None else _largest(away),
        _beyond(oracle, _each(asked), alone),
        sum((Counter(answer.counts) for answer in answers), Counter[str]()),
        sum((answer.cost for answer in answers), Cost()),
        tuple(dict.fromkeys(remark for answer in answers for remark in answer.remarks)),
        summed(answer.tops for answer in answers),
    )


def _each(request: Request) -> list[Request]:
    return [replace(request, candidates=(candidate,)) for candidate in request.candidates]


def _beyond(oracle: LossOracle, asked: Sequence[Request], answers: Sequence[Evaluation]) -> float:
    texts = [(one, answer) for one, answer in zip(asked, answers, strict=True) if isinstance(one.candidates[0], Text)]
    tokens = sum(answer.cost.tokens - oracle.cost(one).tokens for one, answer in texts)
    return tokens / max(1, sum(answer.cost.forwards for _, answer in texts))


def _losses(logits_C_E_W: Array, batch: Batch) -> Array64:
    """Return the cross-entropies (C, E), whatever loss the task has: a loss of steps would hide differences. Of targets
    the negative log-likelihoods."""
    if batch.question == "targets":
        return -logits_C_E_W[..., 0].astype(np.float64)
    labels = np.array([example.label for example in batch.examples])
    return cross_entropy(logits_C_E_W, np.broadcast_to(labels, logits_C_E_W.shape[:2]))


def _apart(a_C_E: Array64, b_C_E: Array64) -> Array64:
    """Return the RMS differences (C,) over the examples that both answered; NaN where there are none."""
    return _over_examples(a_C_E, b_C_E, lambda difference_E: math.sqrt(float(np.mean(difference_E**2))))


def _away(a_C_E: Array64, b_C_E: Array64) -> Array64:
    """Return the differences (C,) of the mean losses over the examples that both answered."""
    return _over_examples(a_C_E, b_C_E, lambda difference_E: abs(float(np.mean(difference_E))))


def _over_examples(a_C_E: Array64, b_C_E: Array64, size: Callable[[Array64], float]) -> Array64:
    found = np.full(len(a_C_E), np.nan)
    for i, (a_E, b_E) in enumerate(zip(a_C_E, b_C_E, strict=True)):
        both = np.isfinite(a_E) & np.isfinite(b_E)
        if both.any():
            found[i] = size(a_E[both] - b_E[both]) / max(1.0, float(np.mean(b_E[both])))
    return found


def _largest(differences_C: Array64) -> float:
    finite = differences_C[np.isfinite(differences_C)]
    return float(finite.max()) if finite.size else math.nan


def _require(differences_C: Array64, limit: float, names: Sequence[str], rule: str, hint: str = "") -> None:
    worst = _largest(differences_C)
    if worst > limit:
        name = names[int(np.nanargmax(differences_C))]
        advice = hint or "the endpoint mixes up requests, or it is not one model; use another endpoint"
        raise ModelError(f"{rule} it is off by {worst:.3g} (at most {limit:.3g}) for {name}; {advice}")


def _mixed_up(among_C_E: Array64, alone_C_E: Array64, apart_C: Array64, names: Sequence[str]) -> str:
    """Return whose answer the worst parity case has among others, if it is another's."""
    if not np.isfinite(apart_C).any():
        return ""
    worst = int(np.nanargmax(apart_C))
    others = _apart(np.broadcast_to(among_C_E[worst], alone_C_E.shape), alone_C_E)
    nearest = int(np.nanargmin(others))
    if nearest == worst or not others[nearest] < ALIKE * apart_C[worst]:
        return ""
    return f"among others it has the answer of {names[nearest]}: the endpoint mixes up requests; use another endpoint"


def _require_told_apart(
    candidates: Sequence[Candidate], names: Sequence[str], answered_C_E: Array64, expected_C_E: Array64 | None
) -> None:
    """Check that prompts which differ in their rows alone do not share an answer, as from shared keys and values."""
    soft = [i for i, candidate in enumerate(candidates) if not isinstance(candidate, Text)]
    for i, j in combinations(soft, 2):
        got = _pair(answered_C_E, i, j)
        wanted = None if expected_C_E is None else _pair(expected_C_E, i, j)
        if got == 0.0 if wanted is None else wanted > FEW_BITS and got < ALIKE * wanted:
            expectation = "" if wanted is None else f" instead of {wanted:.3g}"
            raise ModelError(
                f"prompts that differ in their rows must have losses of their own, but {names[i]} and {names[j]} are"
                f" {got:.3g} apart{expectation}: the server shares their keys and values, or reads no embeddings;"
                " switch its prefix cache off (oracle.prefix_caching), or update it"
            )


def _pair(losses_C_E: Array64, i: int, j: int) -> float:
    return float(_apart(losses_C_E[[i]], losses_C_E[[j]])[0])
