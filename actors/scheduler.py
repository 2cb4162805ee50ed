"""A population's schedule under Ray Tune: carries out what ``distributed_tuner.schedule`` decides.

A trial that reports ``waiting`` stands at a boundary. CONTINUE lets it go on with its own prompt. PAUSE saves it; what
it shall do is written into its config, and it runs again from there, in a new process or in one that is free. What was
decided is kept in the trials' configs alone, which Tune stores: the scheduler itself is no part of Tune's checkpoints,
and ``on_trial_add`` rebuilds all else from the trials' last results.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from actors.trial import WORST_LOSS
from distributed_tuner.config.schedule import PopulationScheduleConfig
from distributed_tuner.prompts.pool import PooledText, best_of
from distributed_tuner.schedule.barrier import lowest_barrier
from distributed_tuner.schedule.population import Decision, Standing, decide, decide_all
from distributed_tuner.seeds import Key

CONTINUE: str = TrialScheduler.CONTINUE
PAUSE: str = TrialScheduler.PAUSE
DECIDED = "decided"  # in a trial's config: what was decided, by boundary
MET = "met"  # in a trial's config: how all stood that met at its last barrier
RESTART = "restart"  # in a trial's config: the restart that it shall carry out, or has carried out last

Say = Callable[[str, str, str], None]


def silent(trial_id: str, kind: str, message: str) -> None:
    """Say nothing: what a scheduler that was unpickled has to say reaches no ledger."""


@dataclasses.dataclass(frozen=True, slots=True)
class Known:
    """What a trial reported last. place: of its prompt at its last boundary. since: when that was reported."""

    boundary: int
    waiting: bool
    loss: float | None
    place: str
    ended: bool
    since: float


class PopulationScheduler(FIFOScheduler):  # type: ignore[misc]
    """Runs the trials ``names`` as a population.

    stages: places of the restart stages in a trial's course, boundary by boundary, the same for all trials. settings:
    what each trial explores and where it begins, by trial and path. shown: texts of the whole population's
    pool that a restart is given. pool: texts that were scored before this scheduler began. say: takes (trial_id, kind,
    message) for the ledger. clock: seconds, for patience alone.
    """

    _supports_buffered_results = False  # the report of a boundary must not be passed over

    def __init__(
        self,
        schedule: PopulationScheduleConfig,
        names: Sequence[str],
        stages: Sequence[int],
        settings: Mapping[str, Mapping[str, float]],
        *,
        key: Key,
        shown: int,
        pool: Iterable[PooledText] = (),
        say: Say = silent,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._schedule = schedule
        self._names = tuple(names)
        self._stages = tuple(stages)
        self._settings = {name: dict(values) for name, values in settings.items()}
        self._key = key
        self._shown = shown
        self._pool = dict.fromkeys(pool)  # in the order in which they were scored, each once
        self._say = say
        self._clock = clock
        self._known: dict[str, Known] = {}
        self._met: dict[int, list[Standing]] = {}  # by boundary: who met there and how they stood ("sync")

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles the scheduler into the experiment; a ledger being written has no place there."""
        return {**self.__dict__, "_say": silent}

    # ------------------------------------------------------------------------------------------------ Tune's calls
    def on_trial_add(self, controller: Any, trial: Trial) -> None:
        """Learn what a restored trial reported last; one that only died and comes back is known already."""
        report = trial.last_result or {}
        if self._name(trial) not in self._known and "boundary" in report:
            self._note(trial, report)
        met = trial.config.get(MET)
        if met is not None:
            self._met.setdefault(met["boundary"], [Standing(**standing) for standing in met["standings"]])

    def on_trial_result(self, controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Let a trial go on, or pause it at its boundary: to wait for the others, or to restart."""
        if not self._note(trial, result).waiting:
            return CONTINUE
        if self._decided(trial) is None:
            self._decide(controller, trial)
        decision = self._decided(trial)
        if decision is None:
            return PAUSE
        if not decision.go_on:
            self._order(trial, decision)
        return CONTINUE if decision.go_on else PAUSE

    def choose_trial_to_run(self, controller: Any) -> Trial | None:
        """Return a paused trial whose boundary is decided; Tune starts those by itself that have yet to begin."""
        self._open_barrier(controller)
        for trial in controller.get_trials():
            if trial.status == Trial.PAUSED and self._decided(trial) is not None:
                return trial
        return None

    def debug_string(self) -> str:
        """Return one line on what is going on."""
        waiting = sum(known.waiting for known in self._known.values())
        return f"population of {len(self._names)}: {waiting} at a boundary, {len(self._pool)} texts scored"

    # ------------------------------------------------------------------------------------------------ what is known
    def _name(self, trial: Trial) -> str:
        index: int = trial.config["trial"]
        return self._names[index]

    def _note(self, trial: Trial, report: Mapping[str, Any]) -> Known:
        name = self._name(trial)
        before = self._known.get(name)
        again = before is not None and before.waiting and before.boundary == report["boundary"]
        loss = report["dev_loss"]
        known = Known(
            boundary=report["boundary"],
            waiting=bool(report["waiting"]),
            loss=loss if math.isfinite(loss) and loss < WORST_LOSS else None,
            place=report["place"] or (before.place if before is not None else ""),
            ended=bool(report["done"]),
            since=before.since if before is not None and again else self._clock(),
        )
        self._known[name] = known
        self._pool.update(dict.fromkeys(PooledText(**text) for text in report["scored"]))
        return known

    def _decided(self, trial: Trial) -> Decision | None:
        """Return what was decided for the boundary at which the trial stands, None while nothing is."""
        known = self._known.get(self._name(trial))
        decision = trial.config.get(DECIDED, {}).get(str(known.boundary)) if known is not None else None
        return Decision(**decision) if decision is not None else None

    def _standings(self, controller: Any) -> list[Standing]:
        """Return how every trial stands that has not failed, those included that have yet to begin."""
        trials = {self._name(trial): trial for trial in controller.get_trials()}
        failed = {name for name, trial in trials.items() if trial.status == Trial.ERROR}
        return [self._standing(name, trials.get(name)) for name in self._names if name not in failed]

    def _standing(self, name: str, trial: Trial | None) -> Standing:
        known = self._known.get(name)
        ended = trial is not None and trial.status == Trial.TERMINATED
        if known is None:
            return Standing(name, 0, None, self._explored(name, trial), ended)
        return Standing(name, known.boundary, known.loss, self._explored(name, trial), ended or known.ended)

    def _explored(self, name: str, trial: Trial | None) -> dict[str, float]:
        """Return the settings that a trial runs with: where it began, and what it has taken over since."""
        settings = dict(self._settings[name])
        decided = trial.config.get(DECIDED, {}) if trial is not None else {}
        for boundary in sorted(decided, key=int):
            settings |= decided[boundary]["settings"]
        return settings

    # ------------------------------------------------------------------------------------------------ decisions
    def _decide(self, controller: Any, trial: Trial) -> None:
        """Decide for a trial that has come to a boundary, if that can be done now."""
        if self._schedule.mode == "async":
            self._write(trial, self._decision(self._name(trial), self._standings(controller)))
        else:
            self._open_barrier(controller)

    def _decision(self, name: str, standings: Sequence[Standing]) -> Decision:
        return decide(name, standings, self._schedule.quantile, self._schedule.explore, self._key)

    def _open_barrier(self, controller: Any) -> None:
        """Decide for all that have met at the lowest boundary, if all are there or their patience is over ("sync")."""
        if self._schedule.mode == "async":
            return
        trials = {self._name(trial): trial for trial in controller.get_trials()}
        waiting: dict[str, float] = {}
        for name, trial in trials.items():
            known = self._known.get(name)
            if known is None or not known.waiting or trial.is_finished() or self._decided(trial) is not None:
                continue
            if known.boundary in self._met:
                self._write(trial, self._late(name, trial))
            else:
                waiting[name] = known.since
        standings = self._standings(controller)
        barrier = lowest_barrier(standings, waiting)
        if barrier is None or not barrier.opens(self._clock(), self._schedule.patience):
            return
        for name in barrier.late:
            self._say(
                name,
                "late",
                f"not at restart stage {barrier.boundary} within {self._schedule.patience:g} s of the first; the others"
                " go on without it",
            )
        met = [standing for standing in standings if standing.trial_id in barrier.there or standing.ended]
        self._met[barrier.boundary] = met
        decisions = decide_all(met, self._schedule.quantile, self._schedule.explore, self._key)
        for name in barrier.there:
            self._write(trials[name], decisions[name])

    def _late(self, name: str, trial: Trial) -> Decision:
        """Decide for a trial whose barrier is open, upon those who met there; after a restore it may be one of them."""
        met = self._met[self._known[name].boundary]
        there = any(standing.trial_id == name for standing in met)
        return self._decision(name, met if there else [*met, self._standing(name, trial)])

    def _write(self, trial: Trial, decision: Decision) -> None:
        """Put a decision into the trial's config, and in "sync" mode what it was decided upon."""
        name = self._name(trial)
        boundary = self._known[name].boundary
        decided = {**trial.config.get(DECIDED, {}), str(boundary): dataclasses.asdict(decision)}
        config = {**trial.config, DECIDED: decided}
        if boundary in self._met:
            standings = [dataclasses.asdict(standing) for standing in self._met[boundary]]
            config[MET] = {"boundary": boundary, "standings": standings}
        trial.set_config(config)
        if not decision.go_on:
            self._order(trial, decision)
            self._say(name, "restart", self._told(name, decision))

    def _order(self, trial: Trial, decision: Decision) -> None:
        """Put the restart that was decided into the trial's config, where the trial looks for it when it begins."""
        name = self._name(trial)
        boundary = self._known[name].boundary
        if trial.config.get(RESTART, {}).get("boundary") == boundary:
            return
        donor = self._known.get(decision.donor) if decision.donor is not None else None
        restart = {
            "id": f"{name}/{boundary}",
            "boundary": boundary,
            "donor": decision.donor,
            "settings": decision.settings,
            "place": donor.place if donor is not None else "",
            "pool": [dataclasses.asdict(text) for text in best_of(self._texts(boundary), self._shown)],
        }
        trial.set_config({**trial.config, RESTART: restart})

    def _texts(self, boundary: int) -> list[PooledText]:
        """Return the texts that a restart at a boundary is given: all that were scored.

        In "sync" mode those alone that were scored when all met there, for a resumed run may know more by now.
        """
        if self._schedule.mode == "async":
            return list(self._pool)
        stage = self._stages[boundary - 1]
        before = (text.stage < stage or (text.stage == stage and text.source == "trajectory") for text in self._pool)
        return [text for text, counts in zip(self._pool, before, strict=True) if counts]

    def _told(self, name: str, decision: Decision) -> str:
        """Return what a person is told of a restart."""
        if decision.donor is None:
            return "restarts from its own prompts: there is no other trial to take after"
        donor, own = (self._shown_loss(one) for one in (decision.donor, name))
        explored = "".join(f", {path} {value:.4g}" for path, value in decision.settings.items())
        return f"takes after {decision.donor} (dev loss {donor} against {own}){explored}"

    def _shown_loss(self, name: str) -> str:
        known = self._known.get(name)
        return "none" if known is None or known.loss is None else f"{known.loss:.4g}"
