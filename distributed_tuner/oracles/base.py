"""The contract of a loss oracle, and the few things that every oracle computes in the same way."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Protocol

import numpy as np

from distributed_tuner.config.oracle import Price
from distributed_tuner.errors import ModelError
from distributed_tuner.maths.losses import cross_entropy, cross_entropy_slope, hinge, hinge_slope, zero_one
from distributed_tuner.values import (
    Array,
    Array64,
    Batch,
    Candidate,
    Cost,
    Evaluation,
    Layout,
    OracleInfo,
    PromptSpec,
    Request,
    Text,
    TokenSpace,
)

GRADIENT_QUERIES = 3  # what a candidate with its gradient counts as: the backward pass costs about two forward ones


class LossOracle(Protocol):
    """Answers loss queries of a frozen model. Deterministic: the same request gives the same bits.

    An oracle never changes a request and keeps nothing of it that would change a later answer. A failed example is a
    NaN loss, not an exception; exceptions are for requests that cannot be answered at all (``ModelError``).
    """

    @property
    def info(self) -> OracleInfo:
        """Facts of the model."""
        ...

    def cost(self, request: Request) -> Cost:
        """Return what the request will cost: exact queries, forwards and tokens, dollars by the token; no seconds."""
        ...

    def evaluate(self, request: Request, timeout: float = math.inf) -> Evaluation:
        """Return losses, lower is better, in the order of the request's candidates and examples.

        A white box also answers requests for gradients: of each candidate's mean loss by its coordinates.

        Raises:
            OracleTimeout: no answer within ``timeout`` wall-clock seconds (an oracle that cannot be interrupted answers
                late instead).
            ModelError: prompt and text do not fit into the model's context; the oracle gives no gradients.
            TaskError: the label words cannot be told apart by their tokens.
        """
        ...

    def materialize(self, candidate: Candidate, prompt: PromptSpec) -> Array:
        """Return the rows that a soft candidate stands for, shape (L, D), float32."""
        ...

    def nearest_tokens(self, rows: Array, layout: Layout = "prefix") -> list[tuple[str, float]]:
        """Return the nearest vocabulary token of each row (for "add": of filler plus row), and their cosine."""
        ...

    def project(self, rows: Sequence[Array], layout: Layout, space: TokenSpace) -> list[str]:
        """Return each prompt's text V^-1(rows), rows (L, D): the nearest allowed token of every row, joined.

        For "add", the token is that of filler plus row.
        """
        ...

    def token_count(self, text: str) -> int:
        """Return how many tokens a text has as a soft prompt, before it is fitted to its rows."""
        ...

    def vocabulary(self, space: TokenSpace) -> tuple[str, ...]:
        """Return the allowed tokens as they stand in a text, each with its leading space if it has one."""
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


LOSSES = {"cross_entropy": cross_entropy, "hinge": hinge, "zero_one": zero_one}


def evaluation(
    logits_C_E_W: Array,
    batch: Batch,
    cost: Cost,
    gradients_C_P: Array | None = None,
    counts: Mapping[str, int] = MappingProxyType({}),
) -> Evaluation:
    """Turn label-word logits into losses. A candidate with a non-finite example loss has the loss NaN."""
    labels = np.array([example.label for example in batch.examples])
    with np.errstate(invalid="ignore", over="ignore"):
        example_losses = LOSSES[batch.loss](logits_C_E_W, np.broadcast_to(labels, logits_C_E_W.shape[:2]))
        means = example_losses.mean(axis=1)
    losses = np.where(np.isfinite(example_losses).all(axis=1), means, np.nan)
    return Evaluation(losses, example_losses, logits_C_E_W, cost, gradients_C_P, dict(counts))


def mean_loss_slopes(logits_C_E_W: Array, batch: Batch) -> Array64:
    """Return the derivative of each candidate's mean loss by its logits, shape (C, E, W)."""
    labels = np.array([example.label for example in batch.examples])
    slope_of = hinge_slope if batch.loss == "hinge" else cross_entropy_slope
    return slope_of(logits_C_E_W, np.broadcast_to(labels, logits_C_E_W.shape[:2])) / len(batch.examples)


def counted(request: Request, tokens: int) -> Cost:
    """Return queries, forwards and tokens of a request whose candidates' forwards hold so many tokens together."""
    times = GRADIENT_QUERIES if request.gradient else 1
    queries = times * len(request.candidates)
    return Cost(queries, queries * len(request.batch.examples), times * tokens)


def priced(cost: Cost, price: Price, *, output: int = 0, cached: int = 0) -> Cost:
    """Return the cost with its dollars filled in from tokens and device seconds.

    ``output`` of its tokens were written and ``cached`` of those read were found in the server's own cache; the rest
    was read.
    """
    cached_price = price.usd_per_million_cached_input_tokens
    by_token = (
        (cost.tokens - output - cached) * price.usd_per_million_input_tokens
        + cached * (price.usd_per_million_input_tokens if cached_price is None else cached_price)
        + output * price.usd_per_million_output_tokens
    )
    usd = by_token / 1e6 + cost.seconds * price.usd_per_device_hour / 3600
    return Cost(cost.queries, cost.forwards, cost.tokens, cost.seconds, usd)
