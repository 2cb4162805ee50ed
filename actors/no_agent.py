"""Stands in for the agent of Ray's dashboard on a machine that has no dashboard. Ray starts it as a script.

Ray cannot do without the process and ends when it ends. It says that it listens nowhere, as Ray's own does where the
packages of the dashboard are not installed, and lives as long as its parent. It imports nothing that takes time.
"""

import os
import sys
import time

PORTS = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port")  # names of files in a session


def main(arguments: list[str]) -> None:
    """Write down that there are no ports; return when the parent has ended."""
    parent = os.getppid()
    options = dict(argument.removeprefix("--").split("=", 1) for argument in arguments if "=" in argument)
    for name in PORTS:
        path = os.path.join(options["session-dir"], f"{name}_{options['node-id']}")
        with open(path + ".new", "w") as file:
            file.write("-1")
        os.replace(path + ".new", path)
    sys.stdin.read()  # a pipe, which the parent never writes to
    while os.getppid() == parent:
        time.sleep(1)


if __name__ == "__main__":
    main(sys.argv[1:])
