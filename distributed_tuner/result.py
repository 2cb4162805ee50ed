"""The result of tuning: the prompt, the head that reads its answers, and all that was measured on the way."""

import shutil
import tempfile
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from distributed_tuner.config.experiment import Experiment
from distributed_tuner.config.space import recorded
from distributed_tuner.config.task import label_key
from distributed_tuner.config.validation import experiment_of
from distributed_tuner.errors import RunDirectoryError, TaskError
from distributed_tuner.oracles.base import LossOracle
from distributed_tuner.prompts.ensemble_export import ENSEMBLE, read_ensemble
from distributed_tuner.prompts.export import ExportedPrompt
from distributed_tuner.prompts.head_export import ExportedHead
from distributed_tuner.runs.directory import RunDirectory
from distributed_tuner.runs.evaluation import returned
from distributed_tuner.runs.prediction import ROWS_AT_ONCE, Answerer, Labeller, chances_together
from distributed_tuner.stages.reading import predicted
from distributed_tuner.tasks.metrics import score
from distributed_tuner.tasks.rows import labelled_table, texts_table
from distributed_tuner.tasks.table import Table
from distributed_tuner.tasks.templates import LABEL_WORD, TARGET, Template
from distributed_tuner.tasks.text_metrics import DEFAULT_TEXT_METRICS, TextMetrics
from distributed_tuner.values import Array64, Example

if TYPE_CHECKING:
    import pandas as pd

LABEL = "label"  # the column of labels that are given with their texts


class Result:
    """A tuned prompt with its head: predicts labels, and tells how it came about.

    Made by ``tune`` and ``load``. What it tells is read from a run directory, as ``python tune.py run`` writes one.

    Args:
        directory: the run directory.
        oracle: makes the oracle that answers, given the run directory; called when something is predicted.
        values: the labels as they are in the data, by their text. None: they are text.
        folder: a temporary directory that holds the run, removed with the result.

    Example:
        >>> from distributed_tuner import Analytic, tune
        >>> data = (["good film", "bad film"] * 8, ["positive", "negative"] * 8)
        >>> result = tune(Analytic(), data, budget=60, progress=False)
        >>> result.prompt.rows.shape, result.labels
        ((16, 8), ('negative', 'positive'))
        >>> result.predict_proba(["a good film", "a bad film"]).shape
        (2, 2)
        >>> 0 <= result.score(["a good film", "a bad film"], ["positive", "negative"]) <= 1
        True
    """

    def __init__(
        self,
        directory: Path,
        oracle: Callable[[Path], LossOracle],
        values: Mapping[str, Hashable] | None = None,
        folder: "tempfile.TemporaryDirectory[str] | None" = None,
    ) -> None:
        self.directory = directory
        """The run directory. A temporary one, gone with the result, unless ``out`` was given: see ``save``."""
        self._oracle_of = oracle
        self._values = values or {}
        self._folder = folder  # is removed when it is no longer referenced

    # ------------------------------------------------------------------------------------------------ what it is
    @cached_property
    def prompt(self) -> ExportedPrompt:
        """The prompt that is returned: ``rows`` (L, D) in float32, or ``words``; the untuned one where tuning is not
        shown to have helped.

        Raises:
            RunDirectoryError: the run was interrupted before any prompt was scored on dev.
        """
        if not (self.directory / "best" / "prompt.json").exists():
            raise RunDirectoryError(
                f"a result has a prompt once one was scored on dev, but this run ({self.status}) had none by its end;"
                " give it a larger budget, or more time"
            )
        return returned(self.directory)[0]

    @property
    def head(self) -> ExportedHead:
        """The head, which turns answers into label probabilities: its settings, its words, and its fitted arrays.

        Raises:
            RunDirectoryError: there is none, in runs of versions before there were heads.
        """
        if self.prompt.decoding is not None:
            raise RunDirectoryError("a head turns answers into labels, but this run has targets, which are texts")
        if self.prompt.head is None:
            raise RunDirectoryError(
                f"predicting needs the head that a run returns with its prompt, but {self.directory} is of before there"
                " were heads; tune again"
            )
        return self.prompt.head

    @property
    def labels(self) -> tuple[Hashable, ...]:
        """The labels, in the order of ``predict_proba``'s columns, as they are in the data (as text after ``load``)."""
        return tuple(self._values.get(label_key(label), label) for label in self.head.labels)

    @property
    def status(self) -> str:
        """Status of the run: "done" or "interrupted"."""
        return str(self.summary["status"])

    @property
    def helped(self) -> bool:
        """Whether the tuned prompt is better on dev than the untuned one, read by the same head, by a paired test."""
        best = self.summary["best"]
        return best["trial_id"] is not None and best["kept"] == "tuned"

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The numbers of the report: the returned prompt's, the baselines', what was spent, each trial's."""
        from distributed_tuner.ledger.digest import digest
        from distributed_tuner.report.summary import summarize

        directory = RunDirectory(self.directory)
        return summarize(digest(directory.ledger), directory.read_config())

    @cached_property
    def history(self) -> "pd.DataFrame":
        """Every prompt that was scored on train and dev, in order: a row each, with its losses, dev metric, queries
        (``spent.queries``) and whether it was selected."""
        return self.frames["evaluations"].drop(columns=["losses"], errors="ignore")

    @cached_property
    def frames(self) -> "dict[str, pd.DataFrame]":
        """All tables of the ledger, such as ``steps``, ``evaluations``, ``restarts`` and ``measures``."""
        from distributed_tuner.ledger import read
        from distributed_tuner.ledger.frames import frames

        return frames(read(self.directory / "ledger.jsonl"))

    # ------------------------------------------------------------------------------------------------ what it does
    def predict(self, texts: Any, *, ensemble: bool = False) -> npt.NDArray[Any]:
        """Return the likeliest label of each text; of a task with targets, the answer that the model writes.

        Args:
            texts: a list of texts; for templates with several columns a DataFrame, or a list of mappings.
            ensemble: by the prompts that the run has found to be best read together.

        Returns:
            Labels (N,), as they are in the data, or texts (N,). None where the model could not answer.

        Raises:
            TaskError: a row has no text, or lacks a column.
            RunDirectoryError: there is no ensemble where one is asked for.
        """
        if self.prompt.decoding is not None:
            return np.array(self._answers(texts_table(texts, self._columns, "the texts")), dtype=object)
        likely = self.predict_proba(texts, ensemble=ensemble)
        found = np.empty(len(likely), dtype=object)
        answered = np.asarray(np.isfinite(likely).all(axis=1))
        labels = self.labels
        for i, best in enumerate(np.argmax(np.where(answered[:, None], likely, 0.0), axis=1)):
            found[i] = labels[best] if answered[i] else None
        return np.array(found.tolist()) if answered.all() else found

    def predict_proba(self, texts: Any, *, ensemble: bool = False) -> Array64:
        """Return label probabilities.

        Args:
            texts, ensemble: as of ``predict``.

        Returns:
            Probabilities (N, W), float64, in the order of ``labels``. NaN where the model could not answer.

        Raises:
            TaskError, RunDirectoryError: as of ``predict``.
        """
        table = texts_table(texts, self._columns, "the texts")
        prompts = read_ensemble(self.directory / ENSEMBLE) if ensemble else [self.prompt]
        labellers = [Labeller.of(one, self._experiment, table, self.directory) for one in prompts]
        blocks = [range(at, min(at + ROWS_AT_ONCE, len(table))) for at in range(0, len(table), ROWS_AT_ONCE)]
        return np.concatenate([chances_together(labellers, self._oracle, block) for block in blocks])

    def score(self, texts: Any, labels: Any = None) -> float:
        """Return the task's first metric, such as accuracy, on rows of your own.

        Args:
            texts: as of ``predict``; or labelled rows as ``tune`` takes them, without ``labels``.
            labels: the true label, or the target, of each text, (N,).

        Returns:
            The metric, between 0 and 1 (Matthews' correlation: -1 and 1).

        Raises:
            TaskError: a label is none of the task's; a row has no text, or lacks a column.
        """
        name = getattr(self._experiment.task, "answer", LABEL)
        if labels is None:
            table = labelled_table(texts, self._columns, name, "the rows")
            values = table.column(name) if name in table.columns else []
            table.need(name, "label")
        else:
            table = texts_table(texts, self._columns, "the texts")
            values = list(labels)
        if self.prompt.decoding is not None:
            return self._text_score(table, values)
        known = {label_key(label): i for i, label in enumerate(self.head.labels)}
        marked = texts_table([{LABEL: value} for value in values], (LABEL,), "the labels")
        truth = np.array(marked.labels(LABEL, known.get, self.head.labels), dtype=np.int64)
        if len(truth) != len(table):
            raise TaskError(f"each text needs one label, but there are {len(table)} texts and {len(truth)} labels")
        metric = self.summary["best"]["metric"]
        guessed = predicted(self.predict_proba([table.rows[i] for i in range(len(table))]), truth)
        return float(score((metric,), guessed, truth)[metric])

    def report(self, path: str | Path | None = None) -> Path:
        """Write the report, an HTML page.

        Args:
            path: the file to write. None: ``report.html`` in the run directory.

        Returns:
            Where the page is.
        """
        page = self.directory / "report.html"
        if not page.exists():
            from distributed_tuner.report.html import write_report

            write_report(self.directory)
        if path is None:
            return page
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy(page, path))

    def save(self, path: str | Path) -> Path:
        """Keep the run directory, with the prompt in ``best/``, as a new directory; ``load`` reads it.

        Args:
            path: the new directory.

        Returns:
            The new directory.

        Raises:
            RunDirectoryError: something is there already.
        """
        target = Path(path)
        RunDirectory(target).require_new()
        self.report()
        shutil.copytree(self.directory, target, dirs_exist_ok=True)
        return target

    def __getstate__(self) -> dict[str, Any]:
        """Return what a pickle holds: the run directory's files. The model is none of it."""
        found = (path for path in sorted(self.directory.rglob("*")) if path.is_file())
        files = {path.relative_to(self.directory).as_posix(): path.read_bytes() for path in found}
        return {"files": files, "oracle": self._oracle_of, "values": dict(self._values)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        folder = tempfile.TemporaryDirectory(prefix="prompt-tuner-")
        for name, data in state["files"].items():
            place = Path(folder.name, name)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
        Result.__init__(self, Path(folder.name), state["oracle"], state["values"], folder)

    def __repr__(self) -> str:
        best = self.summary["best"]
        if best["trial_id"] is None:
            return f"<Result: {self.status}, no prompt was scored>"
        kept = "tuned prompt" if self.helped else "untuned prompt kept, tuning is not shown to have helped"
        return (
            f"<Result: {self.status}, {kept}, dev {best['metric']} {best['dev_metric']:.4f},"
            f" {self.summary['totals']['queries']} queries>"
        )

    # ------------------------------------------------------------------------------------------------ parts
    def _answers(self, table: Table) -> list[str | None]:
        writing = Answerer.of(self.prompt, self._experiment, table)
        blocks = [range(at, min(at + ROWS_AT_ONCE, len(table))) for at in range(0, len(table), ROWS_AT_ONCE)]
        return [text for block in blocks for text in writing.texts(self._oracle, block)]

    def _text_score(self, table: Table, values: Sequence[Any]) -> float:
        """Return the metric that selects, of the answers to rows whose targets are ``values``."""
        if len(values) != len(table):
            raise TaskError(f"each text needs one target, but there are {len(table)} texts and {len(values)} targets")
        writing = Answerer.of(self.prompt, self._experiment, table)
        targets = texts_table([{LABEL: value} for value in values], (LABEL,), "the targets")
        given = [targets.texts(i, (LABEL,))[LABEL] for i in range(len(targets))]
        examples = [
            Example(f"row-{i}", example.text if example else "", "", 0, target=target)
            for i, (example, target) in enumerate(zip(writing.examples, given, strict=True))
        ]
        metrics = self._experiment.task.metric or DEFAULT_TEXT_METRICS
        return TextMetrics(metrics).first(self._answers(table), examples).value

    @cached_property
    def _oracle(self) -> LossOracle:
        return self._oracle_of(self.directory)

    @cached_property
    def _experiment(self) -> Experiment:
        return experiment_of(recorded(returned(self.directory)[1]))

    @cached_property
    def _columns(self) -> Sequence[str]:
        source = self.prompt.template.get("source")
        if not source:
            raise RunDirectoryError(
                "new rows are worded by the task's template, but this prompt names none; tune again"
            )
        answer = LABEL_WORD if self.prompt.decoding is None else TARGET
        return Template.parse(source, self._experiment.task.model_family, answer).columns
