"""Assembly of a task from tables and wording: the steps that file, demo and Hub tasks share.

Owns rendering rows to examples and the draw.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from distributed_tuner.config.task import (
    BaseTaskConfig,
    CustomMetricConfig,
    MetricConfig,
    OwnTaskConfig,
    RowsTaskConfig,
    metric_name,
)
from distributed_tuner.errors import TaskError
from distributed_tuner.tasks import few_shot, repeats
from distributed_tuner.tasks.base import Task
from distributed_tuner.tasks.metrics import LABEL_METRICS
from distributed_tuner.tasks.table import Table
from distributed_tuner.tasks.templates import Template
from distributed_tuner.tasks.text_metrics import TEXT_METRICS
from distributed_tuner.values import Example, LabelRule, LossName

Render = Callable[[Table, int], dict[str, str]]
Fields = Callable[[Template], Render]


@dataclass(frozen=True, slots=True)
class Labelled:
    """A table with the label index of every row (below 0: none)."""

    table: Table
    labels: Sequence[int]


@dataclass(frozen=True, slots=True)
class Wording:
    """Wording of a row, and recommendations for the task.

    ``others``: other templates, which a screen may try. ``fields`` returns how a template's columns are had of a row.
    ``target``: the column of the texts to be generated; empty where there are labels.
    """

    name: str
    description: str
    template: Template
    label_names: tuple[str, ...]
    label_words: tuple[str, ...]
    manual_prompt: str
    fields: Fields
    others: tuple[Template, ...] = ()
    loss: LossName = "cross_entropy"
    label_rule: LabelRule = "single"
    metrics: tuple[MetricConfig, ...] = ("accuracy",)
    target: str = ""


def fields_by_column(template: Template) -> Render:
    """Return how the columns of a template are had of a row that has them under their names."""
    return lambda table, i: table.texts(i, template.columns)


def assemble(
    config: BaseTaskConfig, wording: Wording, pool: Labelled, test: Labelled | None, warnings: Iterable[str] = ()
) -> Task:
    """Draw the splits and word them. ``test`` None takes what the draw leaves of the pool. ``warnings``: of the data.

    Raises TaskError where a class is too small, a metric does not fit, or nothing is left to test on.
    """
    metrics = tuple(config.metric or wording.metrics)
    _check_metrics(metrics, wording)
    rows = isinstance(config, RowsTaskConfig)
    halve = isinstance(config, RowsTaskConfig) and config.halve
    draw = few_shot.draw(pool.labels, wording.label_names, config.shots, config.split_seed, halve)
    kept, held_out = few_shot.hold_out(draw.train, pool.labels, config.feedback)
    tested = pool if test is None else test
    if test is None and rows:
        test_rows = []
    elif test is None:
        rest = few_shot.limit([pool.labels[i] for i in draw.rest], config.test_limit)
        test_rows = [draw.rest[i] for i in rest]
    else:
        test_rows = list(few_shot.limit(tested.labels, config.test_limit))
    if not test_rows and not rows:
        raise TaskError(
            f"task {wording.name!r} has no test example: give a test file, or use fewer than {config.shots} shots"
        )

    texts: dict[str, str] = {}

    def worded(template: Template) -> Task:
        def examples(source: Labelled, prefix: str, rows: Iterable[int]) -> tuple[Example, ...]:
            return _examples(template, wording, source, prefix, rows, texts)

        return Task(
            name=wording.name,
            label_words=template.label_words(wording.label_words),
            label_names=wording.label_names,
            loss=config.loss or wording.loss,
            label_rule=config.label_rule or wording.label_rule,
            metrics=tuple(map(metric_name, metrics)),
            text_metrics=metrics if wording.target else (),
            decoding=config.decoding.value() if wording.target and isinstance(config, OwnTaskConfig) else None,
            manual_prompt=wording.manual_prompt if config.manual_prompt is None else config.manual_prompt,
            description=config.description or wording.description,
            train=examples(pool, "pool", kept),
            dev=examples(pool, "pool", draw.dev),
            test=examples(tested, "pool" if test is None else "test", test_rows),
            feedback=examples(pool, "pool", held_out),
            template=template.source,
        )

    task = worded(wording.template)
    told = repeats.drawn(config.split_seed, task.train, task.feedback, task.dev, task.test)
    templates = {other.source: other for other in wording.others if other.source != wording.template.source}
    return replace(task, warnings=(*warnings, *told), others=tuple(map(worded, templates.values())))


def _check_metrics(metrics: Sequence[MetricConfig], wording: Wording) -> None:
    what, known, own = "labels", tuple(LABEL_METRICS), ""
    if wording.target:
        what, known, own = "targets", TEXT_METRICS, ", or a function of your own ({import_path: ...})"
    for metric in metrics:
        if metric not in known and not (wording.target and isinstance(metric, CustomMetricConfig)):
            raise TaskError(
                f"a task with {what} is scored by {', '.join(known)}{own}, but task.metric has {metric_name(metric)!r};"
                " choose one of these"
            )
    if "f1" in metrics and len(wording.label_words) != 2:
        raise TaskError(f"f1 is for two classes, got {len(wording.label_words)}: use accuracy or matthews")


def _examples(
    template: Template, wording: Wording, source: Labelled, prefix: str, indices: Iterable[int], texts: dict[str, str]
) -> tuple[Example, ...]:
    """Word the rows at some indices. ``texts``: those that are there already, so that equal ones are one object."""
    made = []
    fields, table, column = wording.fields(template), source.table, wording.target
    for i in indices:
        words = template.render(fields(table, i))
        text = texts.setdefault(words.text, words.text)
        target = template.target(table.texts(i, (column,))[column]) if column else ""
        made.append(Example(f"{prefix}-{i}", text, words.cue, source.labels[i], words.tail, table.where(i), target))
    return tuple(made)
