"""A population's schedule under Ray Tune: carries out what ``distributed_tuner.schedule`` decides.

A trial that reports ``waiting`` is at a sync point: a restart stage. CONTINUE lets it go on with its own prompt. PAUSE
saves it; what it shall do is written into its config, and it runs again from there, in a new process or in one that is
free. A decision is handed over to be kept before anything follows from it, so that a resumed run knows of every one
that a trial's checkpoint can build on.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from actors.ray_internals.tune_import import FIFOScheduler, Trial, TrialScheduler
from actors.trials.trainable import WORST_LOSS
from distributed_tuner.config.schedule import PopulationScheduleConfig
from distributed_tuner.prompts.pool import PooledText, best_of
from distributed_tuner.schedule.barrier import lowest_barrier
from distributed_tuner.schedule.decisions import Decisions, Restart
from distributed_tuner.schedule.population import Decision, Standing, decide, decide_all
from distributed_tuner.seeds import Key

CONTINUE: str = TrialScheduler.CONTINUE
PAUSE: str = TrialScheduler.PAUSE
RESTART = "restart"  # in a trial's config: the restart that it shall carry out, or has carried out last

Say = Callable[[str, str, str], None]
Keep = Callable[[Decisions], None]


def silent(*said: Any) -> None:
    """Say and keep nothing."""


@dataclasses.dataclass(frozen=True, slots=True)
class Known:
    """Last report of a trial. place: of its prompt at its last sync point. since: when that was reported."""

    sync_point: int
    waiting: bool
    loss: float | None
    place: str
    ended: bool
    since: float


class PopulationScheduler(FIFOScheduler):  # type: ignore[misc]
    """Runs the trials ``names`` as a population.

    stages: places of the restart stages among all stages of a trial, in order; each is a sync point, the same for all
    trials. settings: what each trial explores and where it begins, by trial and path. shown: texts of the whole
    population's pool that a restart is given. say: takes (trial_id, kind, message) for the ledger. keep: writes down
    what is decided. clock: seconds, for patience alone.

    Of a run that is resumed: decisions: those of before. reports: the last one of every trial that made any. failed:
    trials that are given up. stopped: trials that somebody has ended. pool: texts that were scored.
    """

    _supports_buffered_results = False  # the report of a sync point must not be passed over

    def __init__(
        self,
        schedule: PopulationScheduleConfig,
        names: Sequence[str],
        stages: Sequence[int],
        settings: Mapping[str, Mapping[str, float]],
        *,
        key: Key,
        shown: int,
        decisions: Decisions | None = None,
        reports: Mapping[str, Mapping[str, Any]] | None = None,
        failed: Collection[str] = (),
        stopped: Collection[str] = (),
        pool: Iterable[PooledText] = (),
        say: Say = silent,
        keep: Keep = silent,
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
        self._keep = keep
        self._clock = clock
        self._decisions = decisions or Decisions()
        self._kept = True  # nothing was decided since they were handed over
        self._failed = frozenset(failed)
        self._stopped = frozenset(stopped)
        self._known: dict[str, Known] = {}
        for name, report in (reports or {}).items():
            self._note(name, report)

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles the scheduler into the experiment; what writes files has no place there."""
        return {**self.__dict__, "_say": silent, "_keep": silent}

    # ------------------------------------------------------------------------------------------------ Tune's calls
    def on_trial_add(self, controller: Any, trial: Trial) -> None:
        """Send a trial of a resumed run its earlier decision; a trial that was only restarted knows it."""
        name = self._name(trial)
        known = self._known.get(name)
        restart = self._decisions.restart_of(name, known.sync_point) if known is not None else None
        if restart is not None:
            _tell(trial, restart)

    def on_trial_result(self, controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Let a trial go on, or pause it at its sync point: to wait for the others, or to restart."""
        self._pool.update(dict.fromkeys(PooledText(**text) for text in result["scored"]))
        if not self._note(self._name(trial), result).waiting:
            return CONTINUE
        if self._decided(trial) is None:
            self._decide(controller, trial)
        decision = self._decided(trial)
        if decision is not None and not decision.go_on:
            self._order(trial, decision)
        self._hand_over()
        return CONTINUE if decision is not None and decision.go_on else PAUSE

    def choose_trial_to_run(self, controller: Any) -> Trial | None:
        """Return a paused trial whose sync point is decided; Tune starts those by itself that have yet to begin."""
        self._open_barrier(controller)
        self._hand_over()
        for trial in controller.get_trials():
            if trial.status == Trial.PAUSED and self._decided(trial) is not None:
                return trial
        return None

    def debug_string(self) -> str:
        """Return one line on what is going on."""
        waiting = sum(known.waiting for known in self._known.values())
        return f"population of {len(self._names)}: {waiting} at a sync point, {len(self._pool)} texts scored"

    # ------------------------------------------------------------------------------------------------ what is known
    def _name(self, trial: Trial) -> str:
        index: int = trial.config["trial"]
        return self._names[index]

    def _note(self, name: str, report: Mapping[str, Any]) -> Known:
        before = self._known.get(name)
        again = before is not None and before.waiting and before.sync_point == report["sync_point"]
        loss = report["dev_loss"]
        known = Known(
            sync_point=report["sync_point"],
            waiting=bool(report["waiting"]),
            loss=loss if math.isfinite(loss) and loss < WORST_LOSS else None,
            place=report["place"] or (before.place if before is not None else ""),
            ended=bool(report["done"]),
            since=before.since if before is not None and again else self._clock(),
        )
        self._known[name] = known
        return known

    def _decided(self, trial: Trial) -> Decision | None:
        """Return what was decided for the sync point at which the trial stands, None while nothing is."""
        name = self._name(trial)
        known = self._known.get(name)
        return self._decisions.of(name, known.sync_point) if known is not None else None

    def _standings(self, controller: Any) -> list[Standing]:
        """Return how every trial stands that has not failed, those included that have yet to begin."""
        trials = {self._name(trial): trial for trial in controller.get_trials()}
        failed = self._failed | {name for name, trial in trials.items() if trial.status == Trial.ERROR}
        return [self._standing(name, trials.get(name)) for name in self._names if name not in failed]

    def _standing(self, name: str, trial: Trial | None) -> Standing:
        known = self._known.get(name)
        ended = name in self._stopped or (trial is not None and trial.status == Trial.TERMINATED)
        settings = self._settings[name] | self._decisions.settings_of(name)
        if known is None:
            return Standing(name, 0, None, settings, ended)
        return Standing(name, known.sync_point, known.loss, settings, ended or known.ended)

    # ------------------------------------------------------------------------------------------------ decisions
    def _decide(self, controller: Any, trial: Trial) -> None:
        """Decide for a trial that has come to a sync point, if that can be done now."""
        if self._schedule.mode == "async":
            self._write(trial, self._decision(self._name(trial), self._standings(controller)))
        else:
            self._open_barrier(controller)

    def _decision(self, name: str, standings: Sequence[Standing]) -> Decision:
        return decide(name, standings, self._schedule.quantile, self._schedule.explore, self._key)

    def _open_barrier(self, controller: Any) -> None:
        """Decide for all at the lowest sync point, if all are there or the schedule's patience is over ("sync")."""
        if self._schedule.mode == "async":
            return
        trials = {self._name(trial): trial for trial in controller.get_trials()}
        waiting: dict[str, float] = {}
        for name, trial in trials.items():
            known = self._known.get(name)
            if known is None or not known.waiting or trial.is_finished() or self._decided(trial) is not None:
                continue
            if known.sync_point in self._decisions.met:
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
                f"not at restart stage {barrier.sync_point} within {self._schedule.patience:g} s of the first; the"
                " others continue without it",
            )
        met = tuple(standing for standing in standings if standing.trial_id in barrier.there or standing.ended)
        self._decisions.met[barrier.sync_point] = met
        decisions = decide_all(met, self._schedule.quantile, self._schedule.explore, self._key)
        for name in barrier.there:
            self._write(trials[name], decisions[name])

    def _late(self, name: str, trial: Trial) -> Decision:
        """Decide for a trial whose barrier is open, upon those who met there; after a restore it may be one of them."""
        met = self._decisions.met[self._known[name].sync_point]
        there = any(standing.trial_id == name for standing in met)
        return self._decision(name, met if there else [*met, self._standing(name, trial)])

    def _write(self, trial: Trial, decision: Decision) -> None:
        """Take a decision down, and tell the trial."""
        name = self._name(trial)
        self._decisions.decided.setdefault(name, {})[self._known[name].sync_point] = decision
        self._kept = False
        if not decision.go_on:
            self._order(trial, decision)
            self._say(name, "restart", self._told(name, decision))

    def _order(self, trial: Trial, decision: Decision) -> None:
        """Put the restart that was decided into the trial's config, where the trial looks for it when it begins."""
        name = self._name(trial)
        sync_point = self._known[name].sync_point
        told = self._decisions.restart_of(name, sync_point)
        if told is not None:
            _tell(trial, told)
            return
        source = self._known.get(decision.source_trial) if decision.source_trial is not None else None
        restart = Restart(
            id=f"{name}/{sync_point}",
            sync_point=sync_point,
            source_trial=decision.source_trial,
            settings=decision.settings,
            place=source.place if source is not None else "",
            pool=tuple(best_of(self._texts(sync_point), self._shown)),
        )
        self._decisions.order(name, restart)
        self._kept = False
        _tell(trial, restart)

    def _hand_over(self) -> None:
        """Have what is new written down."""
        if not self._kept:
            self._keep(self._decisions)
            self._kept = True

    def _texts(self, sync_point: int) -> list[PooledText]:
        """Return the texts that a restart at a sync point is given: all that were scored.

        In "sync" mode those alone that were scored when all met there, for a resumed run may know more by now.
        """
        if self._schedule.mode == "async":
            return list(self._pool)
        stage = self._stages[sync_point - 1]
        before = (text.stage < stage or (text.stage == stage and text.source == "trajectory") for text in self._pool)
        return [text for text, counts in zip(self._pool, before, strict=True) if counts]

    def _told(self, name: str, decision: Decision) -> str:
        """Return the message about a restart."""
        if decision.source_trial is None:
            return "restarts from its own prompts: there is no other trial to take after"
        theirs, own = (self._shown_loss(one) for one in (decision.source_trial, name))
        explored = "".join(f", {path} {value:.4g}" for path, value in decision.settings.items())
        return f"takes after {decision.source_trial} (dev loss {theirs} against {own}){explored}"

    def _shown_loss(self, name: str) -> str:
        known = self._known.get(name)
        return "none" if known is None or known.loss is None else f"{known.loss:.4g}"


def _tell(trial: Trial, restart: Restart) -> None:
    trial.set_config({**trial.config, RESTART: dataclasses.asdict(restart)})
