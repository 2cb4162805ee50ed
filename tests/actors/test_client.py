"""The pool's client in a trial: how often it asks the dispatcher."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tiny_models import MIXED, SPEC

from actors.pool import client
from actors.pool.client import RemoteOracle
from distributed_tuner.config.oracle import AnalyticOracleConfig
from distributed_tuner.oracles.analytic import AnalyticOracle
from distributed_tuner.values import Point, Request, Text, TokenSpace

ORACLE = AnalyticOracle(AnalyticOracleConfig())
Called = list[tuple[str, tuple[Any, ...]]]


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> tuple[RemoteOracle, Called]:
    """Return a pool's oracle, and the calls that its dispatcher gets, each of which is answered at once."""
    called: Called = []

    def method(name: str, answer: Callable[..., Any]) -> Any:
        def remote(*arguments: Any) -> Any:
            called.append((name, arguments))
            return answer(*arguments)

        return SimpleNamespace(remote=remote)

    monkeypatch.setattr(client, "pack", lambda request, kept=None: request)
    monkeypatch.setattr(client, "_get", lambda answer: answer)
    ask = method("ask", lambda name, *arguments: getattr(ORACLE.codec, name)(*arguments))
    return RemoteOracle(SimpleNamespace(cost=method("cost", ORACLE.cost), ask=ask), ORACLE.info), called


def test_a_cost_is_asked_for_once(remote: tuple[RemoteOracle, Called]) -> None:
    oracle, called = remote
    soft = tuple(Point(np.full(SPEC.length * ORACLE.info.width, i, dtype=np.float32)) for i in range(3))
    few = replace(MIXED, examples=MIXED.examples[:3])
    requests = [
        Request(soft[:1], MIXED, SPEC),
        Request(soft[:2], MIXED, SPEC),
        Request(soft[:1], few, SPEC),
        Request((Text("good film"),), MIXED, SPEC),
        Request((Text("a good long film"),), MIXED, SPEC),
        Request((Text("good film"), soft[0]), MIXED, SPEC),
        Request(soft[:1], MIXED, SPEC, gradient=True),
    ]
    for _ in range(3):
        assert [oracle.cost(request) for request in requests] == [ORACLE.cost(request) for request in requests]
    assert len(called) == len(requests)
    oracle.cost(Request(soft[1:2], MIXED, SPEC))
    assert len(called) == len(requests), "soft candidates cost alike"


def test_costs_that_were_not_asked_for_lately_are_forgotten(remote: tuple[RemoteOracle, Called]) -> None:
    oracle, called = remote
    for number in range(client.COSTS + 1):
        oracle.cost(Request((Text(f"film {number}"),), MIXED, SPEC))
    oracle.cost(Request((Text("film 7"),), MIXED, SPEC))
    assert len(called) == client.COSTS + 1
    oracle.cost(Request((Text("film 0"),), MIXED, SPEC))
    assert len(called) == client.COSTS + 2


def test_the_codec_asks_for_methods_by_their_names_and_for_vocabularies_once(
    remote: tuple[RemoteOracle, Called],
) -> None:
    oracle, called = remote
    assert [oracle.codec.vocabulary(TokenSpace()) for _ in range(2)] == [ORACLE.codec.vocabulary(TokenSpace())] * 2
    assert oracle.codec.token_count("a good film") == 3
    assert called == [("ask", ("vocabulary", TokenSpace())), ("ask", ("token_count", "a good film"))]
    rows = ORACLE.codec.materialize(Point(np.ones(SPEC.length * ORACLE.info.width, dtype=np.float32)), SPEC)
    assert oracle.codec.nearest_tokens(rows) == ORACLE.codec.nearest_tokens(rows)
