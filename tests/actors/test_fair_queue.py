"""The queue before the pool: fair by asker and by cost, nothing starves, nothing is lost or given out twice."""

import random
from collections import Counter

import pytest

from actors.pool.fair_queue import FairQueue

Item = tuple[str, int, float]  # asker, number, cost


def queue() -> FairQueue[Item]:
    return FairQueue(lambda item: item[2])


def items(client_id: str, count: int, cost: float = 1.0, first: int = 0) -> list[Item]:
    return [(client_id, first + i, cost) for i in range(count)]


def drained(waiting: FairQueue[Item], count: int = 10**6) -> list[Item]:
    """Return the next items, one at a time."""
    taken: list[Item] = []
    while len(taken) < count and (one := waiting.take()):
        taken.extend(one)
    return taken


def test_a_large_population_does_not_starve_a_small_one() -> None:
    waiting = queue()
    waiting.put("large", items("large", 100))
    waiting.put("small", items("small", 3))
    order = [client_id for client_id, _, _ in drained(waiting)]
    assert order[:6].count("small") == 3
    assert Counter(order) == {"large": 100, "small": 3}
    assert len(waiting) == 0


def test_a_priority_is_a_share_and_starves_nobody() -> None:
    waiting = queue()
    waiting.put("urgent", items("urgent", 90), priority=3.0)
    waiting.put("patient", items("patient", 90))
    order = [client_id for client_id, _, _ in drained(waiting)]
    assert Counter(order[:40]) == {"urgent": 30, "patient": 10}
    assert Counter(order) == {"urgent": 90, "patient": 90}


def test_askers_share_by_cost_and_not_by_number() -> None:
    waiting = queue()
    waiting.put("heavy", items("heavy", 100, cost=8.0))
    waiting.put("light", items("light", 100, cost=1.0))
    served: Counter[str] = Counter()
    for client_id, _, cost in drained(waiting, 90):
        served[client_id] += int(cost)
    assert abs(served["heavy"] - served["light"]) <= 8


def test_many_small_requests_one_after_the_other_get_no_more_than_one_large_one() -> None:
    waiting = queue()
    waiting.put("large", items("large", 200))
    served: Counter[str] = Counter()
    for _ in range(100):  # a trial asks again as soon as it has its answer
        if not any(client_id == "steps" for client_id in waiting._lines):
            waiting.put("steps", items("steps", 1))
        (one,) = waiting.take()
        served[one[0]] += 1
    assert abs(served["large"] - served["steps"]) <= 2


def test_who_comes_back_after_a_pause_has_saved_nothing_up() -> None:
    waiting = queue()
    waiting.put("resting", items("resting", 1))
    waiting.put("busy", items("busy", 300))
    drained(waiting, 100)
    waiting.put("resting", items("resting", 100))
    assert abs(Counter(client_id for client_id, _, _ in drained(waiting, 40))["resting"] - 20) <= 1


def test_requests_of_one_asker_take_turns() -> None:
    waiting = queue()
    waiting.put("a", items("a", 10))
    waiting.put("a", items("a", 2, first=100))
    order = [number for _, number, _ in drained(waiting)]
    assert order[:4] == [0, 100, 1, 101]
    assert order[4:] == list(range(2, 10))


def test_what_is_taken_together_is_of_one_request_and_paid_for() -> None:
    waiting = queue()
    waiting.put("a", items("a", 3))
    waiting.put("a", items("a", 3, first=100))
    waiting.put("b", items("b", 9))
    assert waiting.take(8) == items("a", 3)
    assert waiting.take(8) == items("b", 8)
    assert waiting.take(8) == items("a", 3, first=100)
    assert waiting.take(8) == items("b", 1, first=8)
    assert waiting.take(8) == []


def test_what_was_in_vain_goes_first_and_to_whom_it_fits() -> None:
    waiting = queue()
    waiting.put("a", items("a", 2))
    waiting.put_first(("lost", 0, 1.0))
    assert len(waiting) == 3
    assert waiting.take(8, lambda item: item[0] != "lost") == items("a", 2)
    assert waiting.take(8, lambda item: item[0] != "lost") == []
    assert len(waiting) == 1
    assert waiting.take(8) == [("lost", 0, 1.0)]


def test_what_nobody_waits_for_is_forgotten() -> None:
    waiting = queue()
    waiting.put("a", items("a", 5))
    waiting.put("b", items("b", 2))
    waiting.put_first(("a", 9, 1.0))
    waiting.drop(lambda item: item[0] == "a")
    assert len(waiting) == 2
    assert drained(waiting) == items("b", 2)
    waiting.put("a", [])
    assert waiting.take() == []


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_each_item_is_given_out_once_and_no_asker_falls_behind(seed: int) -> None:
    draw = random.Random(seed)
    waiting, put = queue(), Counter[Item]()
    served = dict.fromkeys((f"trial-{i}" for i in range(5)), 0.0)
    for number in range(20):
        for client_id in served:
            new = items(client_id, draw.randint(10, 30), draw.choice([1.0, 2.0, 7.0]), first=100 * number)
            put.update(new)
            waiting.put(client_id, new)
    taken = Counter[Item]()
    for _ in range(100):  # fewer than anyone has: shares must be even
        for item in waiting.take(draw.randint(1, 4)):
            taken[item] += 1
            served[item[0]] += item[2]
    assert max(served.values()) - min(served.values()) <= 2 * 4 * 7.0
    taken.update(drained(waiting))
    assert taken == put
