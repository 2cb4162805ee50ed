"""The shipped task: which of four teams should get a customer's message. 240 messages as pool, 288 as test.

The messages were written for this project and hold no real persons or brands. Many name things that belong to another
team than the one which should get them, so the words alone do not decide the answer.
"""

from collections.abc import Sequence
from pathlib import Path

from distributed_tuner.config.task import DemoTaskConfig
from distributed_tuner.errors import TaskError
from distributed_tuner.tasks.assemble import Labelled, Wording, assemble, fields_by_column
from distributed_tuner.tasks.base import Task
from distributed_tuner.tasks.reading import read
from distributed_tuner.tasks.templates import Template

DATA = Path(__file__).parent / "data"
TEMPLATE = "Message: {text}\nTeam:{label_word}"
LABEL_WORDS = {"billing": " billing", "shipping": " shipping", "technical": " technical", "account": " account"}
MANUAL_PROMPT = "Route the customer's message to one of four teams: billing, shipping, technical or account."


def build_demo(config: DemoTaskConfig, others: Sequence[str] = ()) -> Task:
    """Make the demo task. Raises TaskError where an override does not fit the data."""
    words = config.label_words or LABEL_WORDS
    if set(words) != set(LABEL_WORDS):
        raise TaskError(
            f"the demo task has the labels {', '.join(LABEL_WORDS)}, got label_words for {', '.join(words)}"
        )
    template = Template.parse(config.template or TEMPLATE, config.model_family)
    templates = [template, *(template.other(source, config.model_family) for source in others)]
    for one in templates:
        one.check_columns(("text",), "the demo data")
    index = {name: i for i, name in enumerate(words)}
    tables = [read(f"demo_{split}.jsonl", DATA) for split in ("train", "test")]
    pool, test = (Labelled(table, table.labels("label", index.get, tuple(index))) for table in tables)
    wording = Wording(
        name="demo",
        description="Which of four teams of an online shop should get a customer's message",
        template=template,
        label_names=tuple(words),
        label_words=tuple(words.values()),
        manual_prompt=MANUAL_PROMPT,
        fields=fields_by_column,
        others=tuple(templates[1:]),
    )
    return assemble(config, wording, pool, test)
