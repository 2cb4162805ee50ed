#!/usr/bin/env bash
# Ray 2.60.0: `ray.init(include_dashboard=False, log_to_driver=False)` on one machine starts the dashboard's server, the
# autoscaler's monitor, the reader of logs and the dashboard's agent all the same, five Python processes beside the
# workers. Each imports packages for a second or two of the processor while a program begins.
# Source: ray/_private/node.py, Node.start_head_processes and Node.start_ray_processes.
# Exits 0 while this is so, 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet "ray[default]==2.60.0" "psutil==7.2.2"
cat > "$folder/probe.py" <<'PY'
import logging

import psutil
import ray

ray.init(
    address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
)
lines = [" ".join(child.cmdline()) for child in psutil.Process().children(recursive=True)]
parts = {
    "dashboard": "dashboard/dashboard.py",
    "autoscaler monitor": "autoscaler/_private/monitor.py",
    "log monitor": "_private/log_monitor.py",
    "dashboard agent": "DashboardAgent",
}
found = {name: sum(1 for line in lines if mark in line) for name, mark in parts.items()}
found["dashboard agent"] += sum(1 for line in lines if "dashboard/agent.py" in line)
print("ray", ray.__version__, found)
ray.shutdown()
raise SystemExit(0 if all(found.values()) else 1)
PY
"$folder/env/bin/python" "$folder/probe.py"
