"""Signal and rounding noise of an oracle whose noise is known."""

import math

import numpy as np
import pytest
from tiny_models import MIXED, SPEC

from distributed_tuner.config.oracle import AnalyticOracleConfig
from distributed_tuner.oracles.analytic import AnalyticOracle
from distributed_tuner.oracles.checks.precision import LIMIT, Calibration, calibrate, scaled
from distributed_tuner.seeds import generator, standard_normal
from distributed_tuner.values import (
    Array,
    Candidate,
    Center,
    Cost,
    Evaluation,
    Latent,
    Perturbation,
    Point,
    Projection,
    PromptSpec,
    Request,
)

DIM = SPEC.length * 8
CENTER = Center("c", standard_normal(("center",), DIM))


class NoisyOracle(AnalyticOracle):
    """Losses linear in the coordinates, plus noise that follows from the coordinates' bits, as rounding's does."""

    def __init__(self, noise: float) -> None:
        super().__init__(AnalyticOracleConfig(kind="analytic", width=8))
        self.noise = noise
        self.requests: list[Request] = []

    def evaluate(self, request: Request, timeout: float = math.inf) -> Evaluation:
        self.requests.append(request)
        answer = super().evaluate(request, timeout)
        losses = np.array([self._loss(candidate, request.prompt) for candidate in request.candidates])
        return Evaluation(losses, answer.example_losses, answer.logits, answer.cost)

    def _loss(self, candidate: Candidate, prompt: PromptSpec) -> float:
        x = self.codec.materialize(candidate, prompt).reshape(-1)
        return 2.0 + float(x.mean()) + self.noise * float(generator((x.tobytes().hex(),)).standard_normal())


def pairs(count: int, rho: float) -> list[list[Candidate]]:
    return [[Perturbation(CENTER, ("z", i), sign, rho) for sign in (1, -1)] for i in range(count)]


def test_signal_and_noise_are_those_of_the_oracle() -> None:
    oracle = NoisyOracle(noise=0.004)
    found = calibrate(oracle, MIXED, SPEC, pairs(64, 1.0))
    expected = 2 / math.sqrt(DIM)  # of 2 rho mean(z)
    assert found.asks == 64
    assert found.signal == pytest.approx(expected, rel=0.25)
    assert found.noise == pytest.approx(math.sqrt(2) * 0.004, rel=0.15)
    assert found.loss_noise == pytest.approx(0.004, rel=0.15)
    assert found.snr == pytest.approx(found.signal / found.noise)
    assert not found.swamped


def test_four_asks_take_24_queries_and_find_the_order_of_the_noise() -> None:
    oracle = NoisyOracle(noise=0.01)
    found = calibrate(oracle, MIXED, SPEC, pairs(4, 1.0))
    assert found.cost.queries == 24 == sum(len(request.candidates) for request in oracle.requests)
    assert found.cost.forwards == 24 * len(MIXED.examples)
    assert 0.007 < found.noise < 0.028


@pytest.mark.parametrize("rho", [1e-2, 1e-4, 1e-6])
def test_a_difference_below_the_noise_is_swamped_however_small(rho: float) -> None:
    found = calibrate(NoisyOracle(noise=0.01), MIXED, SPEC, pairs(4, rho))
    assert found.snr < LIMIT
    assert found.swamped


def test_a_difference_that_rounding_has_eaten_whole_is_swamped_though_no_noise_is_seen() -> None:
    class Coarse(NoisyOracle):
        def _loss(self, candidate: Candidate, prompt: PromptSpec) -> float:
            x: Array = self.codec.materialize(candidate, prompt).astype(np.float16)
            return float(np.abs(x).mean())

    found = calibrate(Coarse(0.0), MIXED, SPEC, pairs(4, 1e-9))
    assert (found.signal, found.noise, found.snr) == (0.0, 0.0, 0.0)
    assert found.swamped


def test_an_exact_oracle_has_no_noise_worth_the_name() -> None:
    found = calibrate(NoisyOracle(noise=0.0), MIXED, SPEC, pairs(8, 0.1))
    assert found.snr > 100
    assert Calibration(1.0, 0.0, 1, Cost()).snr == math.inf
    assert not Calibration(1.0, 0.0, 1, Cost()).swamped


def test_asks_whose_loss_is_not_a_number_are_left_out() -> None:
    class Failing(NoisyOracle):
        def _loss(self, candidate: Candidate, prompt: PromptSpec) -> float:
            fails = isinstance(candidate, Perturbation) and candidate.key[1] in self.failing
            return math.nan if fails else super()._loss(candidate, prompt)

    oracle = Failing(0.001)
    oracle.failing = {1, 3}  # type: ignore[attr-defined]
    found = calibrate(oracle, MIXED, SPEC, pairs(4, 1.0))
    assert found.asks == 2
    assert found.cost.queries == 24
    assert math.isfinite(found.signal)
    oracle.failing = {0, 1, 2, 3}  # type: ignore[attr-defined]
    none = calibrate(oracle, MIXED, SPEC, pairs(4, 1.0))
    assert (none.asks, none.signal, none.noise, none.snr) == (0, 0.0, 0.0, 0.0)
    assert none.swamped


def test_every_soft_candidate_is_scaled_in_what_is_its_own() -> None:
    perturbation = Perturbation(CENTER, ("z",), -1, 0.5)
    latent = Latent(standard_normal(("l",), 6), Projection(0, 6, 1.0, 1.0), CENTER)
    point = Point(standard_normal(("p",), DIM))
    a, b, c = (scaled(candidate, 1.5) for candidate in (perturbation, latent, point))
    assert isinstance(a, Perturbation)
    assert (a.radius, a.sign, a.center) == (0.75, -1, CENTER)
    assert isinstance(b, Latent)
    np.testing.assert_array_equal(b.z, 1.5 * latent.z)
    assert b.origin is CENTER
    assert isinstance(c, Point)
    np.testing.assert_array_equal(c.vector, 1.5 * point.vector)
