"""Labelling new rows with what a run returned: its prompt, read by its head. From the run directory, without Ray."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from distributed_tuner import oracles
from distributed_tuner.config.experiment import Experiment
from distributed_tuner.config.space import recorded
from distributed_tuner.config.validation import experiment_of
from distributed_tuner.errors import RunDirectoryError, TaskError
from distributed_tuner.heads import Head
from distributed_tuner.oracles.base import LossOracle
from distributed_tuner.oracles.wrappers.tiled import TiledOracle
from distributed_tuner.prompts.export import ANALYTIC, ExportedPrompt
from distributed_tuner.prompts.head_export import ExportedHead
from distributed_tuner.runs.evaluation import returned, worded
from distributed_tuner.storage.files import written
from distributed_tuner.tasks.cells import in_csv, in_json
from distributed_tuner.tasks.reading import read as read_table
from distributed_tuner.tasks.unlabelled import unlabelled
from distributed_tuner.values import Array64, Batch, Example, Request

ROWS_AT_ONCE = 512
FORMATS = (".csv", ".jsonl")
LABEL, PROBABILITY = "predicted_label", "probability"


def predict(run_dir: Path, file: Path, out: Path, note: Callable[[int, int], None] = lambda done, rows: None) -> int:
    """Label the rows of a CSV, TSV, JSONL or Parquet file; return how many there were.

    ``out``: a new CSV or JSONL file with the rows as they are, ``predicted_label``, its ``probability``, and that of
    each label in ``p(label)``. A row that the model could not answer, or that has no text and is dropped by the task's
    ``on_empty``, has none of them.

    Raises:
        RunDirectoryError: there is no run, or it returned no prompt with a head.
        TaskError: the file lacks a column of the task's template, or ``out`` cannot be written.
        HeadError, ModelError: the head does not go with the model; the model cannot be had any more.
    """
    if out.suffix.lower() not in FORMATS:
        raise TaskError(f"predictions are written to a file that ends in .csv or .jsonl, but --out is {str(out)!r}")
    if out.exists():
        raise TaskError(f"predictions are written to a new file, but {str(out)!r} is there already; name another")
    prompt, tree, _ = returned(run_dir)
    experiment = experiment_of(recorded(tree))
    head = _require_head(prompt, experiment, run_dir)
    table = read_table(str(file), Path())
    rows = unlabelled(worded(experiment, prompt), table)
    examples = [example and _framed(example, prompt) for example in rows]
    oracle = TiledOracle(oracles.build(experiment.oracle), experiment.oracle.tile)
    try:
        # Half of a surrogate pair cannot be written in UTF-8; a backslash and its number is how JSON writes it.
        with (
            written(out) as raw,
            io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", newline="") as stream,
        ):
            write = _writer(stream, out.suffix.lower(), table.columns, head.labels)
            for at in range(0, len(examples), ROWS_AT_ONCE):
                block = examples[at : at + ROWS_AT_ONCE]
                asked = [example for example in block if example is not None]
                answers = iter(_chances(oracle, prompt, head, head.head(), asked) if asked else ())
                for row, example in enumerate(block, start=at):
                    told = _told(None if example is None else next(answers), head.labels)
                    write({column: table.rows[row].get(column) for column in table.columns} | told)
                note(at + len(block), len(examples))
    except OSError as error:
        raise TaskError(f"predictions could not be written to {str(out)!r} ({error}); name another file") from error
    return len(examples)


def _require_head(prompt: ExportedPrompt, experiment: Experiment, run_dir: Path) -> ExportedHead:
    if prompt.head is None:
        raise RunDirectoryError(
            f"predicting needs the head that a run returns with its prompt, but {run_dir} is of"
            " before there were heads; tune again"
        )
    prompt.head.require_model(getattr(experiment.oracle, "model", ANALYTIC))
    return prompt.head


def _framed(example: Example, prompt: ExportedPrompt) -> Example:
    instruction = prompt.template.get("instruction")
    return replace(example, text=f"{instruction}\n{example.text}") if instruction else example


def _chances(
    oracle: LossOracle, prompt: ExportedPrompt, exported: ExportedHead, head: Head, examples: Sequence[Example]
) -> Array64:
    """Return label probabilities (E, W)."""
    candidate, spec = prompt.asked()
    words = exported.words[len(exported.label_words) :]
    batch = Batch(tuple(examples), exported.label_words, "test", label_rule=exported.label_rule, answer_words=words)
    answer = oracle.evaluate(Request((candidate,), batch, spec))
    return head.predict(answer.logits[0] if answer.features is None else answer.features[0])


def _told(chances: Array64 | None, labels: Sequence[str]) -> dict[str, Any]:
    names = [LABEL, PROBABILITY, *(f"p({label})" for label in labels)]
    if chances is None or not np.isfinite(chances).all():
        return dict.fromkeys(names)
    best = int(np.argmax(chances))
    values = [labels[best], round(float(chances[best]), 6), *(round(float(chance), 6) for chance in chances)]
    return dict(zip(names, values, strict=True))


def _writer(
    stream: IO[str], suffix: str, columns: Sequence[str], labels: Sequence[str]
) -> Callable[[Mapping[str, Any]], None]:
    """Return what writes one row."""
    added = [LABEL, PROBABILITY, *(f"p({label})" for label in labels)]
    if taken := [name for name in added if name in columns]:
        raise TaskError(f"predictions add the column {taken[0]!r}, but the file has one of that name; rename it")
    if suffix == ".jsonl":
        return lambda row: print(json.dumps(row, ensure_ascii=False, default=in_json), file=stream)
    writer = csv.DictWriter(stream, [*columns, *added])
    writer.writeheader()
    return lambda row: writer.writerow({name: in_csv(value) for name, value in row.items()})


def default_out(file: Path) -> Path:
    """Return where predictions go when nothing is said: beside the file, as JSONL for JSONL and else as CSV."""
    return file.parent / f"{file.stem}.predicted{'.jsonl' if file.suffix.lower() == '.jsonl' else '.csv'}"
