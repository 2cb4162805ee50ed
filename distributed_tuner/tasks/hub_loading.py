"""Getting the splits of a hub data set: from the hub, from its cache, or from a local directory.

Owns the ways of loading and what to advise when none works. Wording belongs to ``hub``.
"""

import os
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from distributed_tuner.errors import TaskError
from distributed_tuner.hub import hub_is_near
from distributed_tuner.tasks.hub_table import HubTask
from distributed_tuner.tasks.reading import resolve

_WAYS = (
    "Ways to work without the network: dataset: DIR, a directory made by `datasets` save_to_disk or a folder with "
    "train and {test} as parquet, jsonl or csv; or kind: file with your own files; or kind: demo"
)


class HubRows(Protocol):
    """What is used of a ``datasets.Dataset``: a row by its number, a column by its name."""

    @property
    def column_names(self) -> list[str]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, key: Any, /) -> Any: ...


def load_splits(name: str, spec: HubTask, dataset: str | None, root: Path) -> tuple[HubRows, HubRows]:
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
    except Exception as error:  # the hub client raises errors of several libraries, none of them ours
        origin = dataset or spec.path
        reason = (
            f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no reason given'}"
        )
        raise TaskError(
            f"task {name!r} could not load {origin!r} ({reason}). {_WAYS.format(test=spec.test_split)}"
        ) from error
    return _pick(name, splits, spec, local=directory is not None)


def _from_directory(directory: Path, config: str | None) -> Any:
    datasets: Any = import_module("datasets")

    folder = directory / config if config and (directory / config).is_dir() else directory
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


def _pick(name: str, splits: Any, spec: HubTask, local: bool) -> tuple[HubRows, HubRows]:
    if not isinstance(splits, dict):
        raise TaskError(
            f"task {name!r} needs the splits train and {spec.test_split}, got a single one: save a DatasetDict"
        )
    wanted = [spec.test_split, "test", "validation"] if local else [spec.test_split]
    test = next((split for split in wanted if split in splits), None)
    if "train" not in splits or test is None:
        raise TaskError(f"task {name!r} needs the splits train and {spec.test_split}, got {', '.join(splits)}")
    return splits["train"], splits[test]
