"""Cache of measurements of this machine: small files next to the converted models.

An answer is kept under everything that it follows from, so that it never has to be doubted; a file that is torn, or
that cannot be written, is no answer.
"""

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from distributed_tuner.oracles.local.loading import cache_directory
from distributed_tuner.storage.files import write_text

MOST = 32  # of a kind; the oldest are thrown away


def recall(kind: str, key: Any) -> Any:
    """Return the answer that was kept under a key, which is JSON; None where none was."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads(_file(kind, key).read_text(encoding="utf-8"))
        return found["answer"] if found["key"] == key else None
    return None


def keep(kind: str, key: Any, answer: Any) -> None:
    """Keep an answer, which is JSON, for other processes and other days."""
    path = _file(kind, key)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps({"key": key, "answer": answer}))
        for old in sorted(path.parent.glob(f"{kind}-*.json"), key=os.path.getmtime)[:-MOST]:
            old.unlink(missing_ok=True)


def _file(kind: str, key: Any) -> Path:
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]
    return cache_directory() / "known" / f"{kind}-{digest}.json"
