"""A run's remote copy, kept up while the run goes on: object stores cannot append, so files are sent again whole.

The local copy is what the run reads and writes. One thread sends what has changed; nothing that fails there ends the
run, which goes on writing to its local copy. Tune's checkpoints are no part of it: trials write those to the store.
"""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from distributed_tuner.errors import StorageError
from distributed_tuner.ledger.writer import whole_lines
from distributed_tuner.storage.lease import Lease, LeaseLost
from distributed_tuner.storage.remote import HIDDEN, Remote, brief

SEND_SECONDS = 5.0
"""Between the end of one sending and the next."""
LAST_SECONDS = 60.0
"""For how long the last sending is tried again."""
ELSEWHERE = ("tune",)
"""Folders that others write to the store."""
LEDGER = "ledger.jsonl"
FIRST = ("config.json", LEDGER)
"""Sent before the rest: what is not understood without them."""


class Mirror:
    """Keeps the files of ``folder`` at ``remote`` as well. ``say``: takes warnings."""

    def __init__(self, folder: Path, remote: Remote, say: Callable[[str], None] = print) -> None:
        self.folder = folder
        self.remote = remote
        self._say = say
        self._sent: dict[str, tuple[int, int]] = {}
        self._lease: Lease | None = None
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._idle = threading.Condition()
        self._asked = self._answered = 0
        self._closing = False
        self._trouble: OSError | None = None
        self._lost: LeaseLost | None = None
        self.on_lost: Callable[[], None] = lambda: None
        """Called once, by the thread, when another run has taken over."""

    # ------------------------------------------------------------------------------------------------ fetching
    def fill(self) -> None:
        """Fetch what is at the remote, into a folder that may hold the rest of an earlier session on this machine.

        That rest is kept if it is ahead: if its ledger goes on from the remote one.

        Raises:
            OSError: the store cannot be reached.
        """
        names = [found.name for found in self.remote.found(without=ELSEWHERE)]
        ahead = LEDGER in names and self._is_ahead(self.remote.read(LEDGER))
        for name in names:
            path = self.folder / name
            if not (ahead and path.exists()):
                self.remote.fetch(name, path)
                self._sent[name] = _state(path)

    def _is_ahead(self, ledger: bytes) -> bool:
        path = self.folder / LEDGER
        if not path.is_file() or path.stat().st_size <= len(ledger):
            return False
        with path.open("rb") as file:
            return file.read(len(ledger)) == ledger

    # ------------------------------------------------------------------------------------------------ sending
    def send(self) -> None:
        """Send what has changed since it was sent or fetched, in this thread.

        Raises:
            OSError: the store cannot be reached.
            LeaseLost: another run has taken over; nothing is sent then.
        """
        if self._lease is not None:
            self._lease.renew()
        for name in self._names():
            path = self.folder / name
            try:
                state = _state(path)
                if self._sent.get(name) == state:
                    continue
                with path.open("rb") as file:
                    size = whole_lines(file) if name == LEDGER else state[1]
                    if name == LEDGER and not size:  # no run yet
                        continue
                    file.seek(0)
                    self.remote.send(name, file, size)
            except FileNotFoundError:  # replaced or removed meanwhile
                if path.exists():
                    raise
                continue
            self._sent[name] = state
            if self._lease is not None:
                self._lease.renew()

    def _names(self) -> list[str]:
        names = []
        for parent, folders, files in os.walk(self.folder):
            here = Path(parent).relative_to(self.folder)
            folders[:] = [
                one for one in folders if not one.startswith(HIDDEN) and (here / one).as_posix() not in ELSEWHERE
            ]
            names += [(here / one).as_posix() for one in files if not one.startswith(HIDDEN)]
        return sorted(names, key=lambda name: (FIRST.index(name) if name in FIRST else len(FIRST), name))

    # ------------------------------------------------------------------------------------------------ beside a run
    def start(self, lease: Lease) -> None:
        """Send every few seconds from here on, under a lease that was taken."""
        self._lease = lease
        self._thread = threading.Thread(target=self._serve, name="mirror", daemon=True)
        self._thread.start()

    def catch_up(self, seconds: float) -> None:
        """Have what there is now sent, and wait for that for so long at most. Sending itself is the thread's alone: a
        signal that interrupted it would leave half an object."""
        with self._idle:
            self._asked += 1
            asked = self._asked
            self._wake.set()
            self._idle.wait_for(lambda: self._answered >= asked or not self._is_serving(), seconds)

    def close(self) -> None:
        """Send everything a last time, trying again for a while, and give the lease back.

        Raises:
            StorageError: the last state could not be sent; the message says where the local copy is.
        """
        if self._thread is None:
            return
        self._closing = True
        self._wake.set()
        self._thread.join()
        self._thread = None
        if self._lost is not None:
            raise StorageError(f"{self._lost}; what this run wrote since then is in {self.folder}")
        if self._trouble is not None:
            raise StorageError(
                f"the end of the run could not be sent to {self.remote.uri} ({brief(self._trouble)}); its files are in"
                f" {self.folder} on this machine, and --resume here continues from them"
            )

    def _is_serving(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _serve(self) -> None:
        while not self._closing and self._lost is None:
            self._wake.wait(SEND_SECONDS)
            self._wake.clear()
            asked = self._asked
            if not self._closing:
                self._try_to_send()
            with self._idle:
                self._answered = asked
                self._idle.notify_all()
        self._finish()
        with self._idle:
            self._answered = self._asked
            self._idle.notify_all()

    def _try_to_send(self) -> None:
        """Upload; report a failure when it begins and when it ends."""
        try:
            self.send()
        except LeaseLost as error:
            self._lost = error
            self.on_lost()
        except OSError as error:
            if self._trouble is None:
                self._say(f"{self.remote.uri} cannot be written ({brief(error)}); retrying, the run continues")
            self._trouble = error
        else:
            if self._trouble is not None:
                self._say(f"{self.remote.uri} can be written again; everything is there")
            self._trouble = None

    def _finish(self) -> None:
        if self._lost is not None:
            return
        until = time.monotonic() + LAST_SECONDS
        pause = 0.5
        self._try_to_send()
        while self._trouble is not None and self._lost is None and time.monotonic() + pause < until:
            time.sleep(pause)
            pause = min(2 * pause, 8.0)
            self._try_to_send()
        if self._lease is not None and self._lost is None:
            self._lease.give_back()


def _state(path: Path) -> tuple[int, int]:
    """Return what tells a file that has changed: its time and size."""
    found = path.stat()
    return found.st_mtime_ns, found.st_size
