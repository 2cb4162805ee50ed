"""A Ray cluster of several machines on this one, added, frozen and killed by hand: each is a raylet of its own.

Everything is ended by its pid: Ray's own helpers call ``ray stop``, which ends every Ray of the machine.
"""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import ray
from ray._common.utils import get_ray_address_file
from ray.cluster_utils import Cluster

MIB = 2**20


@contextlib.contextmanager
def by_hand(**head: Any) -> Iterator[Cluster]:
    """Run a head without CPUs that this process has joined; workers are added to it with ``add_worker``."""
    os.environ["RAY_AUTH_MODE"] = "disabled"
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "include_dashboard": False, "object_store_memory": 100 * MIB, **head},
    )
    try:
        ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
        yield cluster
    finally:
        ray.shutdown()
        for node in [*cluster.worker_nodes, cluster.head_node]:
            thaw(node)
            node.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)
        forget(cluster.address)


def add_worker(cluster: Cluster, cpus: int = 1) -> Any:
    """Add a machine and return it once the cluster knows it."""
    return cluster.add_node(num_cpus=cpus, object_store_memory=80 * MIB)


def freeze(node: Any) -> None:
    """Stop every process of a machine where it is: to others it is silent, and not gone."""
    for process in processes(node):
        process.send_signal(signal.SIGSTOP)


def thaw(node: Any) -> None:
    """Let the processes of a machine go on."""
    for process in processes(node):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGCONT)


def processes(node: Any) -> list[psutil.Process]:
    """Return the processes of a machine: what Ray started there, and whatever they started."""
    found: list[psutil.Process] = []
    for kind in node.all_processes.values():
        for info in kind:
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(info.process.pid)
                found += [process, *process.children(recursive=True)]
    return found


def kill_raylet(node: Any) -> None:
    """Kill the raylet of a machine and what it has started: the machine is gone.

    Workers end by themselves once they see that their raylet is dead, but may go on answering for seconds until then.
    """
    there = processes(node)
    for info in node.all_processes["raylet"]:
        os.kill(info.process.pid, signal.SIGKILL)
    for process in there:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def remove(cluster: Cluster, node: Any) -> None:
    """End what is left of a machine, frozen or not, and forget it."""
    thaw(node)
    node.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)
    cluster.worker_nodes.discard(node)


def forget(address: str) -> None:
    """Leave no trace of a cluster that a bare ``ray.init()`` would try to join."""
    with contextlib.suppress(OSError):
        left = Path(get_ray_address_file(None))  # without `ray stop` it stays
        if left.read_text(encoding="utf-8").strip() == address:
            left.unlink()
