"""A cluster on this machine with an autoscaler that starts and ends workers.

Everything is ended by its pid: Ray's own helpers call ``ray stop``, which ends every Ray of the machine, and Ray's
``AutoscalingCluster`` needs a file that the wheel lacks.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

from benchmarks.machines import forget

PORT, DASHBOARD, AGENT, CLIENT = 6911, 8911, 52911, 20911  # outside 10002 to 19999, where workers listen
PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
HEAD = "ray.head.default"  # the name that the fake provider gives its head
MIB = 2**20


@contextlib.contextmanager
def autoscaling(workers: dict[str, dict[str, Any]], folder: Path, idle_minutes: float = 0.1) -> Iterator[str]:
    """Run a head without CPUs and an autoscaler that looks once a second; yield the address.

    workers: node types by name, as in cluster.yaml. folder: for configuration and log.
    """
    address = f"{ray._private.services.get_node_ip_address()}:{PORT}"
    config = folder / "autoscaler.json"
    config.write_text(json.dumps(_configuration(workers, address, idle_minutes)))
    command = [
        str(Path(sys.executable).parent / "ray"),
        *("start", "--head", "--block", "--num-cpus=0", "--disable-usage-stats", "--dashboard-host=127.0.0.1"),
        *(f"--port={PORT}", f"--dashboard-port={DASHBOARD}", f"--dashboard-agent-listen-port={AGENT}"),
        *(f"--ray-client-server-port={CLIENT}", f"--object-store-memory={200 * MIB}"),
        f"--autoscaling-config={config}",
    ]
    environment = {
        **os.environ,
        "RAY_AUTH_MODE": "disabled",
        "RAY_FAKE_CLUSTER": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
    }
    with (folder / "head.log").open("w") as log:
        head = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        _wait_for_port(head, folder / "head.log")
        yield address
    finally:
        _end(head, address)


def _configuration(workers: dict[str, dict[str, Any]], address: str, idle_minutes: float) -> dict[str, Any]:
    lists = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
    return {
        "cluster_name": "fake",
        "max_workers": 8,
        "provider": {
            "type": "external",
            "module": PROVIDER,
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
            "gcs_address": address,
            "launch_multiple": True,
            "head_node_id": FAKE_HEAD_NODE_ID,
        },
        "available_node_types": {**workers, HEAD: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}},
        "head_node_type": HEAD,
        "auth": {},
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": idle_minutes,
        "docker": {},
        **{f"{name}_commands": [] for name in lists},
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
    }


def _wait_for_port(head: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + 60
    host = ray._private.services.get_node_ip_address()
    while time.monotonic() < until:
        if head.poll() is not None:
            raise RuntimeError(f"the head ended at once:\n{log.read_text()}")
        with contextlib.suppress(OSError):
            socket.create_connection((host, PORT), 1).close()
            return
        time.sleep(0.2)
    raise RuntimeError(f"the head does not listen:\n{log.read_text()}")


def _end(head: "subprocess.Popen[bytes]", address: str) -> None:
    """End the head, what it started, and the workers, which know its address."""
    ours = [psutil.Process(head.pid), *psutil.Process(head.pid).children(recursive=True)] if head.poll() is None else []
    for process in psutil.process_iter(["cmdline"]):
        if process.pid != os.getpid() and any(address in word for word in process.info["cmdline"] or ()):
            ours.append(process)
    head.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        head.wait(10)
    for process in ours:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(ours, timeout=10)
    forget(address)
