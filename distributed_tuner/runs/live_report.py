"""The report of a run that is working: rewritten every few seconds, by a process that gives way to all others.

A process of its own, because drawing takes seconds of Python when there are many trials, and would delay the driver. It
ends with the driver.
"""

import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from distributed_tuner.errors import TunerError
from distributed_tuner.ledger.follower import Follower
from distributed_tuner.report.html import write_working_report

log = logging.getLogger(__name__)

SHARE = 0.03
"""Of one core: the most that the process uses on average. A page that takes long is drawn less often."""
LOWEST_PRIORITY = 19
END_SECONDS = 0.5
"""For which the end of the process is waited for before it is killed: a job that is stopped has three in all."""


class LiveReport:
    """Keeps ``report.html`` in ``folder`` up to date, from `start` to `stop`.

    every: seconds from the start to the first page, and between two; None: nothing is done.
    """

    def __init__(self, folder: Path, every: float | None) -> None:
        self._folder = folder
        self._every = every
        self._lock = threading.Lock()
        self._over = False
        self._process: subprocess.Popen[bytes] | None = None
        self._timer = threading.Timer(every or 0.0, self._launch)
        self._timer.daemon = True

    def start(self) -> None:
        """Start the process when the first page is due: a short run has none."""
        if self._every is not None and sys.executable:
            self._timer.start()

    def stop(self) -> None:
        """End the process; from here on it writes nothing."""
        self._timer.cancel()
        with self._lock:
            self._over = True
        process = self._process
        if process is None:
            return
        process.terminate()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdin is not None
        process.stdin.close()

    def _launch(self) -> None:
        package = str(Path(__file__).parents[2])
        path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH", ""))))
        with self._lock:
            if self._over:
                return
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", __name__, str(self._folder.resolve()), str(self._every)],
                    stdin=subprocess.PIPE,  # it ends when this is closed, as when the driver is killed
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
                    start_new_session=True,  # Ctrl-C is the driver's
                )
            except OSError as error:  # a machine that has no room for it
                log.info("report.html is written at the end of the run alone: %s", error)


def pause(every: float, used: float) -> float:
    """Return the seconds until the next page, when the last one took ``used`` seconds of the processor."""
    return max(every, used / SHARE)


def rewrite_on(folder: Path, every: float) -> None:
    """Write the page, and again until the standard input is closed. What cannot be read yet may be read later."""
    follower, wait = Follower(folder / "ledger.jsonl"), 0.0
    while not select.select([sys.stdin], [], [], wait)[0]:
        began = time.process_time()
        with suppress(TunerError, OSError):
            write_working_report(folder, follower.catch_up(), time.time())
        wait = pause(every, time.process_time() - began)


def _end(number: int, frame: Any) -> None:
    raise SystemExit  # a page that is half written is removed


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _end)
    os.nice(LOWEST_PRIORITY)
    rewrite_on(Path(sys.argv[1]), float(sys.argv[2]))
