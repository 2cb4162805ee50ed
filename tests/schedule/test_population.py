"""The rule of a population on standings: who restarts, after whom, with what."""

from collections import Counter

import pytest

from distributed_tuner.config.schedule import Bounds
from distributed_tuner.schedule.population import Decision, Standing, decide, decide_all, moved

RATE = "stages.0.optimizer.learning_rate"
EXPLORE = {RATE: Bounds(low=0.1, high=10.0)}
KEY = (3,)
GO_ON = Decision(go_on=True)


def stand(losses: dict[str, float | None], ended: str = "", sync_point: int = 1) -> list[Standing]:
    """Return standings by loss; every trial's rate is 1 and its place in the alphabet's hundredths."""
    return [
        Standing(name, sync_point, loss, {RATE: 1 + (ord(name) - ord("a")) / 100}, name in ended)
        for name, loss in losses.items()
    ]


def restarted(decisions: dict[str, Decision]) -> set[str]:
    return {name for name, decision in decisions.items() if not decision.go_on}


@pytest.mark.parametrize(
    ("count", "quantile", "expected"),
    [(2, 0.01, 1), (2, 0.5, 1), (3, 0.5, 1), (4, 0.25, 1), (6, 0.34, 2), (8, 0.25, 2), (7, 0.5, 3), (1, 0.5, 0)],
)
def test_one_trial_at_least_moves_and_never_more_than_half(count: int, quantile: float, expected: int) -> None:
    assert moved(count, quantile) == expected


def test_the_bottom_quantile_takes_after_the_top_and_the_rest_goes_on() -> None:
    losses: dict[str, float | None] = {"a": 0.5, "b": 3.0, "c": 0.1, "d": 2.0, "e": 1.0, "f": 0.2}
    decisions = decide_all(stand(losses), 0.34, EXPLORE, KEY)
    assert restarted(decisions) == {"b", "d"}
    assert {decisions[name].source_trial for name in "bd"} <= {"c", "f"}
    assert all(decisions[name] == GO_ON for name in "acef")


def test_a_leader_s_settings_are_explored_by_a_factor_within_their_bounds() -> None:
    seen: Counter[float] = Counter()
    for sync_point in range(40):
        decision = decide("b", stand({"a": 0.0, "b": 1.0}, sync_point=sync_point), 0.5, EXPLORE, KEY)
        assert decision.source_trial == "a"
        seen[decision.settings[RATE]] += 1
    assert set(seen) == {0.8, 1.25}
    assert min(seen.values()) > 8
    tight = {RATE: Bounds(low=0.9, high=1.1)}
    clipped = {
        decide("b", stand({"a": 0.0, "b": 1.0}, sync_point=b), 0.5, tight, KEY).settings[RATE] for b in range(20)
    }
    assert clipped == {0.9, 1.1}


def test_nothing_to_explore_and_settings_that_a_source_trial_lacks() -> None:
    assert decide("b", stand({"a": 0.0, "b": 1.0}), 0.5, {}, KEY) == Decision(False, "a", {})
    other = {"stages.2.optimizer.rho": Bounds(low=0, high=1)}
    assert decide("b", stand({"a": 0.0, "b": 1.0}), 0.5, other, KEY) == Decision(False, "a", {})


def test_source_trials_are_drawn_evenly_from_the_leaders_and_anew_at_every_sync_point() -> None:
    losses: dict[str, float | None] = {name: float(i) for i, name in enumerate("abcdefgh")}
    source_trials = Counter(
        decide_all(stand(losses, sync_point=sync_point), 0.25, EXPLORE, KEY)["h"].source_trial
        for sync_point in range(60)
    )
    assert set(source_trials) == {"a", "b"}
    assert min(source_trials.values()) > 15


def test_decisions_hang_on_the_standings_and_the_key_alone() -> None:
    losses: dict[str, float | None] = {name: float(i) for i, name in enumerate("hgfedcba")}
    there = stand(losses)
    first = decide_all(there, 0.5, EXPLORE, KEY)
    assert decide_all(reversed(there), 0.5, EXPLORE, KEY) == first
    assert {name: decide(name, there, 0.5, EXPLORE, KEY) for name in losses} == first
    assert any(decide_all(there, 0.5, EXPLORE, (seed,)) != first for seed in range(5))


@pytest.mark.parametrize("missing", [None, float("nan"), float("inf")])
def test_a_trial_without_a_finite_loss_ranks_last_and_is_nobody_s_source_trial(missing: float | None) -> None:
    decisions = decide_all(stand({"a": missing, "b": 5.0, "c": 4.0}), 0.5, EXPLORE, KEY)
    assert restarted(decisions) == {"a"}
    assert decisions["a"].source_trial == "c"


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_without_two_losses_there_is_nothing_to_compare(missing: float | None) -> None:
    assert restarted(decide_all(stand(dict.fromkeys("abcd", missing)), 0.5, EXPLORE, KEY)) == set()
    assert restarted(decide_all(stand({"a": 1.0, "b": missing}), 0.5, EXPLORE, KEY)) == set()


def test_equals_are_not_laggards_of_each_other() -> None:
    assert restarted(decide_all(stand(dict.fromkeys("abcd", 1.0)), 0.5, EXPLORE, KEY)) == set()
    one_better = decide_all(stand({"a": 1.0, "b": 1.0, "c": 1.0, "d": 0.5}), 0.5, EXPLORE, KEY)
    assert restarted(one_better) == {"b", "c"}  # of equals the last in the alphabet, and only after who is better
    assert {one_better["b"].source_trial, one_better["c"].source_trial} == {"d"}


def test_who_has_not_looked_yet_is_not_compared_with() -> None:
    there = stand({"a": 1.0, "b": 2.0, "c": None, "d": None, "e": None, "f": None})
    assert decide("b", there, 0.25, EXPLORE, KEY).source_trial == "a"
    assert decide("a", there, 0.25, EXPLORE, KEY) == GO_ON


def test_a_trial_that_has_ended_is_a_source_trial_and_is_not_decided_for() -> None:
    decisions = decide_all(stand({"a": 0.1, "b": 1.0, "c": 2.0, "d": 9.0}, ended="ad"), 0.5, EXPLORE, KEY)
    assert set(decisions) == {"b", "c"}
    assert decisions["c"].source_trial in {"a", "b"}


def test_a_trial_alone_restarts_from_its_own_prompts() -> None:
    alone = stand({"a": 1.0})
    assert decide("a", alone, 0.25, EXPLORE, KEY) == Decision(go_on=False, source_trial=None, settings={})
    assert decide_all(alone, 0.25, EXPLORE, KEY) == {"a": Decision(go_on=False)}
