"""A Ray that a run starts for itself is within reach of this machine alone."""

import json
import os
import subprocess
import sys
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import pytest
from patience import PATIENCE

pytestmark = pytest.mark.ray

ROOT = Path(__file__).resolve().parents[2]
CODE = """
import json

import psutil
import ray.exceptions  # as the driver has it before it knows where its cluster is
from actors.cluster import cluster
from distributed_tuner.config.oracle import AnalyticOracleConfig

with cluster(AnalyticOracleConfig(kind="analytic"), None):
    actor = ray.remote(num_cpus=0)(type("Actor", (), {"ready": lambda self: None})).remote()
    ray.get(actor.ready.remote())
    own = [psutil.Process(), *psutil.Process().children(recursive=True)]
    found = [one.laddr.ip for each in own for one in each.net_connections("inet") if one.status == "LISTEN"]
print(json.dumps(found))
"""


def loopback(text: str) -> bool:
    address: IPv4Address | IPv6Address = ip_address(text)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback


def test_nothing_listens_to_the_network(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    addresses = json.loads(done.stdout.splitlines()[-1])
    assert len(addresses) > 4  # the head's, and those of its workers
    assert {text for text in addresses if not loopback(text)} == set()
