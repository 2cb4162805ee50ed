"""Scoring a tuned prompt again, from its run directory alone and without Ray."""

from pathlib import Path

from distributed_tuner import oracles, tasks
from distributed_tuner.config.load import load_space
from distributed_tuner.config.validation import experiment_of
from distributed_tuner.errors import RunDirectoryError
from distributed_tuner.oracles.tiled import TiledOracle
from distributed_tuner.prompts.export import read
from distributed_tuner.run_directory import RunDirectory, data_root
from distributed_tuner.stages.looking import scores_of
from distributed_tuner.values import Request, Split


def evaluate(run_dir: Path, split: Split, task_file: Path | None = None) -> dict[str, float]:
    """Return loss and metrics of the best prompt on a split of its own task, or of the task in ``task_file``.

    The same model, tiles and rows as in the run, hence the same numbers.

    Raises:
        RunDirectoryError: there is no run, it has no best prompt yet, or the prompt comes from another run.
        ConfigError, TaskError, ModelError: the task or the model cannot be had any more.
    """
    directory = RunDirectory(run_dir)
    config = directory.read_config()
    prompt = read(directory.best)
    trial = next((trial for trial in config["trials"] if trial["trial_id"] == prompt.trial_id), None)
    if trial is None:
        raise RunDirectoryError(
            f"the best prompt must come from a trial of its run, but config.json in {run_dir} has no trial"
            f" {prompt.trial_id!r}; copy back the files of one run"
        )
    tree, root = trial["config"], data_root(config, Path())
    if task_file is not None:
        other = load_space(task_file)
        tree, root = {**tree, "task": other.get("task", other)}, task_file.resolve().parent
    experiment = experiment_of(tree)
    task = tasks.build(experiment.task, root)
    oracle = TiledOracle(oracles.build(experiment.oracle), experiment.oracle.tile)
    candidate, spec = prompt.asked()
    batch = task.batch(split)
    answer = oracle.evaluate(Request((candidate,), batch, spec))
    return {"loss": float(answer.losses[0]), **scores_of(task, answer, batch)}
