"""Trials that somebody has stopped, under Ray Tune: ended by its scheduler, whatever that decides of the others."""

from typing import Any

from actors.monitoring.ledger_callback import TuneRecorder
from actors.ray_internals.tune_import import ASHAScheduler, FIFOScheduler, Trial, TrialScheduler
from actors.trials.population_scheduler import PopulationScheduler


class Stoppable(FIFOScheduler):  # type: ignore[misc]
    """Tune's first-in-first-out scheduler, or another that comes after it in a class's bases.

    A running trial ends with its next report, so that what it has spent is written down. One that is paused, or has
    just been added, ends at once. One whose process is being started must run first: Tune would lose count of it.
    """

    def __init__(self, *given: Any, **settings: Any) -> None:
        super().__init__(*given, **settings)
        self._recorder: TuneRecorder | None = None
        self._added: set[str] = set()  # names of Tune's own

    def obey(self, recorder: TuneRecorder) -> None:
        """Hear from the recorder who is stopped."""
        self._recorder = recorder

    def on_trial_add(self, controller: Any, trial: Trial) -> None:
        super().on_trial_add(controller, trial)
        self._added.add(trial.trial_id)

    def on_trial_result(self, controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        decision: str = super().on_trial_result(controller, trial, result)
        return TrialScheduler.STOP if self._is_stopped(trial) else decision

    def choose_trial_to_run(self, controller: Any) -> Trial | None:
        for trial in controller.get_trials():
            added = trial.status == Trial.PENDING and trial.trial_id in self._added
            if (added or trial.status == Trial.PAUSED) and self._is_stopped(trial):
                controller.stop_trial(trial)
        self._added.clear()
        return super().choose_trial_to_run(controller)

    def _is_stopped(self, trial: Trial) -> bool:
        return self._recorder is not None and self._recorder.is_stopped(trial)


class StoppableAsha(Stoppable, ASHAScheduler):  # type: ignore[misc]
    """ASHA whose trials can be stopped."""


class StoppablePopulation(Stoppable, PopulationScheduler):
    """A population whose trials can be stopped."""
