"""Analyses that ask a model: on a pool of oracle actors, with a ledger of what was asked."""

import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from actors.cluster import cluster, room
from actors.pool.pool import Pool
from distributed_tuner import __version__, optimizers
from distributed_tuner.analysis import effective_dimension as analysis
from distributed_tuner.analysis import page
from distributed_tuner.analysis.descents import first_order_way, gradient_descent, zo_descent
from distributed_tuner.analysis.effective_dimension import FULL, QUICK, Run, Sizes, Spot
from distributed_tuner.analysis.findings import Findings
from distributed_tuner.analysis.landscape import Curvature, Landscape, curvature_at, forward_curvature_at
from distributed_tuner.config.experiment import Experiment
from distributed_tuner.config.first_order import AdamWConfig, FirstOrderConfig
from distributed_tuner.config.oracle import OracleConfig, TransformersOracleConfig
from distributed_tuner.config.stage import GradientStageConfig
from distributed_tuner.errors import ConfigError
from distributed_tuner.ledger.digest import digest
from distributed_tuner.ledger.rows import CostRow, CurvatureRow, RunEndRow, RunRow
from distributed_tuner.ledger.writer import LedgerWriter
from distributed_tuner.maths.curvature import Array64, step_size
from distributed_tuner.oracles.codec import codec_of
from distributed_tuner.preflight.prepare import prepare, prepare_again
from distributed_tuner.preflight.prepared import Prepared
from distributed_tuner.prompts.export import read
from distributed_tuner.prompts.spec import prompt_spec
from distributed_tuner.runs.directory import RunDirectory
from distributed_tuner.runs.pool import OraclePool
from distributed_tuner.runs.startup import Started, start_pool
from distributed_tuner.shipped import search_spaces
from distributed_tuner.stages.reading import read_by
from distributed_tuner.tasks.base import Task
from distributed_tuner.values import Array, Point

SPACE = search_spaces() / "effective_dimension.yaml"
RHO = 0.1
Note = Callable[[str], None]


def analyze_effective_dimension(
    source: Path | None, folder: Path, *, quick: bool, seed: int, forward_only: bool, address: str | None, note: Note
) -> Findings:
    """Measure the effective dimension and return what was found; ``folder`` gets the ledger, once the
    source is known to be sound.

    source: a search space, whose first-order way is gone along; a run directory, whose trained prompt is evaluated; or
    None, for the paper's two figures.

    Raises:
        ConfigError: the prompt is in words; the oracle gives no gradients and ``forward_only`` is not set.
        TunerError: whatever keeps a run of the same source from starting.
    """
    sizes = QUICK if quick else FULL
    parts = []
    trained = RunDirectory(source) if source is not None and source.is_dir() else None
    prepared = prepare(source or SPACE, []) if trained is None else prepare_again(trained, Path())
    prepared = _as_asked(prepared, forward_only)
    if trained is not None:
        _trained(trained, prepared)
    page.begin(folder)
    if source is None:
        note("quadratics: gradient descent and ZO-GD")
        parts.append(analysis.on_quadratics(sizes, seed))
    began = time.monotonic()
    with cluster(prepared.experiment.oracle, address, note), LedgerWriter(folder / "ledger.jsonl") as writer:
        prepared = prepared.sized(*room(prepared.experiment.oracle))
        writer.write(RunRow(name="effective-dimension", version=__version__, seed=seed, methods=[]))
        started = _started(prepared, note)
        try:
            measuring = _Measuring(prepared, started.pool, sizes, seed, forward_only, writer, note)
            parts.append(measuring.of_run(trained) if trained is not None else measuring.of_space())
        finally:
            statistics = started.pool.statistics()
            started.pool.stop()
            writer.write(
                RunEndRow(
                    status="done" if len(parts) == (2 if source is None else 1) else "failed",
                    wall_seconds=time.monotonic() - began,
                    oracle_busy_seconds=statistics.busy_seconds,
                    oracle_actors=statistics.most_up or prepared.experiment.oracle.first_actors,
                    tiles=statistics.tiles,
                    retries=statistics.retries,
                )
            )
    return analysis.findings(parts, measuring.facts)


def _as_asked(prepared: Prepared, forward_only: bool) -> Prepared:
    """Return the trials with an oracle that gives what is asked: float32, and gradients unless losses alone will do.

    Raises:
        ConfigError: it cannot, or there are no coordinates.
    """
    experiment = prepared.experiment
    if experiment.prompt.kind != "soft":
        raise ConfigError("curvature needs coordinates, but prompt.kind is text; give a search space of soft prompts")
    oracle: OracleConfig = experiment.oracle
    if isinstance(oracle, TransformersOracleConfig):
        return prepared.with_oracle(oracle.model_copy(update={"dtype": "float32", "gradients": not forward_only}))
    if not forward_only and not oracle.white_box:
        raise ConfigError(
            f"an oracle of kind {oracle.kind} gives no gradients; estimate trace and curvature from losses alone, with"
            " --forward-only"
        )
    return prepared


def _trained(directory: RunDirectory, prepared: Prepared) -> tuple[Array, Experiment, Task]:
    """Return the rows of a run's best trial, its settings and its task as these are asked for.

    Raises:
        ConfigError: they are words, which a screen has found.
    """
    trial_id = read(directory.best).trial_id
    plan = next(plan for plan in prepared.plans if plan.trial_id == trial_id)
    rows = directory.prompt_of(trial_id)
    if rows is None or isinstance(rows, str):
        raise ConfigError(
            f"curvature needs coordinates, but the best prompt of {directory.name} is in words, as its screen found it;"
            " give the search space instead, or a run without a screen"
        )
    plan, task = prepared.as_screened(plan, digest(directory.ledger).screens)
    return rows, plan.experiment, read_by(task, plan.experiment)


def _started(prepared: Prepared, note: Note) -> Started:
    names = (f"analysis-{os.getpid()}-{time.time_ns()}/{number}" for number in itertools.count())
    return start_pool(prepared, lambda config: Pool.start(config, next(names)), note)


class _Measuring:
    """Points, curvatures and descents of one landscape."""

    def __init__(
        self,
        prepared: Prepared,
        pool: OraclePool,
        sizes: Sizes,
        seed: int,
        forward_only: bool,
        writer: LedgerWriter,
        note: Note,
    ) -> None:
        self._prepared = prepared
        self._pool = pool
        self._sizes = sizes
        self._seed = seed
        self._forward_only = forward_only
        self._writer = writer
        self._note = note
        self.facts: dict[str, str] = {}

    def of_space(self) -> analysis.Part:
        """Measure along the way of the first gradient stage's optimizer, then descend from its start."""
        experiment, task = self._prepared.experiment, self._prepared.tasks[0]
        landscape = self._landscape(experiment, task)
        start = np.zeros(landscape.dim)
        if self._forward_only:
            return self._part([Spot("the start", self._measure(landscape, start, "the start"))], [], experiment, task)
        optimizer = optimizers.build(
            _first_order(experiment), dim=landscape.dim, key=(self._seed, "way"), steps=self._sizes.way
        )
        self._note(f"the way: {self._sizes.way} steps of {optimizer.kind}")
        way = first_order_way(landscape, optimizer, self._sizes.way)
        spots = []
        for step in np.linspace(0, self._sizes.way, self._sizes.points).round().astype(int).tolist():
            spots.append(Spot(f"step {step}", self._measure(landscape, way[step], f"step {step}"), step))
        return self._part(spots, self._descents(landscape, start, spots), experiment, task)

    def of_run(self, directory: RunDirectory) -> analysis.Part:
        """Measure at the start of the best trial of a run, and at the prompt that it found."""
        rows, experiment, task = _trained(directory, self._prepared)
        landscape = self._landscape(experiment, task)
        start = np.zeros(landscape.dim)
        spec = prompt_spec(experiment.prompt, task)
        base = codec_of(self._pool.oracle).materialize(Point(start.astype(np.float32)), spec)
        unit = self._pool.oracle.info.embedding_std if spec.scale == "embedding" else 1.0
        trained = ((rows - base).astype(np.float64) / unit).reshape(-1)
        places = (("the start", start), ("the trained prompt", trained))
        spots = [Spot(name, self._measure(landscape, x, name)) for name, x in places]
        return self._part(spots, [], experiment, task)

    def _landscape(self, experiment: Experiment, task: Task) -> Landscape:
        return Landscape(self._pool.oracle, task.batch("train"), prompt_spec(experiment.prompt, task))

    def _measure(self, landscape: Landscape, x: Array64, name: str) -> Curvature:
        key = (self._seed, "curvature", name)
        if self._forward_only:
            found = forward_curvature_at(landscape, x, key, probes=8 * self._sizes.probes)
        else:
            found = curvature_at(landscape, x, key, probes=self._sizes.probes, steps=self._sizes.lanczos)
        self._writer.write(
            CurvatureRow(
                point=name,
                loss=found.loss,
                gradient_norm=found.gradient_norm,
                trace=found.trace.value,
                trace_error=found.trace.error,
                norm=found.norm,
                probes=found.trace.probes,
                cost=CostRow.of(found.cost),
            )
        )
        self._note(
            f"{name}: loss {found.loss:.4f}, trace {found.trace.value:.3g} +- {found.trace.error:.2g},"
            f" norm {found.norm:.3g}, {found.cost.queries} queries"
        )
        return found

    def _descents(self, landscape: Landscape, start: Array64, spots: list[Spot]) -> list[Run]:
        d_e, L = analysis.dimension_of(spots), analysis.norm_of(spots)
        steps = self._sizes.descent
        self._note(f"descents: {steps} steps each")
        runs = [Run(0, 1 / L, gradient_descent(landscape, start, 1 / L, steps))]
        for n in sorted({1, min(self._sizes.most, max(1, round(d_e)))}):
            gamma = step_size(d_e, n, L)
            losses = zo_descent(landscape, start, gamma, n, RHO, steps, (self._seed, "descent", n))
            runs.append(Run(n, gamma, losses))
        return runs

    def _part(self, spots: list[Spot], runs: list[Run], experiment: Experiment, task: Task) -> analysis.Part:
        info = self._pool.oracle.info
        dim = experiment.prompt.length * info.width
        examples = len(task.train)
        self.facts = {
            "model": info.model,
            "dtype": info.dtype,
            "task": task.name,
            "train examples": str(examples),
            "d": f"{experiment.prompt.length} x {info.width} = {dim}",
        }
        fitted = prompt_spec(experiment.prompt, task).scale == "embedding"
        unit = "the embeddings' standard deviation" if fitted else "the embeddings themselves"
        where = f"the loss of {info.model} on {examples} examples of {task.name}"
        return analysis.on_a_model(spots, runs, dim, where, unit)


def _first_order(experiment: Experiment) -> FirstOrderConfig:
    """Return the optimizer of the first gradient stage, else AdamW."""
    stages = [stage for stage in experiment.stages if isinstance(stage, GradientStageConfig)]
    return stages[0].optimizer if stages else AdamWConfig(learning_rate=0.1, schedule="constant")
