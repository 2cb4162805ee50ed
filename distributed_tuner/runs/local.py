"""A run in this process: one oracle, its trials one after the other. No Ray is started."""

import math
import time
from collections import Counter as Tally
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from distributed_tuner import oracles, proposers
from distributed_tuner.config.oracle import OracleConfig, Tile
from distributed_tuner.config.proposer import ProposerConfig
from distributed_tuner.errors import OracleMemoryError, TunerError
from distributed_tuner.ledger.follower import Follower
from distributed_tuner.ledger.rows import Row
from distributed_tuner.oracles.base import LossOracle
from distributed_tuner.oracles.codec import codec_of
from distributed_tuner.oracles.generation import writer
from distributed_tuner.oracles.local.device_memory import free_bytes, within_memory
from distributed_tuner.oracles.tile_size import shrunk, spelled
from distributed_tuner.oracles.tiling import cut, merge
from distributed_tuner.oracles.wrappers.base import WrappedOracle
from distributed_tuner.preflight.prepared import Prepared
from distributed_tuner.proposers.base import Proposer
from distributed_tuner.runs.observer import Observer
from distributed_tuner.runs.pool import Occupancy, OraclePool, Statistics
from distributed_tuner.runs.recorder import Recorder
from distributed_tuner.stages.trial import Trial
from distributed_tuner.values import Answer, Evaluation, Request, Sampling, TokenSpace

Build = Callable[[OracleConfig], LossOracle]


class LocalOracle(WrappedOracle):
    """One oracle, asked tile by tile: the same bits as a pool of actors gives. A tile that does not fit into memory
    makes the tiles smaller."""

    def __init__(self, oracle: LossOracle, tile: Tile) -> None:
        super().__init__(oracle)
        self.tile = tile
        self.fresh = False
        self.busy = False
        """Whether it is computing."""
        self.statistics = Statistics(tile=tile, up=1, most_up=1)
        self._told: set[str] = set()

    def evaluate(self, request: Request, timeout: float = math.inf) -> Evaluation:
        self.busy = True
        try:
            return self._evaluate(request, time.monotonic() + timeout)
        finally:
            self.busy = False

    def _evaluate(self, request: Request, until: float) -> Evaluation:
        asked = replace(request, fresh=True) if self.fresh else request
        while True:
            cuts = cut(asked, self.tile)
            try:
                answers = [self._answer(piece.of(asked), until) for piece in cuts]
            except OracleMemoryError as error:
                self._shrink(len(asked.candidates), len(asked.batch.examples), error)
                continue
            answer = merge(asked, cuts, answers)
            self._count(answer, len(cuts))
            return answer

    def _answer(self, part: Request, until: float) -> Evaluation:
        return within_memory(lambda: self._oracle.evaluate(part, until - time.monotonic()))

    def _shrink(self, candidates: int, examples: int, error: OracleMemoryError) -> None:
        c, e = self.tile.candidates, self.tile.examples
        smaller = shrunk(self.tile, candidates if c == "auto" else min(c, candidates), min(e, examples))
        if smaller is None:
            raise OracleMemoryError(
                f"{error}; {spelled(self.tile)} is the smallest tile: use a smaller model, a shorter prompt, shorter"
                " texts, or a device with more memory"
            ) from None
        message = f"tiles are {spelled(smaller)} instead of {spelled(self.tile)} from here on: {error}"
        self.statistics.events.append(("tile_halved", message))
        self.tile = self.statistics.tile = smaller

    def _count(self, answer: Evaluation, tiles: int) -> None:
        seen = self.statistics
        seen.tiles += tiles
        seen.busy_seconds += answer.cost.seconds
        seen.counts += Tally(answer.counts)
        for kind, message in answer.remarks:
            if kind not in self._told:
                self._told.add(kind)
                seen.events.append((kind, message))


class LocalPool:
    """One oracle of this process as the pool of a run."""

    def __init__(self, config: OracleConfig, oracle: LossOracle) -> None:
        self.config = config
        self.oracle = LocalOracle(oracle, config.tile)

    def free_bytes(self) -> int | None:
        return free_bytes(self.oracle.info.device)

    def use_tile(self, tile: Tile) -> None:
        self.oracle.tile = self.oracle.statistics.tile = tile

    def leave_cache(self) -> None:
        self.oracle.fresh = True

    def statistics(self) -> Statistics:
        told = replace(self.oracle.statistics)
        self.oracle.statistics.events = []
        return told

    def occupancy(self) -> Occupancy:
        return Occupancy(workers=1, busy=int(self.oracle.busy), waiting=0)

    def stop(self) -> None:
        """Do nothing: the oracle belongs to its builder."""


class LocalBackend:
    """Runs trials in this process. ``build``: makes the oracle of a config."""

    lost: tuple[type[Exception], ...] = ()

    def __init__(self, observer: Observer, build: Build = oracles.build) -> None:
        self._observer = observer
        self._build = build
        self.pool: LocalPool | None = None
        """The last one that was started."""
        self._interrupted = False

    @property
    def ended(self) -> Mapping[str, str]:
        return {}

    def notes(self, oracle: OracleConfig) -> list[str]:
        return []

    def start(self, oracle: OracleConfig) -> LocalPool:
        self.pool = LocalPool(oracle, self._build(oracle))
        return self.pool

    def run_trials(self, prepared: Prepared, pool: OraclePool, recorder: Recorder, ledger: Follower) -> None:
        made = _Proposers(prepared, pool.oracle)
        with self._observer:
            for plan, task in zip(prepared.plans, prepared.tasks, strict=True):
                if recorder.is_stopped(plan):
                    recorder.completed(plan)
                    continue
                recorder.started(plan)
                trial = Trial(plan.trial_id, plan.experiment, task, pool.oracle, index=plan.index, proposers=made)
                try:
                    for report in reports(trial):
                        recorder.reported(plan, report)
                        if self._interrupted:
                            raise KeyboardInterrupt
                        if recorder.is_stopped(plan):
                            break
                except TunerError as error:
                    recorder.failed(plan, str(error))
                    raise
                recorder.completed(plan)

    def interrupt(self) -> None:
        """End the run after the step that is being computed."""
        self._interrupted = True

    def over(self) -> None:
        """Do nothing: there is no other process."""


def reports(trial: Trial) -> Iterator[dict[str, Any]]:
    """Run a trial to its end; yield after each step what a ``Recorder`` takes: new rows, the selected prompt and its
    head where these are new, those that are read together, and how the trial stands."""
    reported, ensemble = None, trial.ensemble
    while not trial.done:
        rows: list[Row] = trial.go_on() if trial.waiting else trial.advance()
        selected = trial.selected
        new = selected is not None and selected is not reported
        reported = selected
        together = None if trial.ensemble is ensemble else trial.ensemble
        ensemble = trial.ensemble
        yield {
            "rows": [row.model_dump() for row in rows],
            "prompt": trial.selected_prompt() if new else None,
            "head": dict(selected.head) if new and selected is not None else None,
            "ensemble": together,
            "progress": trial.progress(),
            "reason": trial.outcome.reason if trial.outcome else "",
        }


class _Proposers:
    """Builds each proposer when it is first asked for."""

    def __init__(self, prepared: Prepared, oracle: LossOracle) -> None:
        self._root = prepared.root
        self._tuned = _Tuned(oracle)
        self._built: dict[str, Proposer] = {}

    def __call__(self, config: ProposerConfig) -> Proposer:
        key = config.model_dump_json()
        if key not in self._built:
            self._built[key] = proposers.build(config, root=self._root, tuned=self._tuned)
        return self._built[key]


class _Tuned:
    """The oracle's model as proposers ask it (``TunedModel``)."""

    def __init__(self, oracle: LossOracle) -> None:
        self._oracle = oracle

    @property
    def name(self) -> str:
        return self._oracle.info.model

    def words(self) -> tuple[str, ...]:
        return codec_of(self._oracle).vocabulary(TokenSpace())

    def write(self, instruction: str, sampling: Sampling) -> Answer:
        return writer(self._oracle).write(instruction, sampling)
