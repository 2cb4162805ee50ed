"""Getting the splits of a hub data set: from the hub, from its cache, or from a local directory.

Owns the ways of loading and what to advise when none works. Wording belongs to ``hub``.
"""

import logging
import os
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

from distributed_tuner.clients.hub import hub_is_near
from distributed_tuner.errors import TaskError
from distributed_tuner.tasks.hub_table import HubTask
from distributed_tuner.tasks.reading import PANDAS_INDEX, SUFFIXES, read, resolve
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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pandas, with the place in its source
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
        raise TaskError(
            f"task {name!r} could not load {origin!r} ({_reason(error)}). {_WAYS.format(test=spec.test_split)}"
        ) from error
    return _pick(name, splits, spec, dataset or spec.path, local=directory is not None)


def _reason(error: BaseException) -> str:
    """Return what went wrong at the bottom: data sets wrap what their readers raise."""
    while error.__cause__ is not None:
        error = error.__cause__
    said = str(error).strip() or "no reason given"
    return f"{type(error).__name__}: {said.splitlines()[0]}"


def _from_directory(directory: Path, config: str | None) -> Any:
    folder = directory / config if config and (directory / config).is_dir() else directory
    files = [file for file in sorted(folder.iterdir()) if file.stem in _SPLITS and file.suffix.lower() in SUFFIXES]
    by_split = {file.stem: file for file in files}
    if len(by_split) < len(files):
        raise TaskError(
            f"{folder} must have one file a split, got {', '.join(file.name for file in files)}: take one out"
        )
    if "train" in by_split:
        return {split: read(str(file), folder) for split, file in by_split.items()}
    datasets = _library()
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        return datasets.load_from_disk(str(folder))
    saved = [split for split in folder.iterdir() if (split / "state.json").is_file()]
    if saved:
        return {split.name: datasets.load_from_disk(str(split)) for split in saved}
    return datasets.load_dataset(str(folder))


def _from_hub(path: str, config: str | None) -> Any:
    if not hub_is_near():
        os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read once, when the hub's client is imported: the cache, at once
    datasets = _library()
    try:
        return datasets.load_dataset(path, config)
    except RuntimeError as error:
        if "scripts are no longer supported" not in str(error):
            raise
        # Data sets that are still a script have their tables on the branch that the hub converts them to.
        return datasets.load_dataset(path, config, revision="refs/convert/parquet")


def _library() -> Any:
    """Return the ``datasets`` package. What it has to say of a failure is in the error that it raises."""
    datasets = import_module("datasets")
    datasets.logging.set_verbosity(logging.CRITICAL)
    return datasets


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
    if rows.info.builder_name == "csv" and any(map(PANDAS_INDEX.fullmatch, rows.column_names)):
        raise TaskError(
            f"the rows of {source} have more fields than the header of its CSV names, which shifts the columns: take"
            " commas at the ends of lines away, and put quotation marks around texts that hold some"
        )
    return Table(source, "row", tuple(rows.column_names), rows, range(1, len(rows) + 1))
