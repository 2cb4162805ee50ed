"""Stand-in for Ray Tune, as far as a population's scheduler uses it."""

import json
from typing import Any

from ray.tune.experiment import Trial
from toy_population import RATE

from actors.trials.population_scheduler import PAUSE, PopulationScheduler
from distributed_tuner.config.schedule import PopulationScheduleConfig
from distributed_tuner.schedule.decisions import Decisions

Said = list[tuple[str, str, str]]


class FakeTrial:
    """As much of Tune's trial as a scheduler may touch."""

    def __init__(self, index: int) -> None:
        self.config: dict[str, Any] = {"trial": index}
        self.trial_id = f"tune-{index}"
        self.status = Trial.PENDING
        self.last_result: dict[str, Any] = {}

    def set_config(self, config: dict[str, Any]) -> None:
        self.config = config

    def is_finished(self) -> bool:
        return self.status in (Trial.TERMINATED, Trial.ERROR)


class FakeTune:
    """Calls a scheduler as Tune does, and does what it says."""

    def __init__(
        self, count: int = 3, mode: str = "sync", kind: type[PopulationScheduler] = PopulationScheduler, **more: Any
    ) -> None:
        self.now = 0.0
        self.said: Said = []
        self.kept = json.dumps(Decisions().to_json())
        self.names = [f"t{index}" for index in range(count)]
        self._settings = {name: {RATE: 1.0 + index} for index, name in enumerate(self.names)}
        self._config = PopulationScheduleConfig.model_validate(
            {"kind": "population", "mode": mode, "patience": 60.0, "explore": {RATE: {"low": 0.0, "high": 100.0}}}
        )
        self._kind = kind
        self._more = more
        self.scheduler = self.fresh()
        self.trials = [FakeTrial(index) for index in range(count)]
        for trial in self.trials:
            self.scheduler.on_trial_add(self, trial)

    def fresh(self, **more: Any) -> PopulationScheduler:
        """Return a scheduler that knows nothing yet."""
        return self._kind(
            self._config,
            self.names,
            range(1, 20, 2),
            self._settings,
            key=(0,),
            shown=2,
            say=lambda *said: self.said.append(said),
            **{"clock": lambda: self.now, "keep": self._keep, **self._more, **more},
        )

    def _keep(self, decisions: Decisions) -> None:
        self.kept = json.dumps(decisions.to_json())

    def get_trials(self) -> list[FakeTrial]:
        return self.trials

    def stop_trial(self, trial: FakeTrial) -> None:
        trial.status = Trial.TERMINATED

    def report(self, index: int, sync_point: int, loss: float, waiting: bool = True, **more: Any) -> str:
        trial = self.trial(index)
        trial.status = Trial.RUNNING
        result = {"sync_point": sync_point, "waiting": waiting, "dev_loss": loss, "scored": [], "done": False}
        result |= {"place": f"prompt of t{index} at {sync_point}" if waiting else "", **more}
        answer = self.scheduler.on_trial_result(self, trial, result)
        trial.last_result = {name: value for name, value in result.items() if name != "scored"}
        if answer == PAUSE:
            trial.status = Trial.PAUSED
        return answer

    def run_paused(self) -> list[int]:
        """Let run what the scheduler chooses, until it chooses nothing more."""
        chosen = []
        while (trial := self.scheduler.choose_trial_to_run(self)) is not None:
            trial.status = Trial.PENDING
            chosen.append(trial.config["trial"])
        return chosen

    def end(self, index: int, status: str) -> None:
        self.trials[index].status = status

    def resume(self) -> None:
        """As a run whose driver was killed: new trials for those that are not over, and another scheduler, which is
        told what was kept and what the trials reported last."""
        reports = {self.names[trial.config["trial"]]: trial.last_result for trial in self.trials if trial.last_result}
        failed, stopped = (
            [self.names[trial.config["trial"]] for trial in self.trials if trial.status == status]
            for status in (Trial.ERROR, Trial.TERMINATED)
        )
        decisions = Decisions.from_json(json.loads(self.kept))
        self.scheduler = self.fresh(decisions=decisions, reports=reports, failed=failed, stopped=stopped)
        self.trials = [FakeTrial(trial.config["trial"]) for trial in self.trials if not trial.is_finished()]
        for trial in self.trials:
            self.scheduler.on_trial_add(self, trial)

    def trial(self, index: int) -> FakeTrial:
        return next(trial for trial in self.trials if trial.config["trial"] == index)

    def restart(self, index: int) -> dict[str, Any]:
        restart: dict[str, Any] = self.trial(index).config["restart"]
        return restart
