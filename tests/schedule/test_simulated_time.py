"""Whole populations in simulated time: trials of different speeds and promise, decided for by the pure rules."""

import heapq
from dataclasses import dataclass, field
from typing import Literal

import pytest

from distributed_tuner.config.schedule import Bounds
from distributed_tuner.schedule.barrier import Barrier, lowest_barrier
from distributed_tuner.schedule.population import Decision, Standing, decide, decide_all

RATE = "rate"
EXPLORE = {RATE: Bounds(low=0.05, high=1.0)}
PATIENCE = 100.0
Mode = Literal["async", "sync"]


@dataclass
class Sim:
    """A trial: a stage takes ``seconds`` and multiplies its loss by 1 - rate. It dies when it would reach ``dies``."""

    name: str
    seconds: float
    rate: float
    loss: float = 1.0
    dies: int = 99
    sync_point: int = 0
    since: float | None = None
    state: Literal["live", "ended", "failed"] = "live"
    decided: list[Decision] = field(default_factory=list)

    def standing(self) -> Standing:
        loss = self.loss if self.sync_point else None
        return Standing(self.name, self.sync_point, loss, {RATE: self.rate}, self.state == "ended")


class Population:
    """Runs the trials through ``sync_points`` restart stages; keeps what was decided, and when."""

    def __init__(self, trials: list[Sim], mode: Mode, sync_points: int = 4, seed: int = 0) -> None:
        self.trials = {trial.name: trial for trial in trials}
        self.log: list[tuple[str, int, Decision]] = []
        self.opened: list[tuple[float, Barrier]] = []
        self._sync_points, self._key = sync_points, (seed,)
        queue = [(trial.seconds, trial.name) for trial in trials]
        heapq.heapify(queue)
        while queue:
            now, name = heapq.heappop(queue)
            if name:
                self._arrive(self.trials[name], now)
            for left in self._async(name) if mode == "async" else self._sync(now):
                heapq.heappush(queue, (now + left.seconds, left.name))
            waiting = [trial.since for trial in self.trials.values() if trial.since is not None]
            if mode == "sync" and waiting and now < min(waiting) + PATIENCE:
                heapq.heappush(queue, (min(waiting) + PATIENCE, ""))

    def _arrive(self, trial: Sim, now: float) -> None:
        trial.loss *= 1 - trial.rate
        if trial.sync_point + 1 == trial.dies:
            trial.state = "failed"
        elif trial.sync_point == self._sync_points:
            trial.state = "ended"
        else:
            trial.sync_point, trial.since = trial.sync_point + 1, now

    def _standings(self) -> list[Standing]:
        return [trial.standing() for trial in self.trials.values() if trial.state != "failed"]

    def _async(self, name: str) -> list[Sim]:
        trial = self.trials[name]
        if trial.since is None:
            return []
        return [self._leave(trial, decide(name, self._standings(), 0.25, EXPLORE, self._key))]

    def _sync(self, now: float) -> list[Sim]:
        waiting = {trial.name: trial.since for trial in self.trials.values() if trial.since is not None}
        barrier = lowest_barrier(self._standings(), waiting)
        if barrier is None or not barrier.opens(now, PATIENCE):
            return []
        self.opened.append((now, barrier))
        met = [one for one in self._standings() if one.trial_id in barrier.there or one.ended]
        decisions = decide_all(met, 0.25, EXPLORE, self._key)
        return [self._leave(self.trials[name], decisions[name]) for name in barrier.there]

    def _leave(self, trial: Sim, decision: Decision) -> Sim:
        self.log.append((trial.name, trial.sync_point, decision))
        trial.decided.append(decision)
        trial.since = None
        if decision.source_trial is not None:
            source_trial = self.trials[decision.source_trial]
            trial.loss, trial.rate = min(trial.loss, source_trial.loss), decision.settings[RATE]
        return trial


def four(**changed: float) -> list[Sim]:
    """Return four trials; ``a`` searches best and ``d`` worst, ``b`` is the slowest."""
    seconds = {"a": 3.0, "b": 7.0, "c": 2.0, "d": 1.0}
    rates = {"a": 0.5, "b": 0.4, "c": 0.3, "d": 0.05}
    return [Sim(name, changed.get(name, seconds[name]), rates[name]) for name in "abcd"]


@pytest.mark.parametrize("mode", ["async", "sync"])
def test_the_best_trial_is_never_restarted_and_the_laggard_takes_after_a_leader(mode: Mode) -> None:
    done = Population(four(), mode)
    assert all(trial.state == "ended" for trial in done.trials.values())
    assert all(decision.go_on for decision in done.trials["a"].decided)
    restarts = [(name, decision) for name, _, decision in done.log if not decision.go_on]
    assert restarts
    assert all(decision.source_trial not in (None, name) for name, decision in restarts)
    assert done.trials["d"].rate > 0.2  # it has a leader's rate, explored
    assert done.trials["d"].loss < 0.95**5 / 2


@pytest.mark.parametrize("mode", ["async", "sync"])
def test_every_sync_point_is_decided_once_for_every_trial(mode: Mode) -> None:
    done = Population(four(), mode)
    assert sorted((name, sync_point) for name, sync_point, _ in done.log) == [
        (name, sync_point) for name in "abcd" for sync_point in range(1, 5)
    ]


def test_in_sync_mode_the_decisions_do_not_hang_on_the_machine_s_speed() -> None:
    first = Population(four(), "sync")
    other = Population(four(a=9.0, b=1.5, c=4.0, d=20.0), "sync")
    assert sorted(first.log, key=lambda one: one[:2]) == sorted(other.log, key=lambda one: one[:2])
    assert any(not decision.go_on for _, _, decision in first.log)


@pytest.mark.parametrize("mode", ["async", "sync"])
def test_the_same_key_gives_the_same_run_and_another_key_another(mode: Mode) -> None:
    def run(seed: int) -> list[tuple[str, int, Decision]]:
        return Population(four(), mode, seed=seed).log

    assert run(1) == run(1)
    assert any(run(seed) != run(1) for seed in range(2, 6))


def test_in_async_mode_nobody_waits() -> None:
    done = Population(four(b=1000.0), "async")
    fast = [name for name, _, _ in done.log[:12]]
    assert "b" not in fast


@pytest.mark.parametrize("mode", ["async", "sync"])
def test_a_dead_trial_holds_nobody_up_and_is_nobody_s_source_trial(mode: Mode) -> None:
    trials = four()
    trials[0].dies = 2
    done = Population(trials, mode)
    assert {name: trial.state for name, trial in done.trials.items()} == {
        "a": "failed",
        "b": "ended",
        "c": "ended",
        "d": "ended",
    }
    later = [decision.source_trial for _, sync_point, decision in done.log if sync_point > 1]
    assert mode == "async" or "a" not in later
    assert all(now < PATIENCE for now, _ in done.opened)


def test_who_has_ended_is_not_waited_for() -> None:
    """Its budget was spent at the first sync point; the others meet without it, and may take after it."""
    ended = Standing("a", 1, 0.01, ended=True)
    met = [ended, Standing("b", 2, 0.5), Standing("c", 2, 0.8), Standing("d", 2, 0.9)]
    barrier = lowest_barrier(met, {"b": 1.0, "c": 2.0, "d": 3.0})
    assert barrier == Barrier(2, ("b", "c", "d"), (), 1.0)
    assert decide_all(met, 0.25, {}, (0,))["d"] == Decision(go_on=False, source_trial="a")


def test_after_their_patience_those_decide_that_are_there_and_the_late_one_decides_later() -> None:
    done = Population(four(b=500.0), "sync", sync_points=1)
    (first, without), (_, alone) = done.opened
    assert without.there == ("a", "c", "d")
    assert without.late == ("b",)
    assert first == 3.0 + PATIENCE - 2.0  # the first had come after one second
    assert alone.there == ("b",)
    assert all(trial.state == "ended" for trial in done.trials.values())


def test_trials_at_different_sync_points_meet_at_the_lower_one_first() -> None:
    standings = [Standing("a", 2, 0.1), Standing("b", 1, 0.2), Standing("c", 1, 0.3), Standing("d", 2, 0.4)]
    assert lowest_barrier(standings, {"a": 0.0, "b": 5.0, "c": 6.0}) == Barrier(1, ("b", "c"), (), 5.0)
    assert lowest_barrier(standings, {"a": 0.0, "b": 5.0}) == Barrier(1, ("b",), (), 5.0)
    assert lowest_barrier(standings, {"a": 0.0}) == Barrier(2, ("a",), ("b", "c"), 0.0)
    assert lowest_barrier(standings, {}) is None


@pytest.mark.parametrize("mode", ["async", "sync"])
def test_a_single_trial_restarts_from_itself_at_every_sync_point(mode: Mode) -> None:
    done = Population(four()[:1], mode)
    assert [decision for _, _, decision in done.log] == [Decision(go_on=False)] * 4


@pytest.mark.parametrize("mode", ["async", "sync"])
@pytest.mark.parametrize("loss", [1.0, float("nan")])
def test_trials_that_cannot_be_told_apart_all_go_on(mode: Mode, loss: float) -> None:
    trials = [Sim(name, 1.0 + i, 0.0, loss) for i, name in enumerate("abcd")]
    done = Population(trials, mode)
    assert all(decision.go_on for _, _, decision in done.log)
    assert all(trial.state == "ended" for trial in trials)
