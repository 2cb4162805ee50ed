"""The pool as one local object: what a trial holds, with the protocol of a single oracle.

A dispatcher that dies is started again by Ray. Its answers are the same then, so whoever waited for one asks again.
"""

import math
import time
from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayTaskError

from actors.pool.messages import PUT, Recent, pack
from distributed_tuner.errors import OracleTimeout, TunerError
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
    Text,
    TokenSpace,
)

AGAIN_SECONDS = 0.3  # between two questions to a dispatcher that is being started again


class RemoteOracle:
    """Answers through the dispatcher. Costs are remembered, since trials ask for the same ones at every step.

    asker: on whose behalf it asks. Each asker gets a fair share of the pool. priority: how large beside other shares.
    """

    def __init__(self, dispatcher: Any, info: OracleInfo, client_id: str = "", priority: float = 1.0) -> None:
        self._dispatcher = dispatcher
        self._info = info
        self._client_id = client_id
        self._priority = priority
        self._put = Recent(PUT)
        self._costs: dict[tuple[int, Batch, PromptSpec, bool], Cost] = {}
        self._vocabularies: dict[TokenSpace, tuple[str, ...]] = {}

    @property
    def info(self) -> OracleInfo:
        return self._info

    def for_client(self, client_id: str, priority: float = 1.0) -> "RemoteOracle":
        """Return the same pool for another asker."""
        return RemoteOracle(self._dispatcher, self._info, client_id, priority)

    def cost(self, request: Request) -> Cost:
        if any(isinstance(candidate, Text) for candidate in request.candidates):
            cost: Cost = _get(self._dispatcher.cost.remote(pack(request, self._put)))
            return cost
        key = (len(request.candidates), request.batch, request.prompt, request.gradient)
        if key not in self._costs:
            if len(self._costs) > 1000:  # random mini-batches
                self._costs.clear()
            self._costs[key] = _get(self._dispatcher.cost.remote(pack(request, self._put)))
        return self._costs[key]

    def evaluate(self, request: Request, timeout: float = math.inf) -> Evaluation:
        packed = pack(request, self._put)
        until, left = time.monotonic() + timeout, timeout
        while True:
            try:
                answer: Evaluation = _get(
                    self._dispatcher.evaluate.remote(packed, left, self._client_id, self._priority)
                )
                return answer
            except ActorUnavailableError:  # the time goes on meanwhile
                time.sleep(AGAIN_SECONDS)
                left = until - time.monotonic()
                if left <= 0:
                    raise OracleTimeout(f"no answer within {timeout:.1f} s; the dispatcher was away") from None

    def materialize(self, candidate: Candidate, prompt: PromptSpec) -> Array:
        nothing = Batch((), (), "train")
        rows: Array = _get(self._dispatcher.materialize.remote(pack(Request((candidate,), nothing, prompt))))
        return rows

    def nearest_tokens(self, rows: Array, layout: Layout = "prefix") -> list[tuple[str, float]]:
        tokens: list[tuple[str, float]] = _get(self._dispatcher.nearest_tokens.remote(rows, layout))
        return tokens

    def project(self, rows: Sequence[Array], layout: Layout, space: TokenSpace) -> list[str]:
        texts: list[str] = _get(self._dispatcher.project.remote(list(rows), layout, space))
        return texts

    def token_count(self, text: str) -> int:
        count: int = _get(self._dispatcher.token_count.remote(text))
        return count

    def answer_words(self, batch: Batch, count: int) -> tuple[str, ...]:
        words: tuple[str, ...] = _get(self._dispatcher.answer_words.remote(batch, count))
        return words

    def vocabulary(self, space: TokenSpace) -> tuple[str, ...]:
        if space not in self._vocabularies:
            self._vocabularies[space] = _get(self._dispatcher.vocabulary.remote(space))
        return self._vocabularies[space]


def _get(ref: Any) -> Any:
    """Wait for an answer; an error of ours arrives as itself, not wrapped in Ray's."""
    try:
        return ray.get(ref)
    except RayTaskError as error:
        if isinstance(error.cause, TunerError):
            raise error.cause from None
        raise
