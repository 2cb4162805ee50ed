"""Joining a Ray cluster, or starting one on this machine, and keeping its console output out of ours."""

import logging
import os
import socket
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import distributed_tuner
from actors.address import Address
from actors.ray_internals.local_ray import few_processes, guard_token, sessions_folder
from actors.ray_internals.private import enable_clusters
from distributed_tuner.config.oracle import OracleConfig
from distributed_tuner.errors import FULL, ClusterError
from distributed_tuner.oracles.local.device_memory import free_bytes
from distributed_tuner.oracles.pool_size import usable_cores
from distributed_tuner.report.formatting import one_line

HEAD = "node:__internal_head__"  # a resource that Ray gives to the head alone, 1.0 of it
HEAD_SHARE = 0.001
MARKET = "ray.io/market-type"  # Ray's own label of a machine: spot or on-demand
NETWORK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # Ray's own: may others reach a Ray started here?
NODE = "ray.io/node-id"  # ... and its id
ROOT = Path(distributed_tuner.__file__).resolve().parent.parent


@contextmanager
def cluster(oracle: OracleConfig, asked: str | None, note: Callable[[str], None] = print) -> Iterator[None]:
    """Join the Ray cluster at an address ("auto" or ray://...), or start one on this machine for the oracle's pool.
    ``note`` is told what is joined.

    Raises:
        ClusterError: no cluster is at the address, or Ray cannot be started here.
    """
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "3600")  # Tune's snapshots, which are never read
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the new one prints a banner at any verbosity
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_worker_niceness", str(oracle.nice))  # Ray's own 15 leaves a run what others leave
    import ray

    if ray.is_initialized():
        yield
        return
    address = Address.of(asked)
    if address is None:
        _start(oracle)
    else:
        _join(address, note)
    try:
        yield
    finally:
        ray.shutdown()


QUIET = {"logging_level": logging.ERROR, "log_to_driver": False}


def _start(oracle: OracleConfig) -> None:
    """Start Ray on this machine for one run."""
    import ray

    cpus = max(os.cpu_count() or 1, oracle.first_actors * oracle.thread_count) + 1
    stay_on_this_machine()
    lend_path()
    try:
        with few_processes():
            guard_token()
            place = str(sessions_folder())
            ray.init(address="local", num_cpus=cpus, include_dashboard=False, _temp_dir=place, **QUIET)
    except Exception as error:  # Ray raises bare ones as well
        if isinstance(error, OSError) and error.errno in FULL:
            raise
        raise ClusterError(
            f"Ray must come up on this machine, but it does not ({one_line(str(error), 300)}); it writes to ~/.ray and"
            " to /tmp, or to the folder that RAY_TMPDIR names, whose path must be short"
        ) from error


def _join(address: Address, note: Callable[[str], None]) -> None:
    """Join a cluster that is there."""
    import ray

    address.require_there()
    note(f"joining the Ray cluster at {address}")
    try:
        ray.init(address=address.text, **QUIET)
    except Exception as error:
        raise address.refused(one_line(str(error), 300)) from error


def stay_on_this_machine() -> None:
    """Have a Ray that is started here listen on the loopback alone, as it does on Macs, unless ``NETWORK`` is set to 1.

    Ray's processes read the variable when they start; this one has read it before.
    """
    os.environ.setdefault(NETWORK, "0")
    enable_clusters(NETWORK)


def lend_path() -> None:
    """Have the workers of a Ray that is started here find this package.

    They inherit the variable. With a runtime environment instead, Ray would not use the workers that it starts ahead.
    """
    if Path(sysconfig.get_path("purelib")).resolve() == ROOT:  # which they look in anyway
        return
    paths = [str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))


def room(oracle: OracleConfig) -> tuple[int, int | None]:
    """Return how many cores, or GPUs where an actor has some, the cluster has for the pool's actors, and the bytes of
    memory that are free for them; None where they are on other machines or have memory of their own."""
    import ray

    there = ray.cluster_resources()
    if oracle.gpus:
        return int(there.get("GPU", 0)), None
    nodes = [node for node in ray.nodes() if node["Alive"]]
    if len(nodes) == 1 and nodes[0]["NodeManagerHostname"] == socket.gethostname():
        return min(int(there.get("CPU", 0)), usable_cores()), free_bytes("cpu")
    return int(there.get("CPU", 0)), None


def head() -> dict[str, float]:
    """Return what an actor asks for to be placed on the head, nothing where the cluster knows of none.

    Whatever a run cannot lose belongs there: no spot machine ends it, and no autoscaler is kept from ending a machine.
    """
    import ray

    return {HEAD: HEAD_SHARE} if HEAD in ray.cluster_resources() else {}


def head_for_trials() -> dict[str, float]:
    """Return what a trial asks for to be placed on the head; nothing where the head has no CPUs for it."""
    import ray

    heads = [node for node in ray.nodes() if node["Alive"] and HEAD in node["Resources"]]
    return {HEAD: HEAD_SHARE} if any(node["Resources"].get("CPU", 0) for node in heads) else {}


def shortage(config: OracleConfig) -> str | None:
    """Say what the pool asks for and the cluster does not have; None when it has enough.

    Not an error: an autoscaler may bring it. A pool that waits without a word would look like one that hangs.
    """
    import ray

    there = ray.cluster_resources()
    actors = config.first_actors
    asked = {"CPU": actors * config.thread_count, "GPU": actors * config.gpus}
    short = [
        f"{asked[kind]:g} {kind}s and has {there.get(kind, 0):g}" for kind in asked if asked[kind] > there.get(kind, 0)
    ]
    if short:
        missing = ", ".join(short)
        return f"the pool asks the cluster for {missing}; it starts with the actors that fit and waits for more"
    markets = {node["Labels"].get(MARKET) for node in ray.nodes() if node["Alive"]}
    if config.market is not None and markets.isdisjoint({config.market, "on-demand"}):
        return (
            f"the pool is for machines with the label {MARKET}: {config.market}, and the cluster has none yet; it waits"
            " until one comes"
        )
    return None


@contextmanager
def quiet_tune() -> Iterator[None]:
    """Keep Tune's own console output out of ours; errors still come through."""
    loggers = [logging.getLogger(name) for name in ("ray.tune", "ray.train", "ray.air")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
