"""Conformance suite of tasks with their own rows."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from distributed_tuner import tasks
from distributed_tuner.config.task import CustomTaskConfig
from distributed_tuner.custom import path_of
from distributed_tuner.tasks.custom import TaskSource
from distributed_tuner.values import Split

SPLITS: tuple[Split, ...] = ("train", "dev", "test")


class TaskSuite:
    """Tests of one task. part: its class. settings: what it is made with. wording: the rest of its search space.

    wording has ``text``, ``label``, ``template`` and ``label_words`` (or ``text``, ``target`` and ``template``), and
    ``shots`` where 16 of a label are too many.
    """

    part: ClassVar[type[TaskSource]]
    settings: ClassVar[Mapping[str, Any]] = {}
    wording: ClassVar[Mapping[str, Any]]

    @pytest.fixture
    def config(self) -> CustomTaskConfig:
        """Return the settings that the tests are of: those of ``part``."""
        return CustomTaskConfig(import_path=path_of(self.part), settings=dict(self.settings), **self.wording)

    def test_it_is_the_same_task_every_time(self, config: CustomTaskConfig) -> None:
        assert tasks.build(config, Path()) == tasks.build(config, Path())

    def test_train_and_dev_have_the_shots_and_share_no_row(self, config: CustomTaskConfig) -> None:
        task = tasks.build(config, Path())
        for split in (task.train, task.dev):
            assert len(split) == config.shots * max(1, len(task.label_words))
        assert not {example.uid for example in task.train} & {example.uid for example in task.dev}

    def test_every_split_has_every_label_and_text(self, config: CustomTaskConfig) -> None:
        task = tasks.build(config, Path())
        for split in SPLITS:
            examples = task.examples(split)
            assert {example.label for example in examples} == set(range(max(1, len(task.label_words))))
            assert all(example.text.strip() for example in examples)
            assert all(bool(example.target.strip()) == task.has_targets for example in examples)

    def test_another_split_seed_draws_other_rows(self, config: CustomTaskConfig) -> None:
        other = config.model_copy(update={"split_seed": config.split_seed + 1})
        assert tasks.build(config, Path()).train != tasks.build(other, Path()).train

    def test_it_travels_between_processes(self, config: CustomTaskConfig) -> None:
        task = tasks.build(config, Path())
        assert pickle.loads(pickle.dumps(task)) == task
