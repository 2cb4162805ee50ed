"""Processes that do nothing but keep a core busy, as another program on the same machine would."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

LOOP = """
import os
parent = os.getppid()
while os.getppid() == parent:
    for _ in range(1_000_000):
        pass
"""


@contextmanager
def busy(count: int) -> Iterator[list["subprocess.Popen[bytes]"]]:
    """Have so many busy processes; they end with the block, or with this process."""
    started: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(count):
            started.append(subprocess.Popen([sys.executable, "-S", "-c", LOOP], process_group=0))
        yield started
    finally:
        for process in started:
            process.kill()
        for process in started:
            process.wait()
