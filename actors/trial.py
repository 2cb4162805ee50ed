"""A trial under Ray Tune: light, holds an optimizer, talks to the dispatcher and, in restart stages, to a proposer.

One ``step()`` runs the trial for some seconds and reports the ledger rows that it made; the driver writes them down.
In a population it stands still at every boundary until the scheduler answers (actors/scheduler.py).
"""

import base64
import dataclasses
import pickle
import time
from pathlib import Path
from typing import Any

import numpy as np
from ray import tune

from actors.proposer import RemoteProposer, key_of
from actors.remote import RemoteOracle
from distributed_tuner.config.schedule import PopulationScheduleConfig
from distributed_tuner.config.space import TrialPlan
from distributed_tuner.prompts.pool import PooledText
from distributed_tuner.stages.selection import Selected
from distributed_tuner.stages.takeover import Takeover
from distributed_tuner.stages.trial import Trial
from distributed_tuner.tasks.base import Task
from distributed_tuner.values import Array, OracleInfo, Start

REPORT_SECONDS = 2.0
STATE_FILE = "trial.pkl"
WORDS, ROWS = "words:", "rows:"  # what a place in a trial's config begins with
WORST_LOSS = 1e9  # what Tune sees instead of a loss that is not finite: comparable, and last


class TuneTrial(tune.Trainable):  # type: ignore[misc]
    """Runs ``plans[config["trial"]]``. ``proposers``: the actors of the run, by the settings they were started with."""

    def setup(
        self,
        config: dict[str, Any],
        dispatcher: Any = None,
        info: OracleInfo | None = None,
        plans: list[TrialPlan] | None = None,
        tasks: list[Task] | None = None,
        proposers: dict[str, RemoteProposer] | None = None,
    ) -> None:
        assert info is not None and plans is not None and tasks is not None
        self._oracle = RemoteOracle(dispatcher, info)
        self._plans, self._tasks = plans, tasks
        self._proposers = proposers or {}
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin another trial in this process."""
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        index = config["trial"]
        plan = self._plans[index]
        self._trial = Trial(
            plan.trial_id,
            plan.experiment,
            self._tasks[index],
            self._oracle,
            index=index,
            proposers=lambda settings: self._proposers[key_of(settings)],
        )
        self._population = isinstance(plan.experiment.schedule, PopulationScheduleConfig)
        self._restart: dict[str, Any] | None = config.get("restart")
        self._reported: Selected | None = None
        self._told = 0  # texts of the pool that were reported
        self._asked = False  # whether the boundary was reported by this process

    def step(self) -> dict[str, Any]:
        rows: list[dict[str, Any]] = []
        trial = self._trial
        if trial.waiting and self._asked:  # Tune calls again: the scheduler said to continue
            rows.extend(row.model_dump() for row in trial.go_on())
        until = time.monotonic() + REPORT_SECONDS
        while not (trial.done or trial.waiting) and (not rows or time.monotonic() < until):
            rows.extend(row.model_dump() for row in trial.advance())
        self._asked = trial.waiting
        progress = trial.progress()
        loss = progress["dev_loss"]
        outcome = trial.outcome
        prompt = self._new_prompt()
        told = self._population and (prompt is not None or trial.waiting or trial.done)  # a donor's prompt
        return {
            "progress": progress,
            "dev_loss": loss if abs(loss) < WORST_LOSS else WORST_LOSS,
            "queries": progress["queries"],
            "rows": rows,
            "reason": outcome.reason if outcome else "",
            "prompt": prompt,
            "boundary": trial.boundary,
            "waiting": trial.waiting,
            "scored": self._new_texts(),
            "place": encoded(trial.place()) if told else "",
            "done": trial.done,
        }

    def _new_prompt(self) -> Array | str | None:
        """Return the selected prompt's rows or words if they have not been reported yet."""
        if self._trial.selected is self._reported:
            return None
        self._reported = self._trial.selected
        return self._trial.selected_prompt()

    def _new_texts(self) -> list[dict[str, Any]]:
        """Return the texts that were scored since the last report."""
        new = self._trial.pool[self._told :]
        self._told += len(new)
        return [dataclasses.asdict(text) for text in new]

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        Path(checkpoint_dir, STATE_FILE).write_bytes(pickle.dumps(self._trial.state_dict()))

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        """Go on from a checkpoint; a restart that the scheduler has ordered since then is taken up."""
        self._trial.load_state_dict(pickle.loads(Path(checkpoint_dir, STATE_FILE).read_bytes()))
        restart = self._restart
        here = restart is not None and self._trial.waiting and restart["boundary"] == self._trial.boundary
        if restart is not None and here and restart["id"] != self._trial.restart_id:
            self._trial.take_over(takeover_of(restart))


def takeover_of(restart: dict[str, Any]) -> Takeover:
    """Return what the scheduler wrote into a trial's config."""
    donor = restart["place"]
    return Takeover(
        id=restart["id"],
        donor=restart["donor"],
        settings=restart["settings"],
        place=decoded(donor) if donor else None,
        pool=tuple(PooledText(**text) for text in restart["pool"]),
    )


def encoded(place: Start) -> str:
    """Return a place as text that may stand in a trial's config."""
    if isinstance(place, str):
        return WORDS + place
    return ROWS + base64.b64encode(np.ascontiguousarray(place, dtype="<f4").tobytes()).decode("ascii")


def decoded(text: str) -> Start:
    """Return the place of ``encoded``."""
    if text.startswith(WORDS):
        return text.removeprefix(WORDS)
    return np.frombuffer(base64.b64decode(text.removeprefix(ROWS)), dtype="<f4").astype(np.float32)
