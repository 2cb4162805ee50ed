"""Scoring a tuned prompt again, from its run directory alone and without Ray."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from distributed_tuner import oracles, tasks
from distributed_tuner.config.experiment import Experiment
from distributed_tuner.config.load import load_space
from distributed_tuner.config.prompt import started_from
from distributed_tuner.config.space import recorded
from distributed_tuner.config.task import TaskConfig
from distributed_tuner.config.validation import experiment_of
from distributed_tuner.errors import HeadError, RunDirectoryError
from distributed_tuner.oracles.wrappers.tiled import TiledOracle
from distributed_tuner.preflight.wordings import templates_tried
from distributed_tuner.prompts.export import ANALYTIC, ExportedPrompt, read
from distributed_tuner.prompts.head_export import ExportedHead
from distributed_tuner.prompts.spec import framed
from distributed_tuner.runs.directory import RunDirectory, data_root
from distributed_tuner.stages.reading import SHOWN, Reader, fitted_on
from distributed_tuner.stages.validation import batches, scores_of
from distributed_tuner.tasks.base import Task
from distributed_tuner.values import LABEL_WORDS, Batch, Evaluation, Request, Split

log = logging.getLogger(__name__)


def evaluate(run_dir: Path, split: Split, task_file: Path | None = None) -> dict[str, float]:
    """Return loss and metrics of the best prompt on a split of its own task, or of the task in ``task_file``.

    The same model, tiles and rows as in the run, hence the same numbers. A row that the head was fitted to is read by
    one that was fitted without it.

    Raises:
        RunDirectoryError: there is no run, it has no best prompt yet, or the prompt comes from another run.
        ConfigError, TaskError, ModelError: the task or the model cannot be had any more.
    """
    prompt, tree, root = returned(run_dir)
    if task_file is not None:
        other = load_space(task_file)
        tree, root = {**tree, "task": other.get("task", other)}, task_file.resolve().parent
    experiment = experiment_of(recorded(tree))
    task = _task(experiment, prompt, root)
    for warning in task.warnings:
        log.warning("warning: %s", warning)
    if (instruction := prompt.template.get("instruction")) is not None:
        task = framed(task, started_from(experiment.prompt, instruction))
    oracle = TiledOracle(oracles.build(experiment.oracle), experiment.oracle.tile)
    candidate, spec = prompt.asked()
    head = prompt.head
    if head is None:
        batch = replace(task.batch(split), objective=LABEL_WORDS)
        answer = oracle.evaluate(Request((candidate,), batch, spec))
        return {"loss": float(answer.losses[0]), **scores_of(task, answer, batch)}
    head.require_for(getattr(experiment.oracle, "model", ANALYTIC), task)
    task = replace(task, objective=LABEL_WORDS, answer_words=head.words[len(head.label_words) :])
    reader = Reader(task, head.config, fitted_on(experiment))
    if task_file is None and split in ("train", "dev"):
        return _of_own_rows(reader, split, head, lambda batch: oracle.evaluate(Request((candidate,), batch, spec)))
    batch = reader.batch(split)
    answer = oracle.evaluate(Request((candidate,), batch, spec))
    loss, scores = reader.measure(head.state, answer, batch)
    return {"loss": loss, **scores}


def returned(run_dir: Path) -> tuple[ExportedPrompt, dict[str, Any], Path]:
    """Return the prompt that a run gave back, its trial's config, and where relative data paths are looked up.

    Raises:
        RunDirectoryError: there is no run, it has no best prompt yet, or the prompt comes from another run.
    """
    directory = RunDirectory(run_dir)
    config = directory.recorded()
    prompt = read(directory.best)
    trial = next((trial for trial in config.trials if trial.trial_id == prompt.trial_id), None)
    if trial is None or trial.config is None:
        raise RunDirectoryError(
            f"the best prompt must come from a trial of its run, but config.json in {run_dir} has no trial"
            f" {prompt.trial_id!r}; copy back the files of one run"
        )
    return prompt, trial.config.tree, data_root(config, Path())


def worded(experiment: Experiment, prompt: ExportedPrompt) -> TaskConfig:
    """Return a task's settings with the template that goes with a prompt: a screen may have found another."""
    source = prompt.template.get("source")
    return experiment.task.model_copy(update={"template": source}) if experiment.screen and source else experiment.task


def _task(experiment: Experiment, prompt: ExportedPrompt, root: Path) -> Task:
    """Return a task as it goes with a prompt: in the template that a screen has found, and with its label words where
    the labels are the same.

    It is built with all templates that the screen tried, for their columns decide which rows are whole.
    """
    source, head = prompt.template.get("source"), prompt.head
    if experiment.screen is None or not source:
        return tasks.build(experiment.task, root)
    task = tasks.build(experiment.task, root, (*templates_tried(experiment), source))
    return task.worded(source, head.label_words if head is not None and head.labels == task.label_names else ())


def _of_own_rows(
    reader: Reader, split: Split, head: ExportedHead, ask: Callable[[Batch], Evaluation]
) -> dict[str, float]:
    """Return loss and metrics of rows that took part in the head's fit, as the run has them: each by a head without it.

    Where the head was fitted to train alone, that is how it reads both.
    """
    train, dev, *references = (ask(batch) for batch in batches(reader))
    shown = head.state[SHOWN].astype(int).tolist() if SHOWN in head.state else ()
    if any(not 0 <= place < len(reader.task.train) for place in shown):
        raise HeadError(
            f"the rows that stand in the prompt must be rows of train, but the head's"
            f" file has {shown} of {len(reader.task.train)}; take the files of one run, and the data that it had"
        )
    read = reader.read(train, dev, references[0] if references else None, shown)
    if split == "dev":
        return {"loss": read.dev_loss, **read.dev_metrics}
    return {"loss": read.train_loss, **read.train_metrics}
