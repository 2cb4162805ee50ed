"""The shipped task with targets: which product a customer's message is about. 145 messages as pool, 240 as test.

The messages were written for this project and hold no real persons or brands. A target is the name of the product that
the customer wants something done about, as the message has it, in small letters and without article, colour or size.
Most messages name other products as well, and no target comes twice.
"""

from collections.abc import Sequence

from distributed_tuner.config.task import ExtractTaskConfig
from distributed_tuner.tasks.base import Task
from distributed_tuner.tasks.demo import DATA
from distributed_tuner.tasks.file import build_table
from distributed_tuner.tasks.reading import read


def build_extract(config: ExtractTaskConfig, others: Sequence[str] = ()) -> Task:
    """Make the task. Raises TaskError where a template does not fit the data."""
    return build_table(
        config, "extract", read("extract_train.jsonl", DATA), lambda: read("extract_test.jsonl", DATA), others
    )
