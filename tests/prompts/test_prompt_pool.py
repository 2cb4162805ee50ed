"""Choice of the scored prompts that a proposer is shown."""

import math

from distributed_tuner.prompts.pool import PooledText, best_of


def entry(text: str, loss: float) -> PooledText:
    return PooledText(text, loss, 0.5, "trajectory", "some-0000", 0)


def test_the_best_are_shown_worst_first_and_each_text_once() -> None:
    pool = [entry("a", 3.0), entry("b", 1.0), entry("a", 2.0), entry("c", 4.0), entry("d", math.nan)]
    assert [(e.text, e.loss) for e in best_of(pool, 2)] == [("a", 2.0), ("b", 1.0)]
    assert [e.text for e in best_of(pool, 9)] == ["c", "a", "b"]
    assert best_of([], 3) == []


def test_the_order_does_not_depend_on_who_came_first() -> None:
    pool = [entry("x", 1.0), entry("y", 1.0), entry("z", 1.0)]
    assert best_of(pool, 2) == best_of(pool[::-1], 2) == [pool[1], pool[0]]
