"""A population's scheduler: decisions carried out, and neither lost nor made twice, whatever dies."""

import dataclasses
import json
import pickle
import time
from typing import Any

import pytest
from fake_tune import FakeTrial, FakeTune
from ray.tune.experiment import Trial
from toy_population import RATE

from actors.ray_internals.tune_import import TrialScheduler
from actors.trials.population_scheduler import CONTINUE, PAUSE
from actors.trials.stoppable import StoppablePopulation
from distributed_tuner.prompts.pool import PooledText

STOP: str = TrialScheduler.STOP


def text(words: str, loss: float) -> PooledText:
    return PooledText(words, loss, 0.5, "trajectory", "t0", 1)


def scored(words: str, loss: float) -> dict[str, Any]:
    return {"text": words, "loss": loss, "metric": 0.5, "source": "trajectory", "trial_id": "t0", "stage": 1}


def test_between_sync_points_every_trial_goes_on() -> None:
    tune = FakeTune()
    assert tune.report(0, 0, 1e9, waiting=False) == CONTINUE
    assert tune.trials[0].config == {"trial": 0}


def test_sync_trials_wait_for_each_other_and_the_last_one_opens_the_barrier() -> None:
    tune = FakeTune()
    assert tune.report(0, 1, 3.0, scored=[scored("bad", 9.0), scored("good", 1.0)]) == PAUSE
    assert tune.report(1, 1, 1.0, scored=[scored("better", 0.5)]) == PAUSE
    assert tune.run_paused() == []
    assert tune.report(2, 1, 2.0) == CONTINUE  # it is no laggard, and need not be stopped
    assert tune.run_paused() == [0, 1]
    restart = tune.restart(0)
    assert (restart["sync_point"], restart["source_trial"]) == (1, "t1")
    assert restart["place"] == "prompt of t1 at 1"
    assert restart["settings"][RATE] in (2.0 * 0.8, 2.0 * 1.25)
    assert [PooledText(**entry).text for entry in restart["pool"]] == ["good", "better"]
    assert "restart" not in tune.trials[1].config
    assert tune.report(1, 1, 1.0) == CONTINUE  # the leader, in its new process
    ((name, kind, message),) = tune.said
    assert (name, kind) == ("t0", "restart")
    assert message.startswith(f"takes after t1 (dev loss 1 against 3), {RATE} ")


def test_async_a_trial_is_compared_with_what_is_known_and_a_leader_keeps_its_process() -> None:
    tune = FakeTune(mode="async")
    assert tune.report(0, 1, 3.0) == CONTINUE  # nobody to compare with yet
    assert tune.report(1, 0, 2.0, waiting=False) == CONTINUE
    assert tune.report(2, 1, 5.0) == PAUSE
    assert tune.restart(2)["source_trial"] == "t1"
    assert tune.restart(2)["place"] == ""  # it has not stood at a sync point
    assert tune.run_paused() == [2]
    assert tune.report(1, 1, 1.0) == CONTINUE
    assert tune.report(2, 2, 4.0) == PAUSE
    assert tune.restart(2)["place"] == "prompt of t1 at 1"


def test_every_restart_has_a_name_of_its_own() -> None:
    tune = FakeTune(2, mode="async")
    tune.report(0, 1, 1.0)
    names = set()
    for sync_point in (1, 2, 3):
        tune.report(1, sync_point, 2.0)
        names.add(tune.restart(1)["id"])
    assert len(names) == 3


def test_settings_are_explored_from_where_a_source_trial_has_come_to() -> None:
    tune = FakeTune(2, mode="async")
    tune.report(0, 1, 1.0)
    tune.report(1, 1, 2.0)
    first = tune.restart(1)["settings"][RATE]
    tune.report(1, 2, 0.1)
    tune.report(0, 2, 1.0)
    assert tune.restart(0)["settings"][RATE] in (pytest.approx(first * 0.8), pytest.approx(first * 1.25))


@pytest.mark.parametrize("loss", [1e9, float("nan"), float("inf")])
def test_a_loss_that_is_none_ranks_last_and_is_nobody_s_leader(loss: float) -> None:
    tune = FakeTune(3)
    tune.report(0, 1, loss)
    tune.report(1, 1, 2.0)
    tune.report(2, 1, 1.0)
    assert tune.restart(0)["source_trial"] == "t2"
    assert "against none" in tune.said[0][2]


def test_a_trial_alone_restarts_from_its_own_pool() -> None:
    tune = FakeTune(1)
    assert tune.report(0, 1, 1.0, scored=[scored("own", 1.0)]) == PAUSE
    restart = tune.restart(0)
    assert (restart["source_trial"], restart["place"], restart["settings"]) == (None, "", {})
    assert [entry["text"] for entry in restart["pool"]] == ["own"]
    assert tune.run_paused() == [0]


def test_a_trial_that_fails_at_its_sync_point_or_before_holds_nobody_up() -> None:
    tune = FakeTune(4)
    tune.report(0, 1, 1.0)
    tune.report(1, 1, 0.5)
    tune.report(2, 1, 2.0)
    tune.report(3, 0, 0.1, waiting=False)
    tune.end(1, Trial.ERROR)  # it was there already
    assert tune.run_paused() == []
    tune.end(3, Trial.ERROR)
    assert tune.run_paused() == [0, 2]
    assert tune.restart(2)["source_trial"] == "t0"  # the failed ones were better, but are nobody to take after


def test_a_trial_that_comes_back_from_a_failure_is_waited_for() -> None:
    tune = FakeTune(2)
    tune.report(0, 0, 2.0, waiting=False)
    tune.scheduler.on_trial_error(tune, tune.trials[0])
    tune.end(0, Trial.PENDING)
    tune.scheduler.on_trial_add(tune, tune.trials[0])
    assert tune.report(1, 1, 1.0) == PAUSE
    assert tune.run_paused() == []
    assert tune.report(0, 1, 2.0) == PAUSE
    assert tune.restart(0)["source_trial"] == "t1"


def test_a_trial_that_ends_is_not_waited_for_and_may_be_taken_after() -> None:
    tune = FakeTune(3)
    tune.report(0, 1, 1.0)
    tune.report(1, 1, 2.0)
    tune.report(2, 0, 0.1, waiting=False, done=True)
    tune.end(2, Trial.TERMINATED)
    assert tune.run_paused() == [0, 1]
    assert tune.restart(1)["source_trial"] == "t2"


def test_a_trial_that_has_not_begun_is_waited_for() -> None:
    tune = FakeTune(3)
    missing = tune.trials.pop()
    tune.report(0, 1, 1.0)
    tune.report(1, 1, 2.0)
    assert tune.run_paused() == []
    tune.trials.append(missing)
    tune.report(2, 1, 3.0)
    assert tune.restart(2)["source_trial"] == "t0"


def test_patience_ends_a_wait_and_the_late_trial_is_measured_by_those_who_met() -> None:
    tune = FakeTune(3)
    tune.report(0, 1, 1.0)
    tune.now = 30.0
    tune.report(1, 1, 2.0)
    tune.now = 59.0
    assert tune.run_paused() == []
    tune.now = 60.0
    assert tune.run_paused() == [0, 1]
    assert [said[:2] for said in tune.said] == [("t2", "late"), ("t1", "restart")]
    tune.report(0, 2, 0.001)
    assert tune.report(2, 1, 5.0) == PAUSE
    assert tune.restart(2)["source_trial"] == "t0"
    assert tune.run_paused() == [2]


def test_a_sync_point_that_comes_again_after_a_death_is_decided_as_before() -> None:
    tune = FakeTune(3, mode="async")
    assert tune.report(0, 1, 2.0) == CONTINUE
    assert tune.report(1, 1, 3.0) == PAUSE
    first = tune.restart(1)
    tune.report(2, 1, 0.1)
    tune.report(0, 2, 1.0, scored=[scored("new", 0.0)])
    assert tune.report(0, 1, 2.0) == CONTINUE  # it would be the laggard by now
    assert tune.report(1, 1, 3.0) == PAUSE
    assert tune.restart(1) == first
    assert len([said for said in tune.said if said[0] == "t1"]) == 1


def test_a_restart_of_an_earlier_sync_point_is_ordered_again_where_a_trial_fell_behind_it() -> None:
    tune = FakeTune(2, mode="async")
    tune.report(0, 1, 1.0)
    orders = []
    for sync_point in (1, 2, 1, 2):
        assert tune.report(1, sync_point, 3.0) == PAUSE
        orders.append(tune.restart(1))
    assert [order["id"] for order in orders] == ["t1/1", "t1/2", "t1/1", "t1/2"]
    assert [order["settings"] for order in orders[:2]] == [order["settings"] for order in orders[2:]]


# ------------------------------------------------------------------------------------------------ resumed
@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_trial_that_was_decided_but_had_not_begun_gets_the_same_order_when_resumed(mode: str) -> None:
    tune = FakeTune(2, mode)
    tune.report(0, 1, 1.0)
    tune.report(1, 1, 2.0)
    before = [trial.config for trial in tune.trials]
    tune.resume()
    assert [trial.config for trial in tune.trials] == before
    assert tune.report(0, 1, 1.0) == CONTINUE
    assert tune.report(1, 1, 2.0) == PAUSE
    assert [trial.config for trial in tune.trials] == before
    assert tune.run_paused() == [1]
    assert len(tune.said) == 1


def test_resumed_trials_that_waited_meet_again() -> None:
    tune = FakeTune(3)
    tune.report(0, 1, 1.0)
    tune.report(1, 1, 3.0)
    tune.report(2, 0, 2.0, waiting=False)
    tune.resume()
    assert tune.run_paused() == []
    assert tune.report(1, 1, 3.0) == PAUSE
    assert tune.report(2, 1, 2.0) == CONTINUE
    assert tune.run_paused() == [1]
    assert tune.report(0, 1, 1.0) == CONTINUE
    assert tune.restart(1)["source_trial"] == "t0"
    assert tune.restart(1)["place"] == "prompt of t0 at 1"


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_decision_is_kept_before_anything_follows_from_it_and_once(mode: str) -> None:
    kept: list[dict[str, Any]] = []
    tune = FakeTune(2, mode, keep=lambda decisions: kept.append(json.loads(json.dumps(decisions.to_json()))))
    tune.report(0, 1, 1.0)
    assert tune.report(1, 1, 2.0) == PAUSE
    assert kept[-1]["decided"]["t1"]["1"]["source_trial"] == "t0"
    assert kept[-1]["restarts"]["t1"]["1"]["place"] == "prompt of t0 at 1"
    count = len(kept)
    assert tune.run_paused() == ([0, 1] if mode == "sync" else [1])
    tune.report(0, 1, 1.0)
    assert len(kept) == count


def test_a_trial_whose_checkpoint_is_a_sync_point_behind_gets_the_order_of_then() -> None:
    """Its process died after a report and before that was saved; its source trial has gone on since."""
    tune = FakeTune(2)
    tune.report(0, 1, 1.0, scored=[scored("early", 1.0)])
    tune.report(1, 1, 2.0)
    first = tune.restart(1)
    before = tune.trial(1).last_result
    tune.report(0, 2, 0.1, scored=[scored("late", 0.1)])
    tune.report(1, 2, 0.5)
    assert tune.restart(1)["sync_point"] == 2
    tune.trial(1).last_result = before
    tune.resume()
    assert tune.restart(1) == first
    assert tune.report(1, 1, 2.0) == PAUSE
    assert tune.restart(1) == first


def test_a_late_trial_is_measured_by_those_who_met_in_a_resumed_run_too() -> None:
    tune = FakeTune(3)
    tune.report(0, 1, 1.0)
    tune.report(1, 1, 2.0)
    tune.now = 60.0
    assert tune.run_paused() == [0, 1]
    tune.report(1, 2, 0.001)
    tune.resume()
    assert tune.report(2, 1, 5.0) == PAUSE
    assert tune.restart(2)["source_trial"] == "t0", "t1 was the worse one when they met"


def test_trials_that_were_over_are_still_known_and_failed_ones_are_nobodys_source_trial() -> None:
    tune = FakeTune(3)
    tune.report(0, 0, 0.1, waiting=False, done=True)
    tune.end(0, Trial.TERMINATED)
    tune.report(1, 0, 0.01, waiting=False)
    tune.end(1, Trial.ERROR)
    tune.resume()
    assert len(tune.trials) == 1
    assert tune.report(2, 1, 5.0) == PAUSE
    assert tune.restart(2)["source_trial"] == "t0"


def test_texts_that_were_scored_before_a_run_was_resumed_are_shown() -> None:
    tune = FakeTune(1, pool=[text("old", 0.1), text("worse", 9.0), text("worst", 10.0)])
    tune.report(0, 1, 1.0, scored=[scored("old", 0.1), scored("new", 0.5)])
    assert [entry["text"] for entry in tune.restart(0)["pool"]] == ["new", "old"]


def test_a_decision_that_is_made_again_is_given_the_texts_of_then() -> None:
    """What the ledger has by now (proposals of this stage, all of later ones) was not known when all met there."""
    known = text("own", 0.5)
    later = [dataclasses.replace(known, text="proposed", source="proposal", loss=0.1)]
    later.append(dataclasses.replace(known, text="next", stage=3, loss=0.2))
    tune = FakeTune(1, mode="sync", pool=[known, *later])
    tune.report(0, 1, 1.0)
    assert [entry["text"] for entry in tune.restart(0)["pool"]] == ["own"]
    tune = FakeTune(1, mode="async", pool=[known, *later])
    tune.report(0, 1, 1.0)
    assert [entry["text"] for entry in tune.restart(0)["pool"]] == ["next", "proposed"]


def test_a_pickled_scheduler_leaves_the_ledger_behind() -> None:
    tune = FakeTune(2, mode="async")
    tune.scheduler = pickle.loads(pickle.dumps(tune.fresh(clock=time.monotonic)))
    tune.report(0, 1, 1.0)
    assert tune.report(1, 1, 2.0) == PAUSE
    assert tune.said == []


# ----------------------------------------------------------------------------------------------- stopped trials
class Recorder:
    """As much of the recorder as a scheduler asks."""

    def __init__(self, *stopped: int) -> None:
        self.stopped = set(stopped)

    def is_stopped(self, trial: FakeTrial) -> bool:
        return trial.config["trial"] in self.stopped and not trial.is_finished()


def obey(tune: FakeTune, recorder: Any) -> None:
    assert isinstance(tune.scheduler, StoppablePopulation)
    tune.scheduler.obey(recorder)


def test_a_stopped_trial_ends_with_its_report_and_holds_nobody_up() -> None:
    tune, recorder = FakeTune(3, kind=StoppablePopulation), Recorder()
    obey(tune, recorder)
    tune.report(0, 1, 3.0)
    tune.report(1, 0, 1.0, waiting=False)
    recorder.stopped = {1}
    assert tune.report(1, 0, 0.5, waiting=False) == STOP
    tune.end(1, Trial.TERMINATED)
    tune.report(2, 1, 2.0)
    assert tune.run_paused() == [0]
    assert tune.restart(0)["source_trial"] == "t1", "what it has found counts"


def test_a_paused_or_new_trial_is_stopped_at_once_and_one_that_is_being_started_runs_first() -> None:
    tune, recorder = FakeTune(4, kind=StoppablePopulation), Recorder()
    obey(tune, recorder)
    tune.run_paused()
    tune.scheduler.on_trial_add(tune, tune.trial(3))
    tune.report(0, 1, 3.0)
    recorder.stopped = {0, 1, 3}
    assert tune.run_paused() == []
    assert [trial.status for trial in tune.trials] == [Trial.TERMINATED, Trial.PENDING, Trial.PENDING, Trial.TERMINATED]
    assert tune.report(1, 0, 1.0, waiting=False) == STOP


def test_a_resumed_population_does_not_wait_for_a_stopped_trial() -> None:
    tune = FakeTune(3)
    tune.report(0, 0, 3.0, waiting=False)
    tune.report(1, 0, 1.0, waiting=False)
    tune.report(2, 0, 2.0, waiting=False)
    tune.end(1, Trial.TERMINATED)
    tune.resume()
    tune.report(0, 1, 3.0)
    tune.report(2, 1, 2.0)
    assert tune.run_paused() == [0]
