"""Conformance of oracles: every member passes the shipped suite. A new oracle joins by one line in MEMBERS."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tiny_models import ARCHITECTURES, MASKED_ARCHITECTURES

from distributed_tuner.config.oracle import Tile
from distributed_tuner.oracles.wrappers.tiled import TiledOracle
from distributed_tuner.testing import VocabularySuite
from distributed_tuner.testing.oracles import LAYOUTS, Member, batch_of, same_bits
from distributed_tuner.values import Request, Text

MEMBERS = ("analytic-logistic", "analytic-quadratic", *ARCHITECTURES, *MASKED_ARCHITECTURES)


class TestEveryOracle(VocabularySuite):
    @pytest.fixture(scope="module", params=MEMBERS)
    def member(self, request: pytest.FixtureRequest, tiny_oracle: Any, analytic: Any) -> Member:
        name = request.param
        if name.startswith("analytic"):
            settings = {"function": name.removeprefix("analytic-"), "width": 8}
            return Member(analytic(**settings), lambda price: analytic(**settings, price=price))
        masked = name in MASKED_ARCHITECTURES
        layouts = tuple(layout for layout in LAYOUTS if layout != "suffix" or not masked)
        return Member(tiny_oracle(name), lambda price: tiny_oracle(name, price=price), masked, layouts)

    @pytest.mark.parametrize("member", MEMBERS[:2], indirect=True)
    @pytest.mark.parametrize("gradient", [False, True])
    def test_tiles_of_an_analytic_oracle_do_not_even_round_otherwise(self, member: Member, gradient: bool) -> None:
        request = replace(member.request("prefix", texts=not gradient), gradient=gradient)
        whole = member.oracle.evaluate(request)
        assert len(request.candidates) > 4
        for candidates in (2, 4):
            tiled = TiledOracle(member.oracle, Tile(candidates=candidates, examples=64)).evaluate(request)
            assert same_bits(tiled, whole)
            if gradient:
                np.testing.assert_array_equal(tiled.gradients, whole.gradients)

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_cost_counts_queries_forwards_and_tokens(self, member: Member, layout: str) -> None:
        # Text and cue: "a good film" 3, "bad" 1, " It was" 2 a row. Five prompt rows a forward, two soft candidates.
        # The text prompt "Classify the movie" is 3 words, and a newline that is a token to the language models. A
        # masked model reads more around them.
        batch = batch_of(["a good film", "bad"])
        texts = (Text("Classify the movie"),)
        request = Request((*member.candidates()[:2], *texts), batch, member.spec(layout))
        newline = 0 if member.oracle.info.model.startswith("analytic") else 1
        around = member.around
        soft = 2 * ((3 + 2) + (1 + 2) + 2 * (5 + around))
        hard = (3 + 2) + (1 + 2) + 2 * (3 + newline + around)
        cost = member.oracle.cost(request)
        assert (cost.queries, cost.forwards, cost.tokens, cost.seconds) == (3, 6, soft + hard, 0.0)
        charged = member.oracle.evaluate(request).cost
        assert (charged.queries, charged.forwards, charged.tokens) == (cost.queries, cost.forwards, cost.tokens)
        assert charged.seconds > 0
