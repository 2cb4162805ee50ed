"""The pool as one local object: what a trial holds, with the protocol of a single oracle.

A dispatcher that dies is started again by Ray. Its answers are then the same, so a client that waited asks again.
"""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

import ray
from ray.exceptions import ActorUnavailableError, RayTaskError

from actors.pool.messages import PUT, Recent, pack
from distributed_tuner.errors import OracleTimeout, TunerError
from distributed_tuner.oracles.codec import PromptCodec
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

P = ParamSpec("P")
Told = TypeVar("Told")

COSTS = 1000  # that a trial remembers: random mini-batches and new texts have costs of their own
AGAIN_SECONDS = 0.3  # between two questions to a dispatcher that is being started again


class RemoteOracle:
    """Answers through the dispatcher. Costs are remembered, since trials ask for the same ones at every step: soft
    candidates cost alike, texts by their tokens. The dispatcher counts, so that no trial loads a tokenizer.

    asker: on whose behalf it asks. Each asker gets a fair share of the pool. priority: how large beside other shares.
    """

    def __init__(self, dispatcher: Any, info: OracleInfo, client_id: str = "", priority: float = 1.0) -> None:
        self._dispatcher = dispatcher
        self._info = info
        self._client_id = client_id
        self._priority = priority
        self._put = Recent(PUT)
        self._costs = Recent(COSTS)
        self._codec = RemoteCodec(dispatcher)

    @property
    def info(self) -> OracleInfo:
        return self._info

    @property
    def codec(self) -> "RemoteCodec":
        return self._codec

    def for_client(self, client_id: str, priority: float = 1.0) -> "RemoteOracle":
        """Return the same pool for another asker."""
        return RemoteOracle(self._dispatcher, self._info, client_id, priority)

    def cost(self, request: Request) -> Cost:
        texts = tuple(one.text if isinstance(one, Text) else None for one in request.candidates)
        key = (texts, request.batch, request.prompt, request.gradient)
        cost: Cost = self._costs.get_or(key, lambda: _get(self._dispatcher.cost.remote(pack(request, self._put))))
        return cost

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


class RemoteCodec:
    """The prompt codec of a pool's model, asked through the dispatcher. Vocabularies are remembered."""

    def __init__(self, dispatcher: Any) -> None:
        self._dispatcher = dispatcher
        self._vocabularies: dict[TokenSpace, tuple[str, ...]] = {}

    def materialize(self, candidate: Candidate, prompt: PromptSpec) -> Array:
        return self._ask(PromptCodec.materialize, candidate, prompt)

    def nearest_tokens(self, rows: Array, layout: Layout = "prefix") -> list[tuple[str, float]]:
        return self._ask(PromptCodec.nearest_tokens, rows, layout)

    def project(self, rows: Sequence[Array], layout: Layout, space: TokenSpace) -> list[str]:
        return self._ask(PromptCodec.project, rows, layout, space)

    def token_count(self, text: str) -> int:
        return self._ask(PromptCodec.token_count, text)

    def answer_words(self, batch: Batch, count: int) -> tuple[str, ...]:
        return self._ask(PromptCodec.answer_words, batch, count)

    def vocabulary(self, space: TokenSpace) -> tuple[str, ...]:
        if space not in self._vocabularies:
            self._vocabularies[space] = self._ask(PromptCodec.vocabulary, space)
        return self._vocabularies[space]

    def _ask(self, method: Callable[Concatenate[PromptCodec, P], Told], *arguments: P.args, **named: P.kwargs) -> Told:
        """Ask the pool for what a method of its codec returns."""
        told: Told = _get(self._dispatcher.ask.remote(method.__name__, *arguments, **named))
        return told


def _get(ref: Any) -> Any:
    """Wait for an answer; an error of ours arrives as itself, not wrapped in Ray's."""
    try:
        return ray.get(ref)
    except RayTaskError as error:
        if isinstance(error.cause, TunerError):
            raise error.cause from None
        raise
