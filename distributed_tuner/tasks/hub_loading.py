"""Getting the splits of a hub data set: from the hub, from its cache, or from a local directory.

Owns the ways of loading and what to advise when none works. Wording belongs to ``hub``.
"""

import os
from importlib import import_module
from pathlib import Path
from typing import Any

from distributed_tuner.errors import TaskError
from distributed_tuner.hub import hub_is_near
from distributed_tuner.tasks.hub_table import HubTask
from distributed_tuner.tasks.reading import SUFFIXES, read, resolve
from distributed_tuner.tasks.table import Table

_SPLITS = ("train", "validation", "test")
_WAYS = (
    "Ways to work without the network: dataset: DIR, a directory made by `datasets` save_to_disk or a folder with "
    "train and {test} as parquet, jsonl or csv; or kind: file with your own files; or kind: demo"
)


def load_splits(name: str, spec: HubTask, dataset: str | None, root: Path) -> tuple[Table, Table]:
    """Return the pool (split "train") and the test split of the task.

    ``dataset`` is a directory (beside the settings file or from the working directory), a hub id, ``id:config``, or
    None for the usual one. Raises TaskError where nothing can be loaded or a split is missing.
    """
    directory = None if dataset is None else resolve(dataset, root)
    try:
        if directory is not None:
            splits = _from_directory(directory, spec.config)
        elif dataset is not None:
            path, _, config = dataset.partition(":")
            splits = _from_hub(path, config or None)
        else:
            splits = _from_hub(spec.path, spec.config)
    except TaskError:
        raise
    except Exception as error:  # the hub client raises errors of several libraries, none of them ours
        origin = dataset or spec.path
        reason = (
            f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no reason given'}"
        )
        raise TaskError(
            f"task {name!r} could not load {origin!r} ({reason}). {_WAYS.format(test=spec.test_split)}"
        ) from error
    return _pick(name, splits, spec, dataset or spec.path, local=directory is not None)


def _from_directory(directory: Path, config: str | None) -> Any:
    folder = directory / config if config and (directory / config).is_dir() else directory
    files = {file.stem: file for file in sorted(folder.iterdir()) if file.suffix.lower() in SUFFIXES}
    if "train" in files:
        return {split: read(str(file), folder) for split, file in files.items() if split in _SPLITS}
    datasets: Any = import_module("datasets")

    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        return datasets.load_from_disk(str(folder))
    saved = [split for split in folder.iterdir() if (split / "state.json").is_file()]
    if saved:
        return {split.name: datasets.load_from_disk(str(split)) for split in saved}
    return datasets.load_dataset(str(folder))


def _from_hub(path: str, config: str | None) -> Any:
    if not hub_is_near():
        os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read once, when the hub's client is imported: the cache, at once
    datasets: Any = import_module("datasets")

    try:
        return datasets.load_dataset(path, config)
    except RuntimeError as error:
        if "scripts are no longer supported" not in str(error):
            raise
        # Data sets that are still a script have their tables on the branch that the hub converts them to.
        return datasets.load_dataset(path, config, revision="refs/convert/parquet")


def _pick(name: str, splits: Any, spec: HubTask, origin: str, local: bool) -> tuple[Table, Table]:
    if not isinstance(splits, dict):
        raise TaskError(
            f"task {name!r} needs the splits train and {spec.test_split}, got a single one: save a DatasetDict"
        )
    wanted = [spec.test_split, "test", "validation"] if local else [spec.test_split]
    test = next((split for split in wanted if split in splits), None)
    if "train" not in splits or test is None:
        raise TaskError(f"task {name!r} needs the splits train and {spec.test_split}, got {', '.join(splits)}")
    return _table(splits["train"], f"{origin} (train)"), _table(splits[test], f"{origin} ({test})")


def _table(rows: Any, source: str) -> Table:
    """Return a ``datasets.Dataset`` as a table, which reads a row when it is asked for one."""
    if isinstance(rows, Table):
        return rows
    return Table(source, "row", tuple(rows.column_names), rows, range(1, len(rows) + 1))
