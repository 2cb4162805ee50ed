"""Gradients of a pool of actors: the bits of one oracle in this process, and what they cost."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter
from tiny_models import MIXED, SPEC

from actors.pool.pool import Pool
from distributed_tuner import oracles
from distributed_tuner.config.oracle import OracleConfig
from distributed_tuner.errors import ModelError
from distributed_tuner.oracles.base import value_and_grad
from distributed_tuner.oracles.wrappers.tiled import TiledOracle
from distributed_tuner.seeds import standard_normal
from distributed_tuner.values import Center, Perturbation, Point, Request, Text

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

ADAPTER: TypeAdapter[Any] = TypeAdapter(OracleConfig)


@pytest.mark.extended  # losses of two actors, and a run with a gradient stage, stand for it
def test_two_actors_give_the_bits_of_one_oracle(llama: dict[str, Any]) -> None:
    settings = {**llama, "gradients": True, "threads": 1, "tile": {"candidates": 2, "examples": 3}}
    config = ADAPTER.validate_python({**settings, "actors": 2})
    alone = TiledOracle(oracles.build(config), config.tile)
    dim = SPEC.length * alone.info.width
    center = Center("c", standard_normal(("center",), dim))
    candidates = (Point(standard_normal(("x",), dim)), Perturbation(center, ("z",), 1, 0.3), Point(center.vector))
    pool = Pool.start(config, "gradients")
    try:
        for layout in ("prefix", "suffix"):
            request = Request(candidates, MIXED, replace(SPEC, layout=layout))
            got, expected = value_and_grad(pool.oracle, request), value_and_grad(alone, request)
            assert got.gradients is not None and expected.gradients is not None
            assert got.gradients.tobytes() == expected.gradients.tobytes()
            np.testing.assert_array_equal(got.logits, expected.logits)
            plain, asked = (pool.oracle.cost(replace(request, gradient=gradient)) for gradient in (False, True))
            assert (asked.queries, asked.tokens) == (3 * plain.queries, 3 * plain.tokens)
            assert (got.cost.queries, got.cost.forwards, got.cost.tokens) == (
                asked.queries,
                asked.forwards,
                asked.tokens,
            )
        with pytest.raises(ModelError, match="soft ones"):
            value_and_grad(pool.oracle, Request((Text("Classify"),), MIXED, SPEC))
    finally:
        pool.stop()
