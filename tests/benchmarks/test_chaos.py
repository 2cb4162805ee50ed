"""Evaluation of the soak's samples."""

import numpy as np
import pytest

from benchmarks.chaos import ACTORS, SERVICE, SETTLE_SECONDS, TILE, TRIAL_KILLS, TRIALS, Sample, Soak, queries, slope
from benchmarks.chaos import _choose as choose


def life(pid: int, level: float, an_hour: float, role: str = "driver") -> list[Sample]:
    """Return samples of a process that starts far too large, and then grows from a level on."""
    ages = np.arange(0.0, 600.0, 5.0)
    steady = ages > SETTLE_SECONDS
    return [
        Sample(role, pid, 0.0, age, level + an_hour * age / 3600 if later else 10 * level)
        for age, later in zip(ages, steady, strict=True)
    ]


def test_the_slope_is_that_within_lives() -> None:
    samples = [*life(1, 300.0, 12.0), *life(2, 180.0, 12.0), *life(3, 90.0, 500.0, role="dispatcher")]
    assert slope(samples, "driver") == pytest.approx(12.0)
    assert slope(samples, "dispatcher") == pytest.approx(500.0)


def test_lives_that_end_early_tell_nothing() -> None:
    brief = [one for one in life(1, 300.0, 12.0) if one.age < SETTLE_SECONDS]
    assert slope(brief, "driver") is None
    assert slope([], "driver") is None


@pytest.mark.parametrize("minutes", [5.0, 30.0])
def test_the_oracles_are_busy_for_as_long_as_was_asked(minutes: float) -> None:
    busy = queries(minutes) * TRIALS / TILE * SERVICE / ACTORS
    assert busy == pytest.approx(60 * minutes, rel=0.01)


def test_no_trial_is_killed_more_often_than_it_may_be() -> None:
    soak = Soak()
    draw = np.random.default_rng(0)
    for _ in range(300):
        soak.kills.append((0.0, choose(draw, soak)))
    victims = [victim for _, victim in soak.kills]
    assert victims.count("trial") == TRIAL_KILLS
    assert set(victims) == {"oracle", "dispatcher", "supervisor", "trial", "raylet", "driver"}
