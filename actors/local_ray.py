"""A Ray of a run's own, started without what only a cluster, a dashboard or a terminal of Ray's asks for.

A Ray that is started for one run on one machine has no dashboard, scales nothing, prints no worker's output in the
driver, and its metrics are watched by nobody, since its ports change with every run. Ray starts for all of this
nevertheless: a server, an autoscaler, a reader of logs, an agent. Each takes a second or two of the processor while the
run would begin. Who wants them starts Ray with ``ray start`` and has the run join it.
"""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

PYTHON_OF = "_build_python_executable_command_memory_profileable"  # how Ray starts a part that is a script
AGENT = Path(__file__).with_name("no_agent.py")
SETUP = Path(__file__).with_name("light_setup_worker.py")


@contextmanager
def few_processes() -> Iterator[None]:
    """Have ``ray.init`` start what a run needs, and no more, within the block. What another Ray calls otherwise is
    started as ever."""
    from unittest.mock import patch

    from ray._private import ray_constants, services, utils
    from ray._private.node import Node
    from ray._private.parameter import RayParams

    complete: Any = getattr(RayParams, "update_if_absent", None)
    python_of: Any = getattr(services, PYTHON_OF, None)

    def completed(parameters: Any, **absent: Any) -> None:
        if "setup_worker_path" in absent:  # where a node of this machine is made
            parameters.no_monitor = True
            absent |= {"include_log_monitor": False, "setup_worker_path": str(SETUP)}
        complete(parameters, **absent)

    def command(component: str, *arguments: Any, **options: Any) -> list[str]:
        if component == ray_constants.PROCESS_TYPE_DASHBOARD_AGENT:
            return [sys.executable, "-S", "-E", str(AGENT)]  # what follows are the agent's own script and options
        found: list[str] = python_of(component, *arguments, **options)
        return found

    with ExitStack() as stack:
        for owner, name, instead in (
            (RayParams, "update_if_absent", completed),
            (Node, "start_api_server", _no_server),
            (services, PYTHON_OF, command),
            (utils, "get_dashboard_dependency_error", _not_wanted),  # imports the dashboard's packages to see them
        ):
            if hasattr(owner, name):
                stack.enter_context(patch.object(owner, name, instead))
        yield


def _no_server(node: Any, **options: Any) -> None:
    """Start no server of a dashboard; its address is empty, as where Ray has started one that serves no pages."""
    node._webui_url = ""


def _not_wanted() -> ImportError:
    """Return what Ray takes for a missing package of its dashboard."""
    return ImportError("a run's own Ray has no dashboard")
