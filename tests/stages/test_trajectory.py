"""The prompts that stand for a stage: best and last always, others spread over it, however long it was."""

import math

import numpy as np
import pytest
from local_trials import travelled

from distributed_tuner.stages.trajectory import Trajectory
from distributed_tuner.values import Point


def recorded(losses: list[float], kept: int = 8) -> Trajectory:
    trajectory = Trajectory(kept)
    for step, loss in enumerate(losses, start=1):
        trajectory.record(step, Point(np.array([step], dtype=np.float32)), loss)
    return trajectory


def steps(trajectory: Trajectory, count: int) -> list[int]:
    return [point.step for point in trajectory.chosen(count)]


def test_best_and_last_are_there_and_the_others_are_spread() -> None:
    losses = [5.0, 4.0, 1.0, 4.0, 5.0, 6.0, 7.0]
    assert steps(recorded(losses), 5) == [1, 3, 4, 6, 7]
    assert steps(recorded(losses), 2) == [3, 7]
    assert steps(recorded(losses), 1) == [3]
    assert steps(recorded(losses), 0) == []
    assert steps(recorded(losses), 99) == [1, 2, 3, 4, 5, 6, 7]


def test_a_best_that_is_last_stands_once() -> None:
    assert steps(recorded([3.0, 2.0, 1.0]), 2) == [1, 3]


@pytest.mark.parametrize("length", [7, 50, 1000])
def test_a_long_stage_is_thinned_out_evenly(length: int) -> None:
    losses = [10.0] * length
    losses[length // 3] = 1.0
    trajectory = recorded(losses, kept=8)
    assert len(trajectory.recorded) <= 8
    found = steps(trajectory, 5)
    assert len(found) == 5
    assert {length // 3 + 1, length} <= set(found)
    gaps = np.diff([0, *found])
    assert gaps.max() <= 0.6 * length


def test_failed_steps_are_never_the_best() -> None:
    assert steps(recorded([math.nan, 2.0, math.inf, math.nan]), 2) == [2, 4]
    assert steps(recorded([math.nan, math.nan]), 2) == [1, 2]
    assert steps(Trajectory(), 3) == []


def test_it_goes_on_from_its_state() -> None:
    whole, first = recorded([4.0, 3.0, 2.0, 3.0, 9.0], kept=3), recorded([4.0, 3.0, 2.0], kept=3)
    second = Trajectory(3)
    second.load_state_dict(travelled(first.state_dict()))
    for step, loss in ((4, 3.0), (5, 9.0)):
        second.record(step, Point(np.array([step], dtype=np.float32)), loss)
    assert steps(second, 3) == steps(whole, 3)
