"""Tasks: a few labelled examples, a template and label words. ``build`` makes one from its config."""

from collections.abc import Sequence
from pathlib import Path
from typing import assert_never

from distributed_tuner.config.task import (
    CustomTaskConfig,
    DemoTaskConfig,
    ExtractTaskConfig,
    FileTaskConfig,
    GivenTaskConfig,
    HubTaskConfig,
    RowsTaskConfig,
    TaskConfig,
)
from distributed_tuner.errors import TaskError
from distributed_tuner.tasks.base import Task
from distributed_tuner.tasks.custom import build_custom
from distributed_tuner.tasks.demo import build_demo
from distributed_tuner.tasks.extract import build_extract
from distributed_tuner.tasks.file import build_file
from distributed_tuner.tasks.hub import build_hub
from distributed_tuner.tasks.metrics import score

__all__ = ["Task", "build", "score"]


def build(config: TaskConfig, root: Path, others: Sequence[str] = ()) -> Task:
    """Make the task of ``config``. Relative paths are looked up in ``root``, the folder of the settings, then in the
    working directory. ``others``: templates, or cues alone, by which its rows are worded as well.

    Raises TaskError for all that is wrong with data, template or label words.
    """
    match config:
        case DemoTaskConfig():
            return build_demo(config, others)
        case ExtractTaskConfig():
            return build_extract(config, others)
        case FileTaskConfig():
            return build_file(config, root, others)
        case HubTaskConfig():
            return build_hub(config, root, others)
        case CustomTaskConfig():
            return build_custom(config, others)
        case RowsTaskConfig() | GivenTaskConfig():
            raise TaskError(
                "the task of this run was handed in by a Python program, and is not kept with it; name a task's"
                " settings instead (evaluate --task FILE, in Python Result.score), or tune again"
            )
        case _:
            assert_never(config)
