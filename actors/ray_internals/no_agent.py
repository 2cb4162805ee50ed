"""Stands in for the agent of Ray's dashboard on a machine that has no dashboard. Ray starts it as a script.

Ray cannot do without the process and ends when it ends. It says that it listens nowhere, as Ray's own does where the
packages of the dashboard are not installed, and lives as long as its parent. It imports nothing that takes time.

Its parent leads a session (``local_ray.py``), and what is left of that when the parent has ended is ended here: some of
Ray's processes would notice only after a minute.
"""

import contextlib
import os
import signal
import sys
import time

PORTS = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port")  # names of files in a session


def main(arguments: list[str]) -> None:
    """Write down that there are no ports; when the parent has ended, end what it has started."""
    parent = os.getppid()
    options = dict(argument.removeprefix("--").split("=", 1) for argument in arguments if "=" in argument)
    for name in PORTS:
        path = os.path.join(options["session-dir"], f"{name}_{options['node-id']}")
        with open(path + ".new", "w") as file:
            file.write("-1")
        os.replace(path + ".new", path)
    sys.stdin.read()  # a pipe, which the parent never writes to
    while os.getppid() == parent:
        time.sleep(0.1)
    if os.getsid(0) == parent:
        end_session(parent)


def end_session(leader: int) -> None:
    """End all processes of a session but this one."""
    for entry in os.listdir("/proc") if os.path.isdir("/proc") else ():
        with contextlib.suppress(OSError):  # it has ended
            if entry.isdecimal() and int(entry) != os.getpid() and os.getsid(int(entry)) == leader:
                os.kill(int(entry), signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1:])
