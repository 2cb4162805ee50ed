"""A trial under Ray Tune: light, holds an optimizer, talks to the dispatcher.

One ``step()`` runs the trial for some seconds and reports the ledger rows that it made; the driver writes them down.
"""

import pickle
import time
from pathlib import Path
from typing import Any

from ray import tune

from actors.remote import RemoteOracle
from distributed_tuner.config.space import TrialPlan
from distributed_tuner.stages.selection import Selected
from distributed_tuner.stages.trial import Trial
from distributed_tuner.tasks.base import Task
from distributed_tuner.values import Array, OracleInfo

REPORT_SECONDS = 2.0
STATE_FILE = "trial.pkl"
WORST_LOSS = 1e9  # what Tune sees instead of a loss that is not finite: comparable, and last


class TuneTrial(tune.Trainable):  # type: ignore[misc]
    """Runs ``plans[config["trial"]]``."""

    def setup(
        self,
        config: dict[str, Any],
        dispatcher: Any = None,
        info: OracleInfo | None = None,
        plans: list[TrialPlan] | None = None,
        tasks: list[Task] | None = None,
    ) -> None:
        assert info is not None and plans is not None and tasks is not None
        self._oracle = RemoteOracle(dispatcher, info)
        self._plans, self._tasks = plans, tasks
        self._begin(config["trial"])

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin another trial in this process."""
        self._begin(new_config["trial"])
        return True

    def _begin(self, index: int) -> None:
        plan = self._plans[index]
        self._trial = Trial(plan.trial_id, plan.experiment, self._tasks[index], self._oracle, index=index)
        self._reported: Selected | None = None

    def step(self) -> dict[str, Any]:
        rows: list[dict[str, Any]] = []
        until = time.monotonic() + REPORT_SECONDS
        while not self._trial.done and (not rows or time.monotonic() < until):
            rows.extend(row.model_dump() for row in self._trial.advance())
        progress = self._trial.progress()
        loss = progress["dev_loss"]
        outcome = self._trial.outcome
        return {
            "progress": progress,
            "dev_loss": loss if abs(loss) < WORST_LOSS else WORST_LOSS,
            "queries": progress["queries"],
            "rows": rows,
            "reason": outcome.reason if outcome else "",
            "prompt_rows": self._new_prompt(),
            "done": self._trial.done,
        }

    def _new_prompt(self) -> Array | None:
        """Return the selected prompt's rows if they have not been reported yet."""
        if self._trial.selected is self._reported:
            return None
        self._reported = self._trial.selected
        return self._trial.selected_rows()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        Path(checkpoint_dir, STATE_FILE).write_bytes(pickle.dumps(self._trial.state_dict()))

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        self._trial.load_state_dict(pickle.loads(Path(checkpoint_dir, STATE_FILE).read_bytes()))
