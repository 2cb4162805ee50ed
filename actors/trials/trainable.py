"""A trial under Ray Tune: light, holds an optimizer, talks to the dispatcher and, in restart stages, to a proposer.

One ``step()`` runs the trial for some seconds, the first one to the first row of a search step, and reports the
ledger rows that it made; the driver writes them down.
In a population it stands still at every sync point until the scheduler answers (actors/trials/population_scheduler.py).
"""

import base64
import dataclasses
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np

from actors.pool.client import RemoteOracle
from actors.proposer import RemoteProposer, key_of
from actors.ray_internals.tune_import import tune
from actors.trials.checkpoints import Saved, newest, numbered, remove
from distributed_tuner.config.schedule import PopulationScheduleConfig
from distributed_tuner.config.space import TrialPlan
from distributed_tuner.prompts.pool import PooledText
from distributed_tuner.stages.ensemble import Member
from distributed_tuner.stages.exploit import Exploit
from distributed_tuner.stages.selection import Selected
from distributed_tuner.stages.trial import Trial
from distributed_tuner.tasks.base import Task
from distributed_tuner.values import Array, OracleInfo, Start

REPORT_SECONDS = 2.0
RECENT_REPORTS, RECENT_ROWS = 10, 1000  # the last ones, whose rows a checkpoint holds as well
STORAGE_PATIENCE = 600.0  # seconds for which a trial waits for a store that cannot be reached
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
            self._oracle.for_client(plan.trial_id, plan.experiment.priority),
            index=index,
            proposers=lambda settings: self._proposers[key_of(settings)],
        )
        self._population = isinstance(plan.experiment.schedule, PopulationScheduleConfig)
        self._restart: dict[str, Any] | None = config.get("restart")
        self._begin_reports()
        self._told = 0  # texts of the pool that were reported
        self._asked = False  # whether the sync point was reported by this process
        self._new = True  # nothing was done or restored
        self._stepped = False  # whether a step was reported by this process

    def _take_up(self) -> None:
        """Go on from the newest checkpoint of this trial's that is whole, if there is one."""
        self._new = False
        if self._storage is None:
            return
        self._await_storage()
        files, folder = self._storage.storage_filesystem, self._storage.trial_fs_path
        if (found := newest(files, folder)) is not None:
            self._storage.current_checkpoint_index = found.number
            self._go_on_from(found.saved)
            remove(one for one in numbered(files, folder) if one.path != found.checkpoint.path)  # Tune knows of none

    def _begin_reports(self) -> None:
        self._reported: Selected | None = None
        self._prompt: Array | str | None = None  # as it was reported last
        self._ensemble: tuple[Member, ...] = ()  # likewise
        self._recent: deque[list[dict[str, Any]]] = deque()  # rows, by report
        self._report: dict[str, Any] = {}  # the rest of the last one

    def step(self) -> dict[str, Any]:
        if self._new:
            self._take_up()
        rows: list[dict[str, Any]] = []
        trial = self._trial
        if trial.waiting and self._asked:  # Tune calls again: the scheduler said to continue
            rows.extend(row.model_dump() for row in trial.go_on())
        patience = REPORT_SECONDS if self._stepped else 0.0  # the first step is reported at once
        until = time.monotonic() + patience
        while not (trial.done or trial.waiting) and (not rows or time.monotonic() < until):
            rows.extend(row.model_dump() for row in trial.advance())
        self._stepped |= any(row["type"] == "step" for row in rows)
        self._asked = trial.waiting
        self._remember(rows)
        progress = trial.progress()
        loss = progress["dev_loss"]
        outcome = trial.outcome
        prompt = self._new_prompt()
        told = self._population and (prompt is not None or trial.waiting or trial.done)  # a source trial's prompt
        self._report = {
            "progress": progress,
            "dev_loss": loss if abs(loss) < WORST_LOSS else WORST_LOSS,
            "queries": progress["queries"],
            "reason": outcome.reason if outcome else "",
            "sync_point": trial.sync_point,
            "waiting": trial.waiting,
            "place": encoded(trial.place()) if told else self._report.get("place", ""),
            "done": trial.done,
        }
        new = {} if told else {"place": ""}  # it is long
        head = None if prompt is None or trial.selected is None else dict(trial.selected.head)
        found = {"rows": rows, "prompt": prompt, "head": head, "ensemble": self._new_ensemble()}
        return self._report | new | found | {"scored": self._new_texts()}

    def _new_prompt(self) -> Array | str | None:
        """Return the selected prompt's rows or words if they have not been reported yet."""
        if self._trial.selected is self._reported:
            return None
        self._reported = self._trial.selected
        self._prompt = self._trial.selected_prompt()
        return self._prompt

    def _new_ensemble(self) -> tuple[Member, ...] | None:
        """Return the prompts that are read together if they have not been reported yet."""
        if self._trial.ensemble is self._ensemble:
            return None
        self._ensemble = self._trial.ensemble
        return self._ensemble

    def _remember(self, rows: list[dict[str, Any]]) -> None:
        self._recent.append(rows)
        while len(self._recent) > RECENT_REPORTS or (
            len(self._recent) > 1 and sum(map(len, self._recent)) > RECENT_ROWS
        ):
            self._recent.popleft()

    def _new_texts(self) -> list[dict[str, Any]]:
        """Return the texts that were scored since the last report."""
        new = self._trial.pool[self._told :]
        self._told += len(new)
        return [dataclasses.asdict(text) for text in new]

    def save(self, checkpoint_dir: str | None = None) -> Any:
        """Save as Tune does, once the store can be reached."""
        self._await_storage()
        return super().save(checkpoint_dir)

    def restore(self, checkpoint_path: Any) -> None:
        """Restore as Tune does, but from the newest checkpoint, which Tune may not have heard of."""
        self._await_storage()
        known = checkpoint_path.checkpoint
        found = newest(known.filesystem, str(Path(known.path).parent))
        if found is not None:
            checkpoint_path = type(checkpoint_path)(found.checkpoint, checkpoint_path.metrics)
            self._storage.current_checkpoint_index = found.number
        super().restore(checkpoint_path)

    def _await_storage(self) -> None:
        """Wait for a store that is out of reach: a trial that fails for it would fail again at once, and for good."""
        import tenacity

        storage = self._storage
        if storage is None:
            return
        for attempt in tenacity.Retrying(
            stop=tenacity.stop_after_delay(STORAGE_PATIENCE),
            wait=tenacity.wait_exponential_jitter(initial=0.5, max=10),
            retry=tenacity.retry_if_exception_type(OSError),
            reraise=True,
        ):
            with attempt:
                storage.storage_filesystem.get_file_info(storage.experiment_fs_path)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        Saved(self._trial.state_dict(), list(self._recent), self._report, self._prompt).write(Path(checkpoint_dir))

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        self._go_on_from(Saved.read(Path(checkpoint_dir)))

    def _go_on_from(self, saved: Saved) -> None:
        """Go on from a checkpoint; a restart that the scheduler has ordered since then is taken up."""
        self._new = False
        self._trial.load_state_dict(saved.state)
        self._recent = deque(saved.reports)
        self._report = saved.report
        self._prompt = saved.prompt
        restart = self._restart
        here = restart is not None and self._trial.waiting and restart["sync_point"] == self._trial.sync_point
        if restart is not None and here and restart["id"] != self._trial.restart_id:
            self._trial.take_over(exploit_of(restart))


def exploit_of(restart: dict[str, Any]) -> Exploit:
    """Return what the scheduler wrote into a trial's config."""
    place = restart["place"]
    return Exploit(
        id=restart["id"],
        source_trial=restart["source_trial"],
        settings=restart["settings"],
        place=decoded(place) if place else None,
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
