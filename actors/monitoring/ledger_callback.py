"""Tune's callback in the driver: hands what trials report to the run's recorder."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from actors.ray_internals.tune_import import tune
from distributed_tuner.config.space import TrialPlan
from distributed_tuner.runs.recorder import Recorder


class TuneRecorder(tune.Callback):  # type: ignore[misc]
    """Forwards Tune's reports of its trials, which run ``plans``, to a recorder.

    How trials have ended is the recorder's to say: Tune calls every trial terminated that it has had to stop.
    """

    def __init__(self, plans: list[TrialPlan], recorder: Recorder) -> None:
        self._plans = plans
        self._recorder = recorder

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks into the experiment; a ledger being written has no place there."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._recorder.started(self._plan(trial))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        self._recorder.reported(self._plan(trial), result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._recorder.completed(self._plan(trial))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._recorder.failed(self._plan(trial), _last_line(trial))

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._recorder.poll()

    def is_stopped(self, trial: Any) -> bool:
        """Tell whether a trial shall end, as somebody has asked for."""
        return self._recorder.is_stopped(self._plan(trial))

    def _plan(self, trial: Any) -> TrialPlan:
        plan: TrialPlan = self._plans[trial.config["trial"]]
        return plan


def _last_line(trial: Any) -> str:
    """Return the last line of what Tune wrote down of a trial's error."""
    text = ""
    if trial.error_file is not None:
        with suppress(OSError):
            text = Path(trial.error_file).read_text(encoding="utf-8", errors="replace").strip()
    return text.splitlines()[-1] if text else "see Ray's log of the trial"
