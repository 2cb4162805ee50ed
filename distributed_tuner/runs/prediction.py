"""Predictions for new rows with what a run returned: labels by its prompt and its head, or the texts that its prompt
has the model write. From the run directory, without Ray."""

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
from distributed_tuner.values import Array64, Batch, Decoding, Example, Request

ROWS_AT_ONCE = 512
FORMATS = (".csv", ".jsonl")
LABEL, PROBABILITY, ANSWER = "predicted_label", "probability", "predicted_answer"


def predict(
    run_dir: Path,
    file: Path,
    out: Path,
    note: Callable[[int, int], None] = lambda done, rows: None,
    ensemble: bool = False,
) -> int:
    """Label the rows of a CSV, TSV, JSONL or Parquet file, or write their answers; return how many there were.

    ``out``: a new CSV or JSONL file with the rows as they are, ``predicted_label``, its ``probability``, and that of
    each label in ``p(label)``; of a task with targets ``predicted_answer``. A row that the model could not answer, or
    that has no text and is dropped by the task's ``on_empty``, has none of them. ``ensemble``: by the prompts that the
    run has found to be best read together.

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
    oracle = TiledOracle(oracles.build(experiment.oracle), experiment.oracle.tile)
    if prompt.decoding is not None and not ensemble:
        writing = Answerer.of(prompt, experiment, table)
        added = [ANSWER]

        def answers(block: range) -> list[dict[str, Any]]:
            return [{ANSWER: text} for text in writing.texts(oracle, block)]
    else:
        prompts = read_ensemble(run_dir / ENSEMBLE) if ensemble else [prompt]
        labellers = [Labeller.of(one, experiment, table, run_dir) for one in prompts]
        labels = labellers[0].exported.labels
        added = _added(labels)

        def answers(block: range) -> list[dict[str, Any]]:
            return [_told(told, labels) for told in chances_together(labellers, oracle, block)]

    try:
        # Half of a surrogate pair cannot be written in UTF-8; a backslash and its number is how JSON writes it.
        with (
            written(out) as raw,
            io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", newline="") as stream,
        ):
            write = _writer(stream, out.suffix.lower(), table.columns, added)
            for at in range(0, len(table.rows), ROWS_AT_ONCE):
                block = range(at, min(at + ROWS_AT_ONCE, len(table.rows)))
                for row, told in zip(block, answers(block), strict=True):
                    cells = {column: table.rows[row].get(column) for column in table.columns}
                    write(cells | told)
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


@dataclass(frozen=True, eq=False, slots=True)
class Answerer:
    """Has the model write answers to new rows behind one prompt. ``examples``: as of ``Labeller``."""

    prompt: ExportedPrompt
    decoding: Decoding
    examples: Sequence[Example | None]

    @classmethod
    def of(cls, prompt: ExportedPrompt, experiment: Experiment, table: Table) -> "Answerer":
        assert prompt.decoding is not None
        rows = unlabelled(worded(experiment, prompt), table)
        return cls(prompt, prompt.decoding, [row and _framed(row, prompt) for row in rows])

    def texts(self, oracle: LossOracle, block: range) -> list[str | None]:
        """Return the answers to the rows of a block; None of one that is dropped or has none."""
        found: list[str | None] = [None] * len(block)
        asked = {row - block.start: example for row in block if (example := self.examples[row]) is not None}
        if asked:
            candidate, spec = self.prompt.asked()
            batch = Batch(tuple(asked.values()), (), "test", decoding=self.decoding)
            answer = oracle.evaluate(Request((candidate,), batch, spec))
            for place, text in zip(asked, answer.texts[0], strict=True):
                found[place] = text
        return found


def chances_together(labellers: Sequence[Labeller], oracle: LossOracle, block: range) -> Array64:
    """Return label probabilities (E, W) of a block of rows, by prompts that are read together or by a single one."""
    found = [labeller.chances(oracle, block) for labeller in labellers]
    return found[0] if len(found) == 1 else mean_log_probabilities(np.stack(found))


def _require_head(prompt: ExportedPrompt, experiment: Experiment, run_dir: Path) -> ExportedHead:
    if prompt.decoding is not None:
        raise RunDirectoryError("a head turns answers into labels, but this run has targets, which are texts")
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
    names = _added(labels)
    if not np.isfinite(chances).all():
        return dict.fromkeys(names)
    best = int(np.argmax(chances))
    values = [labels[best], round(float(chances[best]), 6), *(round(float(chance), 6) for chance in chances)]
    return dict(zip(names, values, strict=True))


def _added(labels: Sequence[str]) -> list[str]:
    """Return the columns of a labelled row's prediction."""
    return [LABEL, PROBABILITY, *(f"p({label})" for label in labels)]


def _writer(
    stream: IO[str], suffix: str, columns: Sequence[str], added: Sequence[str]
) -> Callable[[Mapping[str, Any]], None]:
    """Return what writes one row."""
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
