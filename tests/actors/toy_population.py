"""A population of toys: trials of milliseconds a step that follow what a trial (actors/trials/trainable.py) reports."""

import dataclasses
import json
import os
import pickle
import signal
import sys
import time
from pathlib import Path
from typing import Any

from ray import cloudpickle, tune

from actors.trials.population_scheduler import PopulationScheduler, Say, silent
from distributed_tuner.config.schedule import PopulationScheduleConfig
from distributed_tuner.prompts.pool import PooledText

RATE = "stages.0.optimizer.learning_rate"
TRIAL_FAILURES = 2


@dataclasses.dataclass(frozen=True)
class StageSchedule:
    """What the toys do: ``steps`` a stage, each multiplying the loss by 1 - rate, with a restart between two stages.

    kills, errors: (trial, step) at which a process is killed, once, and at which a trial fails, always. last: a trial
    that begins when the file ``go`` is there.
    """

    folder: str
    rates: tuple[float, ...]
    mode: str = "async"
    patience: float = 60.0
    sync_points: int = 2
    steps: int = 3
    seconds: float = 0.02
    kills: tuple[tuple[int, int], ...] = ()
    errors: tuple[tuple[int, int], ...] = ()
    last: int | None = None

    @property
    def names(self) -> list[str]:
        return [f"toy-{index:04d}" for index in range(len(self.rates))]


class Toy(tune.Trainable):
    """One trial; writes what it does into a file of its own."""

    def setup(self, config: dict[str, Any], stage_schedule: StageSchedule | None = None) -> None:
        assert stage_schedule is not None
        self._stage_schedule = stage_schedule
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._index = new_config["trial"]
        self._name = self._stage_schedule.names[self._index]
        self._restart = new_config.get("restart")
        self._state: dict[str, Any] = {"step": 0, "sync_point": 0, "waiting": False, "restart_id": "", "pool": ()}
        self._state |= {"loss": 1.0, "rate": self._stage_schedule.rates[self._index]}
        self._asked, self._told = False, 0
        return True

    def step(self) -> dict[str, Any]:
        state, stage_schedule = self._state, self._stage_schedule
        if state["waiting"] and self._asked:
            state["waiting"] = False
            self._write(what="go_on")
        if not state["waiting"]:
            self._search()
        self._asked = state["waiting"]
        new, self._told = state["pool"][self._told :], len(state["pool"])
        self._write(what="report")
        return {
            "dev_loss": state["loss"],
            "sync_point": state["sync_point"],
            "waiting": state["waiting"],
            "scored": [dataclasses.asdict(text) for text in new],
            "place": repr(state["loss"]) if state["waiting"] else "",
            "done": state["step"] == (stage_schedule.sync_points + 1) * stage_schedule.steps,
        }

    def _search(self) -> None:
        state, stage_schedule = self._state, self._stage_schedule
        here = (self._index, state["step"])
        time.sleep(stage_schedule.seconds)
        while self._index == stage_schedule.last and not Path(stage_schedule.folder, "go").exists():
            time.sleep(0.02)
        if here in stage_schedule.errors:
            raise RuntimeError("fails at this step whenever it comes here")
        flag = Path(stage_schedule.folder, f"killed-{self._name}-{state['step']}")
        if here in stage_schedule.kills and not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        state["step"] += 1
        state["loss"] *= 1 - state["rate"]
        if state["step"] % stage_schedule.steps == 0 and state["sync_point"] < stage_schedule.sync_points:
            state["sync_point"] += 1
            state["waiting"] = True
            text = f"{self._name} at {state['sync_point']}"
            state["pool"] += (
                PooledText(text, state["loss"], 0.5, "trajectory", self._name, 2 * state["sync_point"] - 1),
            )

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        Path(checkpoint_dir, "toy.pkl").write_bytes(pickle.dumps(self._state))

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        self._state = state = pickle.loads(Path(checkpoint_dir, "toy.pkl").read_bytes())
        order = self._restart
        if order is None or not state["waiting"] or order["sync_point"] != state["sync_point"]:
            return
        if order["id"] != state["restart_id"]:
            state["waiting"], state["restart_id"] = False, order["id"]
            state["rate"] = order["settings"].get(RATE, state["rate"])
            if order["place"]:
                state["loss"] = min(state["loss"], float(order["place"]))
            self._write(
                what="restart", source_trial=order["source_trial"], pool=[text["text"] for text in order["pool"]]
            )

    def _write(self, **what: Any) -> None:
        state = {name: value for name, value in self._state.items() if name != "pool"}
        with Path(self._stage_schedule.folder, f"{self._name}.jsonl").open("a") as file:
            file.write(json.dumps({**what, **state, "pid": os.getpid()}) + "\n")


def scheduler(stage_schedule: StageSchedule, say: Say = silent) -> PopulationScheduler:
    """Return the scheduler of the toys."""
    return PopulationScheduler(
        PopulationScheduleConfig.model_validate(
            {
                "kind": "population",
                "mode": stage_schedule.mode,
                "patience": stage_schedule.patience,
                "explore": {RATE: {"low": 0.01, "high": 0.9}},
            }
        ),
        stage_schedule.names,
        range(1, 100),
        {name: {RATE: rate} for name, rate in zip(stage_schedule.names, stage_schedule.rates, strict=True)},
        key=(1,),
        shown=3,
        say=say,
    )


def trainable(stage_schedule: StageSchedule) -> Any:
    """Return what Tune runs. It travels by value: Ray's processes do not look for modules here."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    return tune.with_resources(tune.with_parameters(Toy, stage_schedule=stage_schedule), {"cpu": 0.01})


def tuner(stage_schedule: StageSchedule, say: Say = silent) -> tune.Tuner:
    """Return a new run of the toys."""
    return tune.Tuner(
        trainable(stage_schedule),
        param_space={"trial": tune.grid_search(list(range(len(stage_schedule.rates))))},
        tune_config=tune.TuneConfig(scheduler=scheduler(stage_schedule, say), reuse_actors=True),
        run_config=tune.RunConfig(
            name="toys",
            storage_path=stage_schedule.folder,
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=TRIAL_FAILURES),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=2, checkpoint_at_end=True, num_to_keep=10),
        ),
    )
