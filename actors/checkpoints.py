"""The checkpoints of a trial on its storage. Tune's snapshot of a run may be seconds behind them."""

import re
from pathlib import Path
from typing import Any

import pyarrow.fs
from ray.tune import Checkpoint

FOLDER = re.compile(r"checkpoint_(\d{6})")


def number_of(checkpoint: Any) -> int:
    """Return which of its trial's checkpoints one is, from 0; -1 where its folder's name does not tell."""
    match = FOLDER.fullmatch(Path(checkpoint.path).name)
    return int(match[1]) if match else -1


def younger(files: Any, folder: str, known: int = -1) -> list[Any]:
    """Return the checkpoints in a trial's folder with numbers beyond ``known``, the newest first, whole or not.

    files: the file system (pyarrow's) of the folder, which need not be there.
    """
    selector = pyarrow.fs.FileSelector(folder, allow_not_found=True)
    found = [Checkpoint(info.path, files) for info in files.get_file_info(selector)]
    return sorted((one for one in found if number_of(one) > known), key=number_of, reverse=True)
