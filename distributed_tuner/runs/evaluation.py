"""Scoring a tuned prompt again, from its run directory alone and without Ray."""

import logging
from collections.abc import Sequence
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
from distributed_tuner.oracles.base import LossOracle, labels_of
from distributed_tuner.oracles.wrappers.tiled import TiledOracle
from distributed_tuner.preflight.wordings import templates_tried
from distributed_tuner.prompts.ensemble_export import ENSEMBLE, read_ensemble
from distributed_tuner.prompts.export import ANALYTIC, ExportedPrompt, read
from distributed_tuner.prompts.head_export import ExportedHead
from distributed_tuner.prompts.spec import framed
from distributed_tuner.runs.directory import RunDirectory, data_root
from distributed_tuner.stages.ensemble import read_together
from distributed_tuner.stages.reading import SHOWN, Read, Reader, fitted_on, steered
from distributed_tuner.stages.target_reading import TargetReader
from distributed_tuner.stages.validation import batches, scores_of
from distributed_tuner.tasks.base import Task
from distributed_tuner.values import LABEL_WORDS, Array64, Cost, Request, Split

log = logging.getLogger(__name__)


def evaluate(run_dir: Path, split: Split, task_file: Path | None = None, ensemble: bool = False) -> dict[str, float]:
    """Return loss and metrics of the best prompt on a split of its own task, or of the task in ``task_file``.

    The same model, tiles and rows as in the run, hence the same numbers. A row that the head was fitted to is read by
    one that was fitted without it. ``ensemble``: of the prompts that the run has found to be best read together.

    Raises:
        RunDirectoryError: there is no run, it has no best prompt yet, or none that are read together, or the prompt
            comes from another run.
        ConfigError, TaskError, ModelError: the task or the model cannot be had any more.
    """
    prompt, tree, root = returned(run_dir)
    if task_file is not None:
        other = load_space(task_file)
        tree, root = {**tree, "task": other.get("task", other)}, task_file.resolve().parent
    experiment = experiment_of(recorded(tree))
    prompts = read_ensemble(run_dir / ENSEMBLE) if ensemble else [prompt]
    tasks_of = [_seen(experiment, one, root) for one in prompts]
    for warning in tasks_of[0].warnings:
        log.warning("warning: %s", warning)
    oracle = TiledOracle(oracles.build(experiment.oracle), experiment.oracle.tile)
    if tasks_of[0].has_targets:
        return _of_texts(prompt, steered(tasks_of[0], experiment), oracle, split)
    if prompt.head is None and not ensemble:
        return _without_head(prompt, tasks_of[0], oracle, split)
    readers = [_reader(experiment, task, one) for task, one in zip(tasks_of, prompts, strict=True)]
    own = task_file is None and split in ("train", "dev")
    if ensemble:
        return _together(prompts, readers, oracle, split, own)
    return _alone(prompt, readers[0], oracle, split, own)


def chances_of(
    prompt: ExportedPrompt, reader: Reader, oracle: LossOracle, split: Split = "test"
) -> tuple[Array64, Cost]:
    """Return a prompt's label probabilities (E, W) of the rows of a split, and what they cost."""
    candidate, spec = prompt.asked()
    batch = reader.batch(split)
    answer = oracle.evaluate(Request((candidate,), batch, spec))
    return reader.chances(_head(prompt).state, answer, batch), answer.cost


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


def _without_head(prompt: ExportedPrompt, task: Task, oracle: LossOracle, split: Split) -> dict[str, float]:
    """Score a prompt of before there were heads: by the label words as they are."""
    candidate, spec = prompt.asked()
    batch = replace(task.batch(split), objective=LABEL_WORDS)
    answer = oracle.evaluate(Request((candidate,), batch, spec))
    return {"loss": float(answer.losses[0]), **scores_of(task, answer, batch)}


def _of_texts(prompt: ExportedPrompt, task: Task, oracle: LossOracle, split: Split) -> dict[str, float]:
    """Score a prompt by what is generated, and by its loss."""
    (candidate, spec), reader = prompt.asked(), TargetReader(task)
    answers = [oracle.evaluate(Request((candidate,), batch, spec)) for batch in reader.measured(split)]
    loss, scores = reader.measure({}, answers, split)
    return {"loss": loss, **scores}


def _alone(prompt: ExportedPrompt, reader: Reader, oracle: LossOracle, split: Split, own: bool) -> dict[str, float]:
    """Score a prompt read by its head. ``own``: the head was fitted to these rows."""
    if own:
        read = _read_again(prompt, reader, oracle)
        loss, scores = (read.dev_loss, read.dev_metrics) if split == "dev" else (read.train_loss, read.train_metrics)
        return {"loss": loss, **scores}
    candidate, spec = prompt.asked()
    batch = reader.batch(split)
    loss, scores = reader.measure(_head(prompt).state, [oracle.evaluate(Request((candidate,), batch, spec))], split)
    return {"loss": loss, **scores}


def _together(
    prompts: Sequence[ExportedPrompt], readers: Sequence[Reader], oracle: LossOracle, split: Split, own: bool
) -> dict[str, float]:
    """Score prompts that are read together, each by its own head."""
    task = readers[0].task
    chances = [
        _left_out(one, reader, oracle, split) if own else chances_of(one, reader, oracle, split)[0]
        for one, reader in zip(prompts, readers, strict=True)
    ]
    together = read_together(chances, labels_of(task.batch(split)), task.metrics)
    return {"loss": together.loss, **together.metrics}


def _seen(experiment: Experiment, prompt: ExportedPrompt, root: Path) -> Task:
    """Return a task as a prompt is asked on it."""
    task = _task(experiment, prompt, root)
    instruction = prompt.template.get("instruction")
    return task if instruction is None else framed(task, started_from(experiment.prompt, instruction))


def _reader(experiment: Experiment, task: Task, prompt: ExportedPrompt) -> Reader:
    """Return what reads a prompt's answers; the head must go with the model and the task."""
    head = _head(prompt)
    head.require_for(getattr(experiment.oracle, "model", ANALYTIC), task)
    task = replace(task, objective=LABEL_WORDS, answer_words=head.words[len(head.label_words) :])
    return Reader(task, head.config, fitted_on(experiment))


def _head(prompt: ExportedPrompt) -> ExportedHead:
    if prompt.head is None:
        raise HeadError("prompts that are read together have a head each, but one has none; take the files of one run")
    return prompt.head


def _left_out(prompt: ExportedPrompt, reader: Reader, oracle: LossOracle, split: Split) -> Array64:
    """Return label probabilities (E, W) of train or dev, each row's by a head that was fitted without it."""
    out, rows = _read_again(prompt, reader, oracle).out, len(reader.task.train)
    return out[rows:] if split == "dev" else out[:rows]


def _read_again(prompt: ExportedPrompt, reader: Reader, oracle: LossOracle) -> Read:
    """Read rows that took part in the head's fit as the run has them: each by a head without it.

    Where the head was fitted to train alone, that is how it reads both.
    """
    candidate, spec = prompt.asked()
    train, dev, *references = (oracle.evaluate(Request((candidate,), batch, spec)) for batch in batches(reader))
    state = _head(prompt).state
    shown = state[SHOWN].astype(int).tolist() if SHOWN in state else ()
    if any(not 0 <= place < len(reader.task.train) for place in shown):
        raise HeadError(
            f"the rows that stand in the prompt must be rows of train, but the head's"
            f" file has {shown} of {len(reader.task.train)}; take the files of one run, and the data that it had"
        )
    return reader.read(train, dev, references[0] if references else None, shown)
