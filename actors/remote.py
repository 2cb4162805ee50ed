"""The pool as one local object: what a trial holds, with the protocol of a single oracle."""

import math
from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import RayTaskError

from actors.wire import pack
from distributed_tuner.errors import TunerError
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


class RemoteOracle:
    """Answers through the dispatcher. Costs are remembered, since trials ask for the same ones at every step."""

    def __init__(self, dispatcher: Any, info: OracleInfo) -> None:
        self._dispatcher = dispatcher
        self._info = info
        self._costs: dict[tuple[int, Batch, PromptSpec, bool], Cost] = {}
        self._vocabularies: dict[TokenSpace, tuple[str, ...]] = {}

    @property
    def info(self) -> OracleInfo:
        return self._info

    def cost(self, request: Request) -> Cost:
        if any(isinstance(candidate, Text) for candidate in request.candidates):
            cost: Cost = _get(self._dispatcher.cost.remote(request))
            return cost
        key = (len(request.candidates), request.batch, request.prompt, request.gradient)
        if key not in self._costs:
            if len(self._costs) > 1000:  # random mini-batches
                self._costs.clear()
            self._costs[key] = _get(self._dispatcher.cost.remote(pack(request).request))
        return self._costs[key]

    def evaluate(self, request: Request, timeout: float = math.inf) -> Evaluation:
        answer: Evaluation = _get(self._dispatcher.evaluate.remote(pack(request), timeout))
        return answer

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
