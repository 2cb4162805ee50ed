"""Start of a run's own Ray, without the parts that only clusters, dashboards and terminals use.

A Ray that is started for one run on one machine has no dashboard, scales nothing, prints no worker's output in the
driver, and its metrics are not scraped, since its ports change with every run. Ray still starts a server, an
autoscaler, a reader of logs and an agent for these. Each takes a second or two of the processor when the run begins. A
user who wants them starts Ray with ``ray start`` and has the run join it.

It is private: files that Ray would open to all users of the machine belong to the owner alone.

Its parts hear no SIGTERM. Batch systems, ``timeout`` and services send it to all processes of a job at once; the run
ends in order then, which needs Ray until its end, and ends Ray itself. However that ends, nothing of it stays.
"""

import os
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from distributed_tuner.storage.files import private_folder

PYTHON_OF = "_build_python_executable_command_memory_profileable"  # how Ray starts a part that is a script
AGENT = Path(__file__).with_name("no_agent.py")
SETUP = Path(__file__).with_name("light_setup_worker.py")


@contextmanager
def few_processes() -> Iterator[None]:
    """Have ``ray.init`` start what a run needs, and no more, within the block. What another Ray calls otherwise is
    started as ever."""
    from unittest.mock import patch

    from ray._private import ray_constants, services, utils
    from ray._private.authentication import authentication_token_setup as token_setup
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
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # what is started has it from us
        stack.callback(signal.pthread_sigmask, signal.SIG_SETMASK, before)
        for owner, name, instead in (
            (RayParams, "update_if_absent", completed),
            (Node, "start_api_server", _no_server),
            (services, PYTHON_OF, command),
            (services, "ConsolePopen", _leader(services.ConsolePopen)),
            (token_setup, "generate_and_save_token", _kept_private(token_setup.generate_and_save_token)),
            (utils, "get_dashboard_dependency_error", _not_wanted),  # imports the dashboard's packages to see them
        ):
            if hasattr(owner, name):
                stack.enter_context(patch.object(owner, name, instead))
        yield


def _leader(kind: Any) -> Any:
    """Return the class of a process that leads a session of its own, and is ended without being asked first."""

    class Leader(kind):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, start_new_session=True, **options)

        def terminate(self) -> None:
            self.kill()

    return Leader


def guard_token() -> None:
    """Have the token that Ray has made before, and its folder, be for their owner alone, as ``few_processes`` has those
    that it makes. One that the environment names is its owner's to guard."""
    folder = Path.home() / ".ray"
    for path in (folder, folder / "auth_token"):
        with suppress(OSError):  # there is none, or it is another user's
            if path.stat().st_mode & 0o077:
                path.chmod(stat.S_IMODE(path.stat().st_mode) & ~0o077)


def _kept_private(save: Callable[[], None]) -> Callable[[], None]:
    """Have files that are made within a call be for their owner alone."""

    def saved() -> None:
        before = os.umask(0o077)
        try:
            save()
        finally:
            os.umask(before)

    return saved


def sessions_folder() -> Path:
    """Return where a Ray of ours keeps its sessions: within a folder that only we enter. Its processes open this one
    and the sessions to everybody, sockets and logs included, again and again.

    Raises:
        OSError: it cannot be made, or somebody else has put something there.
    """
    place = Path(os.environ.get("RAY_TMPDIR") or "/tmp")
    place.mkdir(parents=True, exist_ok=True)
    return private_folder(place) / "r"


def _no_server(node: Any, **options: Any) -> None:
    """Start no server of a dashboard; its address is empty, as where Ray has started one that serves no pages."""
    node._webui_url = ""


def _not_wanted() -> ImportError:
    """Return what Ray takes for a missing package of its dashboard."""
    return ImportError("a run's own Ray has no dashboard")
