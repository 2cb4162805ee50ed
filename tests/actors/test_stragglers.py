"""The rule for late tiles, on durations alone."""

import math

from actors.pool.straggler_policy import FACTOR, FIRST_SECONDS, KNOWN, LOST_FACTOR, LOST_SECONDS, SECONDS, Durations


def durations(*seconds: float) -> Durations:
    known = Durations()
    for one in seconds:
        known.add(one)
    return known


def test_the_median_is_that_of_the_last_tiles() -> None:
    assert durations().median is None
    known = durations(*[9.0] * 100, *[1.0] * 60)
    assert known.median == 1.0


def test_a_call_is_late_by_what_its_tiles_and_those_before_it_take() -> None:
    known = durations(*[2.0] * KNOWN)
    assert known.limit(tiles=1, ahead=1) == FACTOR * 2
    assert known.limit(tiles=3, ahead=2) == FACTOR * 12
    assert durations(*[0.01] * KNOWN).limit(1, 2) == SECONDS


def test_with_little_known_patience_is_long() -> None:
    assert durations().limit(1, 2) == FIRST_SECONDS
    assert durations(50.0).limit(1, 2) == FACTOR * 100


def test_an_actor_hangs_only_when_far_beyond_anything_seen() -> None:
    assert durations(1.0).hang(1, 2) == math.inf
    assert durations(*[0.1] * KNOWN).hang(1, 2) == LOST_SECONDS
    assert durations(*[0.1] * KNOWN, 30.0).hang(1, 2) == LOST_FACTOR * 60
