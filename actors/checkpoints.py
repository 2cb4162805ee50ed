"""The checkpoints of a trial on its storage. Tune's snapshot of a run may be seconds behind them."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.fs

FOLDER = re.compile(r"checkpoint_(\d{6})")


def number_of(checkpoint: Any) -> int:
    """Return which of its trial's checkpoints one is, from 0; -1 where its folder's name does not tell."""
    match = FOLDER.fullmatch(Path(checkpoint.path).name)
    return int(match[1]) if match else -1


def newest(checkpoint: Any, whole: Callable[[Any], bool]) -> Any:
    """Return the newest checkpoint beside one that Tune knows of: that one, or a younger that is ``whole``."""
    known, files = number_of(checkpoint), checkpoint.filesystem
    selector = pyarrow.fs.FileSelector(str(Path(checkpoint.path).parent), allow_not_found=True)
    others = [type(checkpoint)(info.path, files) for info in files.get_file_info(selector)]
    for one in sorted(others, key=number_of, reverse=True):
        if number_of(one) <= known:
            break
        if whole(one):
            return one
    return checkpoint
