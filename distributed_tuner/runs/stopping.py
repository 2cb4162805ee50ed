"""Stopping from outside: a run, or one of its trials, ends by a small file that anybody leaves who may write there.

The run looks for these files while it works, and deletes each that it has read. It then ends as by Ctrl-C; a trial
alone ends after the step that it is at, and stays ended when the run is resumed.
"""

import getpass
import json
import logging
import os
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from distributed_tuner.errors import ConfigError, RunDirectoryError
from distributed_tuner.ledger.writer import is_being_written
from distributed_tuner.runs.directory import STOP, RunDirectory
from distributed_tuner.runs.recorded_config import Recorded
from distributed_tuner.shown import masked, plain
from distributed_tuner.storage import Inbox, Remote, path_of, reaching, remote_of, using
from distributed_tuner.storage.lease import holder

log = logging.getLogger(__name__)

LOOK_SECONDS, LOOK_SECONDS_AT_URI = 1.0, 5.0
"""Between two looks for requests: a store bills them."""
TRIAL_STOP, ENDING = "stop-", ".json"
MOST_NAMED = 20
MOST_SHOWN = 100
"""Characters of a name in a message."""


# ----------------------------------------------------------------------------------------------------- who asks
def request_stop(place: str, trial_id: str | None = None, by: str | None = None) -> None:
    """Ask the run at a path or URI to end, or one of its trials. To ask twice is harmless.

    by: who asks, for the ledger; None: this process's user and machine.

    Raises:
        RunDirectoryError: there is no run, or it is not working.
        ConfigError: the run has no such trial.
        StorageError: the store cannot be reached.
    """
    name = STOP if trial_id is None else f"{TRIAL_STOP}{trial_id}{ENDING}"
    request = json.dumps({"by": by or _user()}).encode()
    uri = remote_of(place)
    if uri is None:
        _ask_directory(RunDirectory(path_of(place)), trial_id, name, request)
        return
    remote = Remote(uri)
    with reaching(uri):
        if trial_id is not None:
            shown = f"{uri.inside('config.json')}"
            _require_trial(_parsed(remote.read("config.json")) if remote.exists("config.json") else {}, shown, trial_id)
        inbox = Inbox(Path(), remote)
        inbox.put(name, request)
        if holder(remote, inbox.written(name)) is None:  # by the clock of the store alone
            inbox.drop(name)
            raise _not_working(place)


def _ask_directory(directory: RunDirectory, trial_id: str | None, name: str, request: bytes) -> None:
    with using(directory.path):
        if not directory.ledger.is_file():
            raise RunDirectoryError(
                f"a run must be there to be stopped, but {directory.name} holds none; check the path"
            )
        if not is_being_written(directory.ledger):
            raise _not_working(directory.name)
        if trial_id is not None:
            config = directory.read_config() if directory.config.is_file() else {}
            _require_trial(config, directory.shown(directory.config), trial_id)
        directory.inbox.put(name, request)


def _not_working(place: str) -> RunDirectoryError:
    return RunDirectoryError(
        f"only a run that is working can be stopped, but {place} is not: it has ended, or its process is gone; nothing"
        " was done"
    )


def _require_trial(config: Mapping[str, Any], shown: str, trial_id: str) -> None:
    names = [trial.trial_id for trial in Recorded.of(config, shown).trials]
    if trial_id in names:
        return
    if not names:
        raise ConfigError(f"the run must have named its trials, but there is no {shown} yet; try again in a moment")
    more = f" and {len(names) - MOST_NAMED:,} more" if len(names) > MOST_NAMED else ""
    raise ConfigError(
        f"a trial to stop must be one of the run's, got {trial_id[:MOST_SHOWN]!r}; there are"
        f" {', '.join(names[:MOST_NAMED])}{more}"
    )


def _user() -> str:
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        name = f"uid {os.getuid()}"
    return f"{name} on {socket.gethostname()}"


# ----------------------------------------------------------------------------------------------------- who is asked
class StopRequests:
    """Looks for requests in a thread, while it is entered. ``on_run``: called once, by the thread, when the run shall
    end."""

    def __init__(self, directory: RunDirectory, on_run: Callable[[], None]) -> None:
        self._inbox = directory.inbox
        self._every = LOOK_SECONDS if directory.mirror is None else LOOK_SECONDS_AT_URI
        self._on_run = on_run
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="stop-requests", daemon=True)
        self.run: str | None = None
        """Who has stopped the run; None if it was not stopped."""
        self.trials: dict[str, str] = {}
        """Who has stopped which trials."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(1.0)  # a store may not answer

    def _serve(self) -> None:
        troubled = False
        while not self._over.is_set():
            try:
                self._look()
                troubled = False
            except OSError as error:
                if not troubled:
                    log.info("requests to stop cannot be looked for: %s", error)
                troubled = True
            self._over.wait(self._every)

    def _look(self) -> None:
        for name in self._inbox.names():
            if name == STOP or name.startswith(TRIAL_STOP):
                self._take(name)

    def _take(self, name: str) -> None:
        data = self._inbox.take(name)
        if data is None:
            return
        told = _parsed(data).get("by")
        by = masked(plain(str(told or "somebody")))[:MOST_SHOWN]
        if name != STOP:
            self.trials.setdefault(name.removeprefix(TRIAL_STOP).removesuffix(ENDING), by)
        elif self.run is None:
            self.run = by
            self._on_run()


def _parsed(data: bytes) -> Mapping[str, Any]:
    """Return a JSON object; an empty one for anything else."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, Mapping) else {}
