"""Number of actors of a pool that scales, as arithmetic."""

import pytest

from actors.pool.scaling_policy import Lately, needed, wanted
from distributed_tuner.config.oracle import Elastic

LIMITS = Elastic(min=1, max=8, queue=4, idle_seconds=60)


@pytest.mark.parametrize(
    ("tiles", "late", "enough"),
    [(0, 0, 0), (1, 0, 1), (4, 0, 1), (5, 0, 2), (17, 0, 5), (1000, 0, 8), (2, 1, 2), (0, 3, 3), (32, 1, 8)],
)
def test_an_actor_is_enough_for_so_many_tiles_and_one_that_is_late_for_none(tiles: int, late: int, enough: int) -> None:
    assert needed(LIMITS, tiles, late) == enough


def test_a_pool_grows_at_once_and_keeps_what_it_has_needed_lately() -> None:
    assert wanted(LIMITS, 5, 2) == 5
    assert wanted(LIMITS, 0, 3) == 3
    assert wanted(LIMITS, 0, 0) == 1
    assert wanted(Elastic(min=0, max=8), 0, 0) == 0


def test_a_fixed_number_stays() -> None:
    fixed = Elastic(min=3, max=3)
    assert {wanted(fixed, needed(fixed, tiles, late), 0) for tiles in (0, 1, 1000) for late in (0, 2)} == {3}


def test_the_peak_of_the_last_seconds_and_not_of_those_before() -> None:
    lately = Lately(10.0)
    told = [lately.note(number, now) for now, number in enumerate([2, 5, 3, 1, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])]
    assert told == [2, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 4, 4, 4, 0, 0]


def test_a_burst_between_two_looks_counts() -> None:
    lately = Lately(60.0)
    lately.note(0, 0.0)
    lately.note(7, 0.1)
    assert lately.note(0, 0.2) == 7
    assert lately.note(0, 61.0) == 0
