"""The contract of a loss oracle, and the few things that every oracle computes in the same way."""

import math
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from distributed_tuner.config.oracle import Price
from distributed_tuner.errors import ModelError
from distributed_tuner.heads.objective import profiled
from distributed_tuner.maths.heads import centred, fit_bias
from distributed_tuner.maths.losses import cross_entropy, cross_entropy_slope, hinge, hinge_slope, zero_one
from distributed_tuner.values import (
    Array,
    Array64,
    Batch,
    Cost,
    Evaluation,
    Half,
    LossName,
    OracleInfo,
    Request,
    Text,
)

Scalar = TypeVar("Scalar", bound=np.generic)

MEMBERS = ("info", "cost", "evaluate")  # of a LossOracle
GRADIENT_QUERIES = 3  # what a candidate with its gradient counts as: the backward pass costs about two forward ones


class LossOracle(Protocol):
    """Answers loss queries of a frozen model. Deterministic: the same request gives the same bits.

    An oracle never changes a request and keeps nothing of it that would change a later answer. A failed example is a
    NaN loss, not an exception; exceptions are for requests that cannot be answered at all (``ModelError``).

    One that knows its model's tokenizer and embeddings has a ``codec`` as well (codec.py). One of your own is made with
    its settings alone: ``distributed_tuner.oracles.custom.Oracle`` has everything except the scores.

    Example: the loss of one prompt of zeros on the 32 train examples of the demo task.

    >>> import numpy as np
    >>> from distributed_tuner import Analytic
    >>> from distributed_tuner.config.task import DemoTaskConfig
    >>> from distributed_tuner.oracles.analytic import AnalyticOracle
    >>> from distributed_tuner.tasks.demo import build_demo
    >>> from distributed_tuner.values import Point, PromptSpec, Request
    >>> oracle, train = AnalyticOracle(Analytic()), build_demo(DemoTaskConfig(shots=8)).batch("train")
    >>> prompt = PromptSpec(length=8, init="zeros", text="", layout="prefix", scale="embedding")
    >>> zeros = Point(np.zeros(8 * oracle.info.width, dtype=np.float32))
    >>> answer = oracle.evaluate(Request((zeros,), train, prompt))
    >>> answer.logits.shape, answer.cost.queries, answer.cost.forwards
    ((1, 32, 4), 1, 32)
    """

    @property
    def info(self) -> OracleInfo:
        """Facts of the model."""
        ...

    def cost(self, request: Request) -> Cost:
        """Compute the cost of a request beforehand.

        Args:
            request: C candidates on a batch of E examples.

        Returns:
            Exact queries (C; a gradient counts as three), forwards and tokens, US dollars by the token; no seconds.
        """
        ...

    def evaluate(self, request: Request, timeout: float = math.inf) -> Evaluation:
        """Score every candidate of a request on every example of its batch.

        Args:
            request: C candidates on a batch of E examples. A white box also takes requests for gradients, of each
                candidate's mean loss by its coordinates.
            timeout: wall-clock seconds.

        Returns:
            Losses (C,), lower is better, and label-word logits (C, E, W), in the order of the candidates and examples;
            ``cost.seconds`` is device time. Of targets the logits are log-likelihoods (C, E, 1).

        Raises:
            OracleTimeout: no answer within ``timeout`` wall-clock seconds (an oracle that cannot be interrupted answers
                late instead).
            ModelError: prompt and text do not fit into the model's context; the oracle gives no gradients.
            TaskError: the label words cannot be distinguished by their tokens.
        """
        ...


def value_and_grad(oracle: LossOracle, request: Request) -> Evaluation:
    """Return losses and gradients of a white box.

    Raises:
        ModelError: the oracle gives no gradients, or a candidate is a text; and what ``evaluate`` raises.
    """
    return oracle.evaluate(replace(request, gradient=True))


def require_coordinates(request: Request) -> None:
    """Check that every candidate has coordinates to derive by, where gradients are asked for, and the loss a slope.

    Raises:
        ModelError: a candidate is a text, or the loss is zero_one.
    """
    if request.gradient and request.batch.loss == "zero_one":
        raise ModelError("the loss zero_one has no gradient; set task.loss to cross_entropy or hinge")
    if request.gradient and any(isinstance(candidate, Text) for candidate in request.candidates):
        raise ModelError("a gradient is by the prompt's coordinates, which a text in words has not; ask for soft ones")


def require_label_words(batch: Batch) -> None:
    """Check that the scores of label words alone are asked for.

    Raises:
        ModelError: those of other words are.
    """
    if batch.answer_words:
        raise ModelError(
            f"this oracle tells the scores of label words alone, but {len(batch.answer_words)} other words are asked"
            " for; set head: bias, or oracle.kind: transformers or vllm"
        )


LOSSES = {"cross_entropy": cross_entropy, "hinge": hinge, "zero_one": zero_one}


def evaluation(
    logits_C_E_W: Array,
    batch: Batch,
    cost: Cost,
    gradients_C_P: Array | None = None,
    counts: Mapping[str, int] = MappingProxyType({}),
    features_C_E_V: Half | None = None,
) -> Evaluation:
    """Turn label-word logits, or targets' log-likelihoods, into losses. A candidate with a non-finite example loss has
    the loss NaN.

    What tells nothing (minus infinity) counts as an example that all label words fit alike, for all candidates: it
    costs none its loss, and wins none anything.
    """
    labels = labels_of(batch)
    with np.errstate(invalid="ignore", over="ignore"):
        if batch.question == "targets":
            example_losses = -logits_C_E_W[..., 0].astype(np.float64)
            means = example_losses.mean(axis=1)
        elif batch.objective.plain:
            example_losses = plain_losses(batch.loss, logits_C_E_W, labels)
            means = example_losses.mean(axis=1)
        else:
            even, even_features = evened(logits_C_E_W, logits_C_E_W), features_C_E_V
            if even_features is not None:
                even_features = evened(even_features, logits_C_E_W)
            means, example_losses = profiled(even, even_features, labels, batch.objective)
    losses = np.where(np.isfinite(example_losses).all(axis=1), means, np.nan)
    return Evaluation(losses, example_losses, logits_C_E_W, cost, gradients_C_P, dict(counts), features=features_C_E_V)


def plain_losses(loss: LossName, logits: npt.NDArray[Any], labels: npt.ArrayLike) -> Array64:
    """Return example losses (...) of logits (..., W). What tells nothing fits all words alike, and is not right."""
    out = tells_nothing(logits)
    losses = LOSSES[loss](evened(logits, logits), np.broadcast_to(labels, logits.shape[:-1]))
    return np.where(out, 1.0, losses) if loss == "zero_one" else losses


def evened(scores: npt.NDArray[Scalar], logits: npt.NDArray[Any]) -> npt.NDArray[Scalar]:
    """Return scores (..., V) that are all alike where the logits (..., W) tell nothing."""
    out = tells_nothing(logits)
    return np.where(out[..., None], scores.dtype.type(0), scores) if out.any() else scores


def tells_nothing(logits: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Say which examples (..., W) tell nothing: minus infinity for every label word."""
    return np.asarray(np.isneginf(logits).all(axis=-1))


def labels_of(batch: Batch) -> npt.NDArray[np.int64]:
    """Return the label index of each example, (E,)."""
    return np.array([example.label for example in batch.examples], dtype=np.int64)


def answer(
    scores_C_E_V: Array,
    batch: Batch,
    cost: Cost,
    gradients_C_P: Array | None = None,
    counts: Mapping[str, int] = MappingProxyType({}),
) -> Evaluation:
    """Turn the scores of label words and answer words (C, E, V), or targets' log-likelihoods (C, E, 1), into an
    evaluation."""
    logits = np.ascontiguousarray(scores_C_E_V[..., : batch.scores])
    features = features_of(scores_C_E_V) if batch.answer_words else None
    return evaluation(logits, batch, cost, gradients_C_P, counts, features)


def features_of(scores_C_E_V: Array) -> Half:
    """Return answer features: scores less their mean in each row, which no head sees, in half precision.

    They vary by some nats, so that rounding moves them by some thousandths.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        return centred(scores_C_E_V).astype(np.float16)


def bias_of(logits_E_W: Array, batch: Batch) -> Array64:
    """Return the bias (W,) at which the slopes of the batch's objective are taken: 0 of a plain one."""
    if batch.objective.plain:
        return np.zeros(logits_E_W.shape[-1])
    return fit_bias(logits_E_W, labels_of(batch), batch.objective.strength)


def mean_loss_slopes(logits_C_E_W: Array | Array64, batch: Batch) -> Array64:
    """Return the derivative of each candidate's mean loss by its logits, shape (C, E, W).

    Of a profiled objective the logits must have its bias added: by the envelope theorem that is all there is to it. Of
    targets they are log-likelihoods (C, E, 1).
    """
    if batch.question == "targets":
        return np.full(logits_C_E_W.shape, -1.0 / len(batch.examples))
    labels = labels_of(batch)
    slope_of = hinge_slope if batch.loss == "hinge" else cross_entropy_slope
    return slope_of(logits_C_E_W, np.broadcast_to(labels, logits_C_E_W.shape[:2])) / len(batch.examples)


def counted(request: Request, tokens: int, output: int = 0) -> Cost:
    """Return queries, forwards and tokens of a request whose candidates' forwards hold so many tokens together.

    ``output``: tokens that are generated in addition.
    """
    times = GRADIENT_QUERIES if request.gradient else 1
    queries = times * len(request.candidates)
    return Cost(queries, queries * len(request.batch.examples), times * tokens + output, output_tokens=output)


def priced(cost: Cost, price: Price, *, cached: int = 0) -> Cost:
    """Return the cost with its dollars filled in from tokens and device seconds.

    ``cached`` of the tokens read were found in the server's own cache.
    """
    output = cost.output_tokens
    cached_price = price.usd_per_million_cached_input_tokens
    by_token = (
        (cost.tokens - output - cached) * price.usd_per_million_input_tokens
        + cached * (price.usd_per_million_input_tokens if cached_price is None else cached_price)
        + output * price.usd_per_million_output_tokens
    )
    usd = by_token / 1e6 + cost.seconds * price.usd_per_device_hour / 3600
    return replace(cost, usd=usd)
