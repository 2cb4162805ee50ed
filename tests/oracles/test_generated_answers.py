"""Generated answers where no model is needed: noise, stop strings, cost, tiles, budgets, the cache, refusals."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import MIXED, SPEC

from distributed_tuner.budget import BudgetTracker
from distributed_tuner.config.budget import BudgetConfig
from distributed_tuner.config.oracle import AnalyticOracleConfig, Price, Tile
from distributed_tuner.errors import BudgetExhausted, ModelError
from distributed_tuner.maths.sampling import sample
from distributed_tuner.oracles.analytic import AnalyticOracle
from distributed_tuner.oracles.custom import Oracle
from distributed_tuner.oracles.decoding import draws, evaluation_of_texts, trimmed
from distributed_tuner.oracles.wrappers.budgeted import BudgetedOracle
from distributed_tuner.oracles.wrappers.cached import CachedOracle
from distributed_tuner.oracles.wrappers.tiled import TiledOracle
from distributed_tuner.values import (
    Array,
    Batch,
    Candidate,
    Center,
    Cost,
    Decoding,
    Embedded,
    Evaluation,
    Latent,
    Perturbation,
    Point,
    Projection,
    Request,
    Text,
)

WIDTH = 8
DIM = SPEC.length * WIDTH
CENTER = Center("c", np.full(DIM, 0.1, dtype=np.float32))
PROJECTION = Projection(seed=3, dim=6, alpha=1.0, sigma=1.0)
CANDIDATES: tuple[Candidate, ...] = (
    Perturbation(CENTER, ("z", 0), 1, 0.5),
    Perturbation(CENTER, ("z", 0), -1, 0.5),
    Perturbation(CENTER, ("z", 1), 1, 0.5),
    Latent(np.ones(6, dtype=np.float32), PROJECTION, CENTER),
    Latent(np.zeros(6, dtype=np.float32), PROJECTION),
    Point(np.ones(DIM, dtype=np.float32)),
    Embedded("good film"),
    Text("good film"),
    Text("Extract the noun"),
)


def asked(candidates: tuple[Candidate, ...] = CANDIDATES, **how: Any) -> Request:
    decoding = Decoding(**({"max_new_tokens": 4} | how))
    examples = tuple(replace(example, target="bright story") for example in MIXED.examples)
    return Request(candidates, Batch(examples, (), "train", decoding=decoding), SPEC)


def analytic(**settings: Any) -> AnalyticOracle:
    return AnalyticOracle(AnalyticOracleConfig(kind="analytic", width=WIDTH, **settings))


# ------------------------------------------------------------------------------------------------------- the parts
def test_noise_follows_from_seed_candidate_and_example_alone() -> None:
    decoding = Decoding(5, seed=1)
    streams = [draws(decoding, candidate, uid) for candidate in CANDIDATES for uid in ("a", "b")]
    streams += [draws(replace(decoding, seed=2), CANDIDATES[0], "a")]
    assert len({stream.tobytes() for stream in streams}) == len(streams)
    moved = replace(CANDIDATES[0], center=Center("c", CENTER.vector + 0))  # type: ignore[type-var]
    assert draws(decoding, moved, "a").tobytes() == streams[0].tobytes()
    assert draws(replace(decoding, max_new_tokens=3), CANDIDATES[0], "a").tolist() == streams[0][:3].tolist()


@given(st.floats(0, 1, exclude_max=True), st.floats(0.1, 3.0))
def test_a_sample_is_the_inverse_of_the_distribution_function(uniform: float, temperature: float) -> None:
    logits = np.array([[0.3, -np.inf, 2.0, -1.0]], dtype=np.float32)
    weights = np.exp(logits[0].astype(np.float64) / temperature)
    edges = np.cumsum(weights) / weights.sum()
    (chosen,) = sample(logits, temperature, np.array([uniform]))
    assert chosen != 1
    assert uniform <= edges[chosen] + 1e-12
    assert chosen == 0 or uniform >= edges[chosen - 1] - 1e-12


@pytest.mark.parametrize(
    ("text", "stop", "wanted"),
    [
        (" a word\nmore", ("\n",), "a word"),
        ("a END b\n", ("\n", "END"), "a"),
        ("none", ("\n",), "none"),
        ("\nlater", ("\n",), ""),
        ("all of it", (), "all of it"),
    ],
)
def test_a_text_ends_before_its_first_stop_string(text: str, stop: tuple[str, ...], wanted: str) -> None:
    assert trimmed(text, stop) == wanted


def test_a_failed_example_fails_no_other() -> None:
    answer = evaluation_of_texts([["a", None], ["b", "c"]], replace(asked().batch, examples=MIXED.examples[:2]), Cost())
    assert answer.texts == (("a", None), ("b", "c"))
    assert answer.counts == {"failed_answers": 1}
    assert answer.logits.shape == (2, 2, 0) and answer.losses.shape == (2,)
    assert np.isnan(answer.losses).all() and np.isnan(answer.example_losses).all()


# ------------------------------------------------------------------------------------------------------- an oracle
@pytest.mark.parametrize("how", [{}, {"temperature": 0.7, "seed": 3}])
@pytest.mark.parametrize("function", ["logistic", "quadratic", "flat"])
def test_the_same_texts_whatever_the_tiles(function: str, how: dict[str, Any]) -> None:
    oracle, request = analytic(function=function), asked(**how)
    whole = oracle.evaluate(request)
    assert [len(row) for row in whole.texts] == [len(MIXED.examples)] * len(CANDIDATES)
    for tile in (Tile(candidates=2, examples=1), Tile(candidates=4, examples=3)):
        pieces = TiledOracle(oracle, tile).evaluate(request)
        assert pieces.texts == whole.texts
        assert replace(pieces.cost, seconds=0.0) == replace(whole.cost, seconds=0.0)
    alone = oracle.evaluate(replace(request, candidates=CANDIDATES[3:4]))
    assert alone.texts == whole.texts[3:4]


def test_prompts_seeds_and_temperature_change_what_is_generated() -> None:
    oracle = analytic()
    greedy = oracle.evaluate(asked())
    assert len(set(greedy.texts)) > 2
    warm = [oracle.evaluate(asked(temperature=5.0, seed=seed)).texts for seed in (0, 1)]
    assert len({greedy.texts, *warm}) == 3
    good, bad = (analytic(function="quadratic").evaluate(asked((Point(x),))).texts for x in _near_and_far())
    assert good[0].count("bright story") == len(MIXED.examples)
    assert bad[0].count("bright story") == 0


def _near_and_far() -> tuple[Array, Array]:
    _, optimum = analytic(function="quadratic")._curvature(DIM)
    return optimum.astype(np.float32), (-optimum).astype(np.float32)


@pytest.mark.parametrize("function", ["logistic", "quadratic", "flat"])
def test_the_cost_beforehand_is_a_bound_and_afterwards_what_was_generated(function: str) -> None:
    price = Price(usd_per_million_input_tokens=1.0, usd_per_million_output_tokens=10.0)
    oracle = analytic(function=function, price=price)
    request = asked()
    bound, answer = oracle.cost(request), oracle.evaluate(request)
    rows = len(CANDIDATES) * len(MIXED.examples)
    assert bound.output_tokens == 4 * rows
    read = bound.tokens - bound.output_tokens
    assert bound.usd == pytest.approx((read + 10 * bound.output_tokens) / 1e6)
    assert answer.cost.output_tokens == sum(len(text.split()) for row in answer.texts for text in row if text)
    assert answer.cost.tokens == read + answer.cost.output_tokens
    assert answer.cost.usd == pytest.approx((read + 10 * answer.cost.output_tokens) / 1e6)


def test_a_budget_reserves_the_bound_and_books_what_was_generated() -> None:
    oracle, request = analytic(), asked()
    bound = oracle.cost(request)
    tight = BudgetTracker(BudgetConfig(queries=None, tokens=bound.tokens - 1))
    config = AnalyticOracleConfig(kind="analytic", width=WIDTH)
    with pytest.raises(BudgetExhausted, match=f"the next request needs {bound.tokens}"):
        BudgetedOracle(oracle, tight, config, lambda: 0.0).evaluate(request)
    assert tight.spent == Cost()
    tracker = BudgetTracker(BudgetConfig(queries=None, tokens=bound.tokens))
    answer = BudgetedOracle(oracle, tracker, config, lambda: 0.0).evaluate(request)
    assert tracker.spent == answer.cost
    assert 0 < tracker.spent.output_tokens < bound.output_tokens
    again = BudgetTracker(BudgetConfig(queries=None))
    again.load_state_dict(tracker.state_dict())
    assert again.spent == tracker.spent
    before = {name: value for name, value in tracker.state_dict().items() if name != "output_tokens"}
    again.load_state_dict(before)  # of a version that generated nothing
    assert again.spent == replace(tracker.spent, output_tokens=0)


# ------------------------------------------------------------------------------------------------------- the cache
class Failing(AnalyticOracle):
    """An analytic oracle whose answer to the last example fails while ``fails``."""

    fails = True
    asked_for = 0

    def evaluate(self, request: Request, timeout: float = float("inf")) -> Evaluation:
        self.asked_for += len(request.candidates)
        answer = super().evaluate(request, timeout)
        texts = [[*row[:-1], None] for row in answer.texts] if self.fails else answer.texts
        return evaluation_of_texts(texts, request.batch, answer.cost)


def test_texts_are_kept_under_how_they_were_generated(tmp_path: Path) -> None:
    config = AnalyticOracleConfig(kind="analytic", width=WIDTH)
    inner = Failing(config)
    oracle = CachedOracle(inner, str(tmp_path), config)
    request = asked((CANDIDATES[0], Text("a"), Text("b")))
    assert oracle.evaluate(request).counts["failed_answers"] == 3
    inner.fails = False
    first = oracle.evaluate(request)
    assert (first.kept, inner.asked_for) == (None, 6), "failed answers are not kept"
    again = oracle.evaluate(request)
    assert again.texts == first.texts
    assert again.kept is not None and again.kept.tolist() == [False, True, True]
    assert again.cost.queries == 1
    others = (
        asked(request.candidates, seed=1),
        asked(request.candidates, stop=()),
        asked(request.candidates, max_new_tokens=3),
    )
    assert all(oracle.evaluate(other).kept is None for other in others)
    scores = replace(request, batch=MIXED)
    assert analytic().evaluate(scores).texts == ()


# ------------------------------------------------------------------------------------------------------- refusals
class Scores(Oracle):
    """An oracle that scores."""

    def score(self, request: Request) -> Array:
        return np.zeros(
            (len(request.candidates), len(request.batch.examples), len(request.batch.label_words)), np.float32
        )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Scores().evaluate(asked((Text("a"),))), "Scores scores label words alone; set oracle.kind"),
        (
            lambda: analytic().evaluate(replace(asked(CANDIDATES[:1]), gradient=True)),
            "generated answers have no gradient",
        ),
    ],
)
def test_what_cannot_be_generated_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        make()
