"""The contract of a loss oracle, and the few things that every oracle computes in the same way."""

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from distributed_tuner.config.oracle import Price
from distributed_tuner.maths.losses import cross_entropy, hinge
from distributed_tuner.values import (
    Array,
    Batch,
    Candidate,
    Cost,
    Evaluation,
    Layout,
    OracleInfo,
    PromptSpec,
    Request,
    TokenSpace,
)


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

        Raises:
            OracleTimeout: no answer within ``timeout`` wall-clock seconds (an oracle that cannot be interrupted answers
                late instead).
            ModelError: prompt and text do not fit into the model's context.
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


def evaluation(logits_C_E_W: Array, batch: Batch, cost: Cost, gradients_C_P: Array | None = None) -> Evaluation:
    """Turn label-word logits into losses. A candidate with a non-finite example loss has the loss NaN."""
    labels = np.array([example.label for example in batch.examples])
    loss_of = hinge if batch.loss == "hinge" else cross_entropy
    with np.errstate(invalid="ignore", over="ignore"):
        example_losses = loss_of(logits_C_E_W, np.broadcast_to(labels, logits_C_E_W.shape[:2]))
        means = example_losses.mean(axis=1)
    losses = np.where(np.isfinite(example_losses).all(axis=1), means, np.nan)
    return Evaluation(losses, example_losses, logits_C_E_W, cost, gradients_C_P)


def priced(cost: Cost, price: Price) -> Cost:
    """Return the cost with its dollars filled in from tokens and device seconds."""
    usd = cost.tokens * price.usd_per_million_tokens / 1e6 + cost.seconds * price.usd_per_device_hour / 3600
    return Cost(cost.queries, cost.forwards, cost.tokens, cost.seconds, usd)
