"""The death of a process that Ray Tune makes ready for its next trial (``reuse_actors``).

Tune 2.60 hears of it twice, from the actor and from the task that made it ready. The first time it puts the trial back
into its queue; the second time it finds a trial that is not running, takes it for one that cannot start, and gives it
up. It also goes on believing that the trial is being made ready, so that the trial would never be started again.
"""

from typing import Any

from ray.exceptions import RayActorError

from actors.ray_internals.tune_import import Trial, TuneController

_failure = TuneController._trial_task_failure


def survive_resets() -> None:
    """Have Tune hear of such a death once."""
    TuneController._trial_task_failure = _heard_once


def _heard_once(controller: Any, trial: Any, exception: Exception) -> None:
    if trial in controller._resetting_trials and trial.status == Trial.PENDING and isinstance(exception, RayActorError):
        controller._resetting_trials.discard(trial)
        return
    _failure(controller, trial, exception)
