"""Startup of a new run: tile size and precision, chosen once for all of its actors.

Both are part of the numbers. They are written into config.json, and a resumed run takes them from there. Then, in a
resumed run as well, the oracle must pass the sanity check (sanity_check.py).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from distributed_tuner.config.oracle import OracleConfig, Tile, TransformersOracleConfig
from distributed_tuner.errors import ModelError
from distributed_tuner.ledger.rows import CalibrationRow, CostRow, ParityRow
from distributed_tuner.oracles.checks.precision import LIMIT, Calibration, calibrate
from distributed_tuner.oracles.codec import codec_of
from distributed_tuner.oracles.tile_size import (
    DTYPE_BYTES,
    candidate_bytes,
    choose_candidates,
    decoded_bytes,
    longest,
    most_candidates,
    spelled,
)
from distributed_tuner.preflight.precision_cases import Case, cases
from distributed_tuner.preflight.prepared import Prepared
from distributed_tuner.runs.pool import OraclePool, Statistics
from distributed_tuner.runs.sanity_check import pass_sanity_check
from distributed_tuner.stages.prompt_space import prompt_space
from distributed_tuner.values import Batch, Request

Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Started:
    """The pool that the run works with, its settings, and what was measured to find them and to pass the sanity check.

    ``before``: statistics of a pool that was stopped again. ``tops``: tokens other than the label words that a server
    listed in its answers at the sanity check, with the sum of their probabilities.
    """

    pool: OraclePool
    oracle: OracleConfig
    calibrations: list[CalibrationRow]
    before: Statistics = field(default_factory=Statistics)
    parities: list[ParityRow] = field(default_factory=list)
    tops: Mapping[str, float] = field(default_factory=dict)

    def answer_words(self, batch: Batch, count: int) -> tuple[str, ...]:
        """Return ``count`` words that a head may read, the label words counted but left out.

        Of a server that lists its likeliest tokens, the likeliest over the answers at the sanity check: what an answer
        does not list is not known. Else the oracle's own choice.
        """
        if not self.tops:
            return codec_of(self.pool.oracle).answer_words(batch, count)
        likeliest = sorted(self.tops, key=lambda token: (-self.tops[token], token))
        return tuple(likeliest[: count - len(batch.label_words)])


def start_pool(prepared: Prepared, start: Callable[[OracleConfig], OraclePool], note: Note) -> Started:
    """Start the pool, choose its tile size, and calibrate its precision; where rounding swamps, start it in float32.

    Raises:
        ModelError: the model cannot be loaded, rounding swamps and the dtype was asked for by name, or the oracle's
            answers do not agree with each other.
    """
    config = _with_whole_path(prepared.experiment.oracle)
    pool = start(config)
    try:
        tile = _choose_tile(prepared, pool, note)
        rows = _calibrations(prepared, pool, note)
        suffices = all(row.used == row.dtype for row in rows)
        if not suffices and not (isinstance(config, TransformersOracleConfig) and config.dtype == "auto"):
            raise _refusal(rows, getattr(config, "given", False))
        started = Started(pool, _recorded(config, pool, tile), rows)
    except BaseException:
        pool.stop()
        raise
    if suffices:
        return _passed(started, prepared, note)
    before = pool.statistics()
    pool.stop()
    note("starting the oracle actor(s) again in float32")
    config = config.model_copy(update={"dtype": "float32"})
    pool = start(config)
    started = Started(pool, _recorded(config, pool, _choose_tile(prepared, pool, note)), rows, before)
    return _passed(started, prepared, note)


def start_pool_again(prepared: Prepared, start: Callable[[OracleConfig], OraclePool], note: Note) -> Started:
    """Start the pool of a resumed run, as its config.json says, and see it through the sanity check once more.

    Raises:
        ModelError: the model cannot be loaded, or the oracle's answers do not agree with each other.
    """
    config = _with_whole_path(prepared.experiment.oracle)
    return _passed(Started(start(config), config, []), prepared, note)


def _passed(started: Started, prepared: Prepared, note: Note) -> Started:
    """Pass the sanity check; stop the pool where it refuses. The answers of a noisy endpoint are kept no more."""
    pool, oracle = started.pool, started.oracle
    try:
        parities, tops = pass_sanity_check(prepared, pool, note)
        if oracle.cache is not None and any(row.noisy for row in parities):
            pool.leave_cache()
            oracle = oracle.model_copy(update={"cache": None})
    except BaseException:
        pool.stop()
        raise
    return replace(started, oracle=oracle, parities=parities, tops=tops)


def _with_whole_path(config: OracleConfig) -> OracleConfig:
    """Return the settings with the cache's directory as the driver understands it: actors work elsewhere."""
    if config.cache is None:
        return config
    return config.model_copy(update={"cache": str(Path(config.cache).expanduser().absolute())})


def _recorded(config: OracleConfig, pool: OraclePool, tile: Tile) -> OracleConfig:
    """Return the settings as config.json holds them: nothing in them is left to be chosen again."""
    chosen: dict[str, object] = {"tile": tile}
    if isinstance(config, TransformersOracleConfig):
        chosen |= {"dtype": pool.oracle.info.dtype, "linear": pool.oracle.info.extra["linear"]}
    return config.model_copy(update=chosen)


# ------------------------------------------------------------------------------------------------------- tile size
def _choose_tile(prepared: Prepared, pool: OraclePool, note: Note) -> Tile:
    tile, device = pool.config.tile, pool.oracle.info.device
    if tile.candidates != "auto":
        return tile
    each, free = _candidate_bytes(prepared, pool), pool.free_bytes()
    chosen = choose_candidates(free, each, most_candidates(device))
    tile = tile.model_copy(update={"candidates": chosen})
    pool.use_tile(tile)
    told = "unknown" if free is None else f"{free / 2**30:.1f} GiB"
    note(
        f"tiles of {spelled(tile)}: at most {each / 2**20:.0f} MiB a candidate, {told} of memory free on the first"
        f" actor's {device}"
    )
    return tile


def _candidate_bytes(prepared: Prepared, pool: OraclePool) -> int:
    config, info, facts = pool.config, pool.oracle.info, prepared.facts
    if not isinstance(config, TransformersOracleConfig) or facts is None:
        return 0
    asked = {
        (prompt_space(plan.experiment.prompt, task, info.width), longest(task.batch("train"), config.tile.examples))
        for plan, task in zip(prepared.plans, prepared.tasks, strict=True)
    }
    tokens = max(pool.oracle.cost(Request((space.sample,), batch, space.spec)).tokens for space, batch in asked)
    decoded = max(projection.decoded_tokens for projection in prepared.projections)
    itemsize = DTYPE_BYTES.get(info.dtype, 4)
    return candidate_bytes(facts, itemsize, tokens) + decoded_bytes(facts.kept_numbers, itemsize, decoded)


# ------------------------------------------------------------------------------------------------------- precision
def _calibrations(prepared: Prepared, pool: OraclePool, note: Note) -> list[CalibrationRow]:
    """Calibrate and say so; nothing where nothing is rounded to few bits. The first case that is swamped decides."""
    dtype = pool.oracle.info.dtype
    if not isinstance(pool.config, TransformersOracleConfig) or dtype == "float32":
        return []
    measured: list[tuple[Case, Calibration]] = []
    for case in cases([plan.experiment for plan in prepared.plans], prepared.tasks):
        measured.append((case, _calibrate(case, pool)))
        if measured[-1][1].swamped:
            break
    if not measured:  # no stage compares losses
        return []
    used = "float32" if measured[-1][1].swamped else dtype
    rows = [_row(case, calibration, dtype, used) for case, calibration in measured]
    for (_, calibration), row in zip(measured, rows, strict=True):
        outcome = f"below {LIMIT:g}, rounding swamps the difference" if calibration.swamped else "passed"
        note(
            f"{row.where}: loss difference {calibration.signal:.2g}, rounding noise {calibration.noise:.2g},"
            f" signal-to-noise {calibration.snr:.2g}: {outcome}"
        )
    return rows


def _calibrate(case: Case, pool: OraclePool) -> Calibration:
    dim = case.prompt.length * pool.oracle.info.width
    return calibrate(pool.oracle, case.batch(dim), case.prompt, case.asks(dim))


def _row(case: Case, calibration: Calibration, dtype: str, used: str) -> CalibrationRow:
    return CalibrationRow(
        method=case.optimizer.label,
        radius_name=case.optimizer.radius_setting,
        radius=case.optimizer.radius,
        split_seed=case.split_seed,
        dtype=dtype,
        signal=calibration.signal,
        noise=calibration.noise,
        snr=calibration.snr,
        limit=LIMIT,
        used=used,
        cost=CostRow.of(calibration.cost),
    )


def _refusal(rows: list[CalibrationRow], given: bool) -> ModelError:
    worst = min(rows, key=lambda row: math.inf if row.snr is None else row.snr)
    at, larger = "in the first step", ""
    if worst.radius is not None:
        at, larger = f"at {worst.radius_name} {worst.radius:g}", f", or a larger {worst.radius_name}"
    move = "hand the model in as float32 (model.float())" if given else "set oracle.dtype: auto or float32"
    return ModelError(
        f"loss differences must be at least {LIMIT:g} times their rounding noise, but {worst.dtype} reaches"
        f" {worst.snr or 0.0:.2g} {at} of {worst.method}; {move}{larger}"
    )
