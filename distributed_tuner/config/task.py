"""Settings of tasks: where the data are, the wording, the splits and the metrics.

Owns the fields and the checks that need no data. Reading files, checking columns and drawing splits belong to
``distributed_tuner.tasks``.
"""

import json
import re
from typing import Annotated, Any, ClassVar, Literal, Self, TypeAlias

from pydantic import BeforeValidator, Discriminator, Field, Tag, field_validator, model_validator

from distributed_tuner.config.base import FILE, Config, Names, Read
from distributed_tuner.config.custom import CustomPart
from distributed_tuner.values import Decoding, LabelRule, LossName

LabelMetricName: TypeAlias = Literal["accuracy", "f1", "matthews"]
TextMetricName: TypeAlias = Literal["exact_match", "token_f1", "rouge_l", "chrf"]
MetricName: TypeAlias = LabelMetricName | TextMetricName
OnEmpty: TypeAlias = Literal["refuse", "drop"]
ModelFamily: TypeAlias = Literal["causal", "masked"]
HubTaskName: TypeAlias = Literal[
    "sst2", "yelp_polarity", "agnews", "dbpedia", "mrpc", "snli", "rte", "copa", "cola", "boolq", "wic", "wsc"
]

_WHOLE = re.compile(r"([+-]?[0-9]{1,400})\.0+")


def label_key(value: object) -> str:
    """Return the text by which a label is known, however a format or the program that exported it has written it.

    ``1``, ``1.0``, ``"1.0"`` and ``" 1 "`` are all ``"1"``; ``true`` in any case is ``"true"``, None is ``"null"``;
    lists and mappings are as JSON writes them.
    """
    if value is None:
        return "null"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    text = json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, list | dict) else str(value).strip()
    if text.lower() in ("true", "false"):
        return text.lower()
    return str(int(whole[1])) if (whole := _WHOLE.fullmatch(text)) else text


def _text_label_words(value: Any) -> Any:
    """Make keys text and refuse words that YAML turned into booleans."""
    if not isinstance(value, dict):
        return value
    known: dict[str, Any] = {}
    for label in value:
        other = known.setdefault(label_key(label), label)
        if other is not label:
            raise ValueError(f"label values must differ as text, but {other!r} and {label!r} are the same label")
    words = {label.strip() if isinstance(label, str) else label_key(label): word for label, word in value.items()}
    for label, word in words.items():
        if isinstance(word, bool):
            raise ValueError(f'the word for label {label!r} was read as {word}: quote it, such as {label}: " yes"')
    if len(words) < 2:
        raise ValueError(f"at least 2 label words are needed, got {len(words)}")
    return {label: str(word) if isinstance(word, int) else word for label, word in words.items()}


LabelWords: TypeAlias = Annotated[dict[str, str], BeforeValidator(_text_label_words)]


class CustomMetricConfig(CustomPart):
    """A metric of your own: a function of (predictions, targets, inputs), three lists of texts, that returns a number.

    Higher is better. It is given a whole set of examples at once.
    """

    def __hash__(self) -> int:  # its settings are a mapping, which has none
        return hash(self.model_dump_json())


def _sort_of_metric(value: Any) -> str:
    return "CustomMetricConfig" if isinstance(value, dict | CustomMetricConfig) else "str"


MetricConfig: TypeAlias = Annotated[
    Annotated[MetricName, Tag("str")] | Annotated[CustomMetricConfig, Tag("CustomMetricConfig")],
    Discriminator(_sort_of_metric),
]


class DecodingConfig(Config):
    """How answers are generated."""

    max_new_tokens: int = Field(32, ge=1)
    """The most tokens of an answer; budgets reckon with as many."""
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ("\n",)
    """Strings that end an answer; they are no part of it. No target may hold one."""
    temperature: float = Field(0.0, ge=0)
    """0: the likeliest token each time; else tokens are sampled."""
    seed: int = Field(0, ge=0)
    """Of sampling."""

    def value(self) -> Decoding:
        """Return the settings as batches carry them."""
        return Decoding(self.max_new_tokens, self.stop, self.temperature, self.seed)


class BaseTaskConfig(Config):
    """The fields that every kind of task has; None stands for what the task recommends."""

    template: str | None = None
    """An example as the model reads it: columns in braces, one `{label_word}`; such as `{text} It was{label_word}`."""
    label_words: LabelWords | None = None
    """Label in the data -> word that the model should say, both as they are written. The order gives the label
    indices."""
    description: str | None = Field(default=None, min_length=1)
    """The task in a few words, for proposers."""
    manual_prompt: str | None = None
    """The instruction that a person would write: the start of text prompts and the baseline of the report."""
    shots: int = Field(default=16, ge=1)
    """Examples per class in train, and as many more in dev."""
    feedback: int = Field(default=0, ge=0)
    """Of these, examples per class that are held out from train: restart stages score texts on them."""
    split_seed: int = Field(default=0, ge=0)
    """Seed of the few-shot draw; the papers average over three."""
    loss: LossName | None = None
    """`cross_entropy` over the label words' logits, or `hinge` with margin 2."""
    label_rule: LabelRule | None = None
    """`single`: label words must be one token each. `first`: the first token stands for the word. `sum`, `mean`: label
    words of any length, scored by the sum or the mean of the log-probabilities of all their tokens."""
    metric: tuple[MetricConfig, ...] | None = None
    """Reported metrics; the first one selects. Of labels `accuracy`, `f1`, `matthews`; of targets `exact_match`,
    `token_f1`, `rouge_l`, `chrf`, or a function of your own."""
    test_limit: int | None = Field(default=None, ge=1)
    """At most so many test examples, spread over the classes; the same ones for every `split_seed`. None: all."""
    model_family: ModelFamily = "causal"
    """`masked` models may have text after the label word."""

    @model_validator(mode="after")
    def _train_is_left(self) -> Self:
        if self.feedback >= self.shots:
            raise ValueError(f"feedback is taken from the {self.shots} shots a class and must leave some for train")
        return self

    @field_validator("metric")
    @classmethod
    def _metrics_differ(cls, value: tuple[MetricConfig, ...] | None) -> tuple[MetricConfig, ...] | None:
        names = [] if value is None else list(map(metric_name, value))
        if value is not None and (not value or len(set(names)) < len(names)):
            raise ValueError(f"metric must be a list of one or more different names, got {names}")
        return value


class DemoTaskConfig(BaseTaskConfig):
    """The task that is shipped: route a customer's message to one of four teams. Needs no network."""

    kind: Literal["demo"] = "demo"


def metric_name(metric: MetricConfig) -> str:
    """Return what a metric is called: its name, or that of its function."""
    return metric if isinstance(metric, str) else metric.class_name


class OwnTaskConfig(BaseTaskConfig):
    """Settings common to tasks of the user's own data: columns and wording."""

    reads: ClassVar[tuple[Read, ...]] = (Read(("decoding",), "target", unless=(None,)),)

    text: str | tuple[str, ...] = Field(min_length=1)
    """Column or columns that hold the text."""
    label: str | None = None
    """Column that holds the label."""
    target: str | None = None
    """Column that holds the text to be generated, in the place of `label` and `label_words`. The template has
    `{target}` then."""
    decoding: DecodingConfig = DecodingConfig()
    """How answers are generated, of a task with targets."""
    on_empty: OnEmpty = "refuse"
    """Rows without a text, a label or a target: `refuse` the file, or `drop` them and tell how many."""
    template: str

    @property
    def answer(self) -> str:
        """Column that holds the label or the target."""
        return self.target or self.label or ""

    @model_validator(mode="after")
    def _labels_or_targets(self) -> Self:
        given = {"label": self.label, "label_words": self.label_words}
        if self.target is None:
            if missing := [name for name, value in given.items() if value is None]:
                raise ValueError(
                    f"a task has label and label_words, or a target (a column of texts to be generated), but"
                    f" {missing[0]} is missing; add it"
                )
            return self
        given |= {"loss": self.loss, "label_rule": self.label_rule}
        if unused := [name for name, value in given.items() if value is not None]:
            raise ValueError(
                f"{unused[0]} is for tasks with labels, but target: {self.target} names texts to be generated; leave"
                f" one of both out"
            )
        return self


class FileTaskConfig(OwnTaskConfig):
    """Your own data, as JSONL, CSV, TSV or Parquet."""

    kind: Literal["file"]
    train: Annotated[str, FILE]
    """File with the pool that train and dev are drawn from."""
    test: Annotated[str | None, FILE] = None
    """File with the test examples. None: what is left of the pool after train and dev."""


class ExtractTaskConfig(OwnTaskConfig):
    """The shipped task with targets: which product a customer's message is about. Needs no network."""

    kind: Literal["extract"]
    text: Literal["text"] = "text"
    target: Literal["product"] = "product"
    template: str = "Message: {text}\nProduct: {target}"
    description: str | None = "Write the name of the product that a message to a shop wants something done about"
    manual_prompt: str | None = (
        "Which product is the customer's message about? Answer with the name of the product only.\n\n"
        "Message: The socks fit, thank you. The slippers, however, are two left ones, could you swap them?\n"
        "Product: slippers\n"
    )
    decoding: DecodingConfig = DecodingConfig(max_new_tokens=8)


class RowsTaskConfig(OwnTaskConfig):
    """Rows that a Python program has handed in. They are not kept with the run, so that no search space names them."""

    kind: Literal["rows"]
    halve: bool = False
    """Of a class with fewer than twice the shots, take half of the rows for train and as many for dev."""


class CustomTaskConfig(OwnTaskConfig, CustomPart):
    """Rows from code of your own: a subclass of ``distributed_tuner.tasks.custom.TaskSource``."""

    kind: Literal["custom"] = "custom"


class GivenTaskConfig(BaseTaskConfig):
    """A task that a Python program has handed in as an object. It is not kept with the run."""

    kind: Literal["given"]


class HubTaskConfig(BaseTaskConfig):
    """A task of the literature, from the Hugging Face Hub or from a local copy."""

    kind: HubTaskName
    dataset: Annotated[str | None, Names("data set")] = None
    """A local directory (`save_to_disk`, or a folder of parquet, jsonl or csv splits) or another hub id (`id` or
    `id:config`). None: the usual hub data set."""
    on_empty: OnEmpty = "refuse"
    """Rows without a text or a label: `refuse` those that are drawn, or `drop` all and tell how many."""


TaskConfig: TypeAlias = Annotated[
    DemoTaskConfig
    | ExtractTaskConfig
    | FileTaskConfig
    | CustomTaskConfig
    | RowsTaskConfig
    | GivenTaskConfig
    | HubTaskConfig,
    Field(discriminator="kind"),
]
