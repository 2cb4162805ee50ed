"""Tasks of the user's own: rows that a class brings, worded and split as those of files are."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence

from distributed_tuner.config.task import CustomTaskConfig
from distributed_tuner.custom import made, promised, subclass
from distributed_tuner.tasks.base import Task
from distributed_tuner.tasks.file import build_table
from distributed_tuner.tasks.rows import texts_table
from distributed_tuner.tasks.table import Table

Rows = Iterable[Mapping[str, object]]


class TaskSource(ABC):
    """Brings the rows of a task: from a database, a simulator, or a format that no file task reads.

    **A task of your own** (docs/extending.md) is a subclass that is made with its settings alone, by the driver and by
    ``evaluate``. The search space words and splits the rows as those of files: ``text``, ``label``, ``template``,
    ``label_words``, ``shots``, ``split_seed`` and so on. The same settings must give the same rows in the same order,
    since the splits are drawn by their numbers.
    """

    @abstractmethod
    def train(self) -> Rows:
        """Return the pool that train and dev are drawn from: mappings of columns, or a pandas DataFrame."""

    def test(self) -> Rows | None:
        """Return the test rows; None: what is left of the pool after train and dev."""
        return None


def build_custom(config: CustomTaskConfig, others: Sequence[str] = ()) -> Task:
    """Make the task of the user's own rows.

    Raises:
        ConfigError, PartError: the class cannot be imported or made, or fails.
        TaskError: something is wrong with its rows.
    """
    source: TaskSource = made(config, subclass(config, TaskSource), {})
    columns = (config.text,) if isinstance(config.text, str) else config.text

    def table(split: str) -> Table | None:
        with promised(config.import_path, f"bring its {split} rows"):
            rows = getattr(source, split)()
            rows = rows if rows is None or hasattr(rows, "columns") else list(rows)
        return None if rows is None else texts_table(rows, columns, f"{split}() of {config.import_path}")

    pool = table("train") or texts_table([], columns, f"train() of {config.import_path}")
    return build_table(config, config.class_name, pool, lambda: table("test"), others)
