"""Worker processes of one thread, each with the model, which do a study's jobs one after another."""

import contextlib
import functools
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path

from benchmarks.study.cell import tuned_rows
from benchmarks.study.kept import Kept
from benchmarks.study.plan import UNTUNED, Job
from benchmarks.study.rows import Row
from benchmarks.study.untuned import ask_untuned, untuned_rows
from distributed_tuner import oracles
from distributed_tuner.config.oracle import OracleConfig, TransformersOracleConfig
from distributed_tuner.errors import ModelError, TunerError
from distributed_tuner.oracles.base import LossOracle
from distributed_tuner.oracles.codec import codec_of
from distributed_tuner.oracles.tile_size import most_candidates
from distributed_tuner.oracles.wrappers.cached import CachedOracle
from distributed_tuner.oracles.wrappers.tiled import TiledOracle
from distributed_tuner.storage.files import write_text
from distributed_tuner.storage.json_files import Told, read_told

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
JOBS, ANSWERS, RESOLVED = "jobs", "answers", "resolved.json"
FORMER = "settled.json"  # its name in studies of older versions

Listener = Callable[[Job, "list[Row] | TunerError"], None]


class _Resolved(Told):
    """The models as a study's first command found them, by the settings that left something open."""

    oracles: dict[str, dict[str, object]]


def work(jobs: Sequence[Job], out: Path, workers: int, told: Listener) -> None:
    """Do all jobs that are not done; ``told`` is given what each came to, in the order in which they end.

    Raises:
        ModelError: the model cannot be loaded, or a worker died.
    """
    (out / JOBS).mkdir(parents=True, exist_ok=True)
    os.environ.update(dict.fromkeys(THREADS, "1"))
    resolved = _resolved(jobs, out)
    left: list[Job] = []
    for job in (job.with_oracle(resolved[_key(job.oracle)]) for job in jobs):
        rows = done_rows(job, out)
        if rows is None:
            left.append(job)
        else:
            told(job, rows)
    if left:
        with _pool(min(workers, len(left))) as pool:
            asked: dict[Future[list[Row]], Job] = {pool.submit(carry_out, job, out): job for job in left}
            for ended in as_completed(asked):
                error = ended.exception()
                if error is not None and not isinstance(error, TunerError):
                    raise error
                told(asked[ended], ended.result() if error is None else error)


def done_rows(job: Job, out: Path) -> list[Row] | None:
    """Return a job's rows, None where some are missing."""
    rows = _kept(job, out).rows()
    if not rows or not {row.budget for row in rows} >= set(job.budgets):
        return None
    return [row for row in rows if row.budget in job.budgets] if job.budgets else rows


def carry_out(job: Job, out: Path) -> list[Row]:
    """Do what is left of one job in this process; return its rows."""
    kept = _kept(job, out)
    oracle, asked = _tiled(job.oracle), _remembering(job.oracle, str((out / ANSWERS).resolve()))
    job = replace(job, prepared=job.prepared.with_answer_words(codec_of(oracle).answer_words))
    if job.method != UNTUNED:
        return tuned_rows(job, oracle, ask_untuned(job, asked), kept)
    rows = untuned_rows(job, asked)
    kept.write_rows(rows)
    return rows


def _kept(job: Job, out: Path) -> Kept:
    return Kept(out / JOBS, job.name, job.follows_from())


# ------------------------------------------------------------------------------------------------------ the model
def resolve(config: OracleConfig) -> OracleConfig:
    """Return a model's settings with nothing left open that is part of the numbers: precision, products, tiles."""
    info = oracles.build(config).info
    update: dict[str, object] = {}
    if config.tile.candidates == "auto":
        update["tile"] = config.tile.model_copy(update={"candidates": most_candidates(info.device)})
    if isinstance(config, TransformersOracleConfig):
        update |= {"dtype": info.dtype, "linear": info.extra["linear"]}
    return config.model_copy(update=update)


def _resolved(jobs: Sequence[Job], out: Path) -> dict[str, OracleConfig]:
    """Return the resolved models by ``_key``, those that the study's first command found where it had them."""
    path = out / RESOLVED
    kept = path if path.exists() else out / FORMER
    known = read_told(kept, _Resolved).oracles if kept.exists() else {}
    wanted = {_key(job.oracle): job.oracle for job in jobs}
    found = {key: type(config).model_validate(known[key]) for key, config in wanted.items() if key in known}
    new = {key: config for key, config in wanted.items() if key not in known}
    if new:
        with _pool(1) as pool:
            found |= dict(zip(new, pool.map(resolve, new.values()), strict=True))
        told = {**known, **{key: config.model_dump(mode="json") for key, config in found.items()}}
        write_text(path, _Resolved(oracles=told).model_dump_json(indent=1) + "\n")
    return found


def _key(config: OracleConfig) -> str:
    return config.model_dump_json()


@functools.cache
def _loaded(config: OracleConfig) -> LossOracle:
    return oracles.build(config)


@functools.cache
def _tiled(config: OracleConfig) -> LossOracle:
    return TiledOracle(_loaded(config), config.tile)


@functools.cache
def _remembering(config: OracleConfig, folder: str) -> LossOracle:
    """Return the model with the answers to untuned prompts that some worker had before: tests sets are much alike."""
    return TiledOracle(CachedOracle(_loaded(config), folder, config), config.tile)


# ------------------------------------------------------------------------------------------------------ processes
@contextlib.contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Give worker processes, which are gone at once where the block is left early."""
    pool = ProcessPoolExecutor(max(1, workers), multiprocessing.get_context("spawn"), _begin)
    try:
        yield pool
    except BrokenProcessPool:
        raise ModelError(
            "a worker process was ended from outside, for want of memory perhaps; the same command goes on where it"
            " stopped, with fewer --workers if memory is short"
        ) from None
    except BaseException:
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """Begin a worker: it ends at once by Ctrl-C, and with its parent, however that ends."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    logging.getLogger("distributed_tuner").setLevel(logging.ERROR)
    threading.Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()


def _end_with(parent: "multiprocessing.process.BaseProcess | None") -> None:
    assert parent is not None
    parent.join()
    os._exit(1)
