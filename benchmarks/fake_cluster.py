"""A Ray cluster on this machine whose autoscaler brings and removes nodes: each node is a raylet of its own.

Ray's own ``AutoscalingCluster`` reads a file that its wheel lacks, and stops every Ray of the machine; this one touches
no process but its own.
"""

import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

import psutil  # type: ignore[import-untyped]

PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
HEAD_KIND = "ray.head.default"
HEAD_NODE = "fffffffffffffffffffffffffffffffffffffffffffffffffff00000"  # what that provider takes the head for
PORTS = range(20_000, 32_000)  # neither Ray's own range for workers nor the system's for clients
START_SECONDS = 60.0
STOP_SECONDS = 20.0
OBJECT_STORE_BYTES = 200_000_000
TOKEN = {"RAY_AUTH_MODE": "token"}

Kind: TypeAlias = dict[str, Any]


@contextmanager
def autoscaling(head: Mapping[str, int], kinds: Mapping[str, Kind], idle_seconds: float = 6.0) -> Iterator[str]:
    """Run a cluster for as long as a block of code runs, and join it; yield its address.

    Must be called in a process that has not imported ray: it sets what Ray reads when it is imported.

    Args:
        head: resources of the head, such as {"CPU": 2}.
        kinds: of nodes that the autoscaler brings, by name, as ``kind`` makes them.
        idle_seconds: after which a node goes.

    Raises:
        RuntimeError: the head does not start; says what it wrote last.
    """
    if "ray" in sys.modules:
        raise RuntimeError("an autoscaling cluster needs a process of its own, but this one has imported ray already")
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        own = TOKEN | {"RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_TMPDIR": folder}
        os.environ.update(own)
        import ray

        ports = _free_ports(4)
        address = f"{ray.util.get_node_ip_address()}:{ports[0]}"
        settings = Path(folder) / "cluster.json"
        settings.write_text(json.dumps(_settings(address, head, kinds, idle_seconds)), encoding="utf-8")
        log = Path(folder) / "head.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                _command(settings, head, ports), env=_environment(), stdout=output, stderr=subprocess.STDOUT
            )
        try:
            _await(address, process, log)
            ray.init(address=address, logging_level="ERROR", log_to_driver=False)
            yield address
        finally:
            ray.shutdown()
            _stop(process)


def kind(resources: Mapping[str, int], most: int, **more: Any) -> Kind:
    """Return a kind of node, of which there are none at first and so many at most. more: as in cluster.yaml."""
    return {"resources": dict(resources), "node_config": {}, "min_workers": 0, "max_workers": most, **more}


def _settings(address: str, head: Mapping[str, int], kinds: Mapping[str, Kind], idle_seconds: float) -> dict[str, Any]:
    """Return what the autoscaler reads: the launcher's format, most of it empty since nothing is launched by SSH."""
    provider = {
        "type": "external",
        "module": PROVIDER,
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
        "gcs_address": address,
        "launch_multiple": True,
        "head_node_id": HEAD_NODE,
    }
    types = {HEAD_KIND: {"resources": dict(head), "node_config": {}, "max_workers": 0}, **kinds}
    commands = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
    return {
        "cluster_name": "emulated",
        "max_workers": sum(one["max_workers"] for one in kinds.values()),
        "provider": provider,
        "available_node_types": types,
        "head_node_type": HEAD_KIND,
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": idle_seconds / 60,
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
        **{f"{name}_commands": [] for name in commands},
    }


def _command(settings: Path, head: Mapping[str, int], ports: list[int]) -> list[str]:
    ray = Path(sys.executable).with_name("ray")
    gcs, dashboard, agent, client = ports
    return [
        *(str(ray), "start", "--head", "--block", "--disable-usage-stats"),
        *(f"--autoscaling-config={settings}", f"--object-store-memory={OBJECT_STORE_BYTES}"),
        *(f"--num-cpus={head.get('CPU', 0)}", f"--num-gpus={head.get('GPU', 0)}"),
        *(f"--port={gcs}", f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"),
        *(f"--ray-client-server-port={client}", "--dashboard-host=127.0.0.1"),
    ]


def _environment() -> dict[str, str]:
    return {
        **os.environ,
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_CLOUD_INSTANCE_ID": HEAD_NODE,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_NODE,
    }


def _await(address: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    host, _, port = address.rpartition(":")
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        with suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
            return
        time.sleep(0.1)
    said = log.read_text(encoding="utf-8", errors="replace")[-2000:]
    raise RuntimeError(f"the head of the cluster did not start; the end of its log:\n{said}")


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """End the head and all that came of it, the raylets of its nodes and their workers included."""
    try:
        family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    except psutil.NoSuchProcess:
        return
    for signal in ("terminate", "kill"):
        for member in family:
            with suppress(psutil.NoSuchProcess):
                getattr(member, signal)()
        _, family = psutil.wait_procs(family, timeout=STOP_SECONDS)
    process.wait()


def _free_ports(count: int) -> list[int]:
    found: list[int] = []
    start = PORTS.start + os.getpid() % (len(PORTS) // 2)  # runs side by side begin at different ones
    for port in range(start, PORTS.stop):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("", port))
            found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError(f"{count} free ports are needed in {PORTS}, but there are {len(found)}")
