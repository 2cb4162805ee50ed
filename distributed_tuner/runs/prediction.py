"""Labelling new rows with what a run returned: its prompt, read by its head. From the run directory, without Ray."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from distributed_tuner import oracles
from distributed_tuner.config.experiment import Experiment
from distributed_tuner.config.space import recorded
from distributed_tuner.config.validation import experiment_of
from distributed_tuner.errors import RunDirectoryError, TaskError
from distributed_tuner.heads import Head
from distributed_tuner.maths.heads import mean_log_probabilities
from distributed_tuner.oracles.base import LossOracle
from distributed_tuner.oracles.wrappers.tiled import TiledOracle
from distributed_tuner.prompts.ensemble_export import ENSEMBLE, read_ensemble
from distributed_tuner.prompts.export import ANALYTIC, ExportedPrompt
from distributed_tuner.prompts.head_export import ExportedHead
from distributed_tuner.runs.evaluation import returned, worded
from distributed_tuner.storage.files import written
from distributed_tuner.tasks.cells import in_csv, in_json
from distributed_tuner.tasks.reading import read as read_table
from distributed_tuner.tasks.table import Table
from distributed_tuner.tasks.unlabelled import unlabelled
from distributed_tuner.values import Array64, Batch, Example, Request

ROWS_AT_ONCE = 512
FORMATS = (".csv", ".jsonl")
LABEL, PROBABILITY = "predicted_label", "probability"


def predict(
    run_dir: Path,
    file: Path,
    out: Path,
    note: Callable[[int, int], None] = lambda done, rows: None,
    ensemble: bool = False,
) -> int:
    """Label the rows of a CSV, TSV, JSONL or Parquet file; return how many there were.

    ``out``: a new CSV or JSONL file with the rows as they are, ``predicted_label``, its ``probability``, and that of
    each label in ``p(label)``. A row that the model could not answer, or that has no text and is dropped by the task's
    ``on_empty``, has none of them. ``ensemble``: by the prompts that the run has found to be best read together.

    Raises:
        RunDirectoryError: there is no run, or it returned no prompt with a head, or none that are read together.
        TaskError: the file lacks a column of the task's template, or ``out`` cannot be written.
        HeadError, ModelError: the head does not go with the model; the model cannot be had any more.
    """
    if out.suffix.lower() not in FORMATS:
        raise TaskError(f"predictions are written to a file that ends in .csv or .jsonl, but --out is {str(out)!r}")
    if out.exists():
        raise TaskError(f"predictions are written to a new file, but {str(out)!r} is there already; name another")
    prompt, tree, _ = returned(run_dir)
    experiment = experiment_of(recorded(tree))
    table = read_table(str(file), Path())
    prompts = read_ensemble(run_dir / ENSEMBLE) if ensemble else [prompt]
    labellers = [Labeller.of(one, experiment, table, run_dir) for one in prompts]
    labels = labellers[0].exported.labels
    oracle = TiledOracle(oracles.build(experiment.oracle), experiment.oracle.tile)
    try:
        # Half of a surrogate pair cannot be written in UTF-8; a backslash and its number is how JSON writes it.
        with (
            written(out) as raw,
            io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", newline="") as stream,
        ):
            write = _writer(stream, out.suffix.lower(), table.columns, labels)
            for at in range(0, len(table.rows), ROWS_AT_ONCE):
                block = range(at, min(at + ROWS_AT_ONCE, len(table.rows)))
                for row, told in zip(block, chances_together(labellers, oracle, block), strict=True):
                    cells = {column: table.rows[row].get(column) for column in table.columns}
                    write(cells | _told(told, labels))
                note(block.stop, len(table.rows))
    except OSError as error:
        raise TaskError(f"predictions could not be written to {str(out)!r} ({error}); name another file") from error
    return len(table.rows)


@dataclass(frozen=True, eq=False, slots=True)
class Labeller:
    """Labels new rows with one prompt and its head. ``examples``: the rows as it is asked for them; None for those that
    are dropped."""

    prompt: ExportedPrompt
    exported: ExportedHead
    head: Head
    examples: Sequence[Example | None]

    @classmethod
    def of(cls, prompt: ExportedPrompt, experiment: Experiment, table: Table, run_dir: Path) -> "Labeller":
        exported = _require_head(prompt, experiment, run_dir)
        rows = unlabelled(worded(experiment, prompt), table)
        return cls(prompt, exported, exported.head(), [row and _framed(row, prompt) for row in rows])

    def chances(self, oracle: LossOracle, block: range) -> Array64:
        """Return label probabilities (E, W) of the rows of a block; NaN of one that is dropped or has no answer."""
        found = np.full((len(block), len(self.exported.labels)), np.nan)
        asked = {row - block.start: example for row in block if (example := self.examples[row]) is not None}
        if not asked:
            return found
        candidate, spec = self.prompt.asked()
        count = len(self.exported.label_words)
        batch = Batch(
            tuple(asked.values()),
            self.exported.label_words,
            "test",
            label_rule=self.exported.label_rule,
            answer_words=self.exported.words[count:],
        )
        answer = oracle.evaluate(Request((candidate,), batch, spec))
        found[list(asked)] = self.head.predict(answer.logits[0] if answer.features is None else answer.features[0])
        return found


def chances_together(labellers: Sequence[Labeller], oracle: LossOracle, block: range) -> Array64:
    """Return label probabilities (E, W) of a block of rows, by prompts that are read together or by a single one."""
    found = [labeller.chances(oracle, block) for labeller in labellers]
    return found[0] if len(found) == 1 else mean_log_probabilities(np.stack(found))


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


def _told(chances: Array64, labels: Sequence[str]) -> dict[str, Any]:
    names = [LABEL, PROBABILITY, *(f"p({label})" for label in labels)]
    if not np.isfinite(chances).all():
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
    """Return the default output of predictions: next to the file, JSONL for JSONL, else CSV."""
    return file.parent / f"{file.stem}.predicted{'.jsonl' if file.suffix.lower() == '.jsonl' else '.csv'}"
