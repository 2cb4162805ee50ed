"""Reading: what a prompt's answers to train and dev are worth once a head is fitted to them. No query is asked here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from distributed_tuner import heads
from distributed_tuner.config.experiment import Experiment
from distributed_tuner.config.head import (
    AutoHeadConfig,
    BiasHeadConfig,
    ContextualHeadConfig,
    DomainHeadConfig,
    HeadConfig,
    LabelWordsHeadConfig,
    NoHeadConfig,
    VocabularyHeadConfig,
    reads_words,
)
from distributed_tuner.config.stage import RestartStageConfig
from distributed_tuner.errors import HeadError
from distributed_tuner.heads.vocabulary import VocabularyHead
from distributed_tuner.oracles.base import labels_of, plain_losses, tells_nothing
from distributed_tuner.prompts.spec import framed
from distributed_tuner.seeds import generator
from distributed_tuner.tasks.base import Task
from distributed_tuner.tasks.metrics import score
from distributed_tuner.values import Array64, Batch, Evaluation, Example, Half, Split

WORDS_TOLD = {"transformers": 1600, "vllm": 128}  # of any words, at the label words' price, by the kind of oracle
WORDS_LISTED = {"openai": 128}  # of those that it lists as the likeliest
SHOWN = "shown"  # in a head's state: places of the train rows that stand in its prompt
BOTH: tuple[Split, ...] = ("train", "dev")
CONTENT_FREE = ("N/A", "", "[MASK]")  # texts of contextual calibration (2102.09690)
HAIR = 1e-9  # of a probability, below the others' by which a row is not right
DOMAIN_TEXTS = 20  # of domain-context calibration (2305.19148)


@dataclass(frozen=True, eq=False, slots=True)
class Read:
    """One prompt's answers, read by a head.

    losses: of train and dev, in that order, each row by a head without it; score: their mean. dev_loss, dev_metrics:
    likewise, or by a head fitted to train where that is the one that goes with the prompt; train_loss, train_metrics:
    likewise. state: of that head, and which rows of train stand in the prompt. out: label probabilities (N, W) that the
    metrics are of, those of train by heads without the row in any case; NaN of rows that stand in the prompt.
    """

    losses: Array64
    score: float
    dev_loss: float
    dev_metrics: dict[str, float]
    train_loss: float
    train_metrics: dict[str, float]
    state: Mapping[str, Array64]
    out: Array64


@dataclass(frozen=True, slots=True)
class TrainScore:
    """Scores of a prompt with its head on train: the mean loss, and the metric that selects."""

    loss: float
    metric: float


def resolved_head(experiment: Experiment, task: Task) -> HeadConfig:
    """Return the head of an experiment; of "auto" the strongest that the oracle and the shots allow."""
    if not isinstance(experiment.head, AutoHeadConfig):
        return experiment.head
    if task.has_targets:
        return NoHeadConfig()
    oracle, shots = experiment.oracle, experiment.task.shots - experiment.task.feedback
    if oracle.kind == "analytic" or task.loss == "zero_one":
        return LabelWordsHeadConfig(kind="label_words")
    words = {**WORDS_TOLD, **WORDS_LISTED}.get(oracle.kind, 0)
    if words <= len(task.label_words) or min(shots, task.fewest_rows) < VocabularyHead.least_rows:
        return BiasHeadConfig(kind="bias")
    return VocabularyHeadConfig(kind="vocabulary", words=words)


def read_by(task: Task, experiment: Experiment) -> Task:
    """Return the task as the experiment's searches see it: texts framed by the prompt's layout, their objective, and
    the words that the head reads."""
    words = experiment.head.answer_words if reads_words(experiment.head) else None
    seen = framed(task, experiment.prompt)
    if task.has_targets:
        return steered(seen, experiment)
    return replace(seen, objective=experiment.objective.value(), answer_words=words or ())


def steered(task: Task, experiment: Experiment) -> Task:
    """Return a task with targets with the loss that the experiment has for them; another as it is."""
    if task.decoding is None:
        return task
    objective, stop = experiment.objective, task.decoding.stop
    end = stop[0] if objective.stop and stop else ""
    return replace(task, steers="metric" if objective.kind == "metric" else "likelihood", per=objective.per, end=end)


def fitted_on(experiment: Experiment) -> tuple[Split, ...]:
    """Return what the head that goes with a prompt is fitted to: all labels, or train where dev alone selects."""
    rules = {stage.select for stage in experiment.stages if not isinstance(stage, RestartStageConfig)}
    return BOTH if rules <= {"cross_validation"} else BOTH[:1]


def head_for_costs(config: HeadConfig) -> HeadConfig:
    """Return a head to project costs with: an "auto" that is not resolved yet costs what label words cost."""
    return LabelWordsHeadConfig(kind="label_words") if isinstance(config, AutoHeadConfig) else config


class Reader:
    """Reads answers for one task. ``on``: what the head that goes with a prompt is fitted to."""

    def __init__(self, task: Task, config: HeadConfig, on: tuple[Split, ...] = BOTH) -> None:
        assert not isinstance(config, AutoHeadConfig), "the head is resolved before anything is read"
        self.task = task
        self._config = config
        self.on = on
        self._plain = isinstance(config, LabelWordsHeadConfig)

    @property
    def further(self) -> Batch | None:
        """What an evaluation asks for after train and dev: texts without content, where the head goes by them."""
        first = self.task.train[0]
        if isinstance(self._config, ContextualHeadConfig):
            texts = [text for text in CONTENT_FREE if text or first.cue]
        elif isinstance(self._config, DomainHeadConfig):
            words = [word for example in self.task.train for word in example.text.split()] or list(CONTENT_FREE[:1])
            length = max(1, len(words) // len(self.task.train))
            stream = generator((0, "domain words"))
            texts = [" ".join(stream.choice(words, size=length).tolist()) for _ in range(DOMAIN_TEXTS)]
        else:
            return None
        examples = tuple(Example(f"reference-{i}", text, first.cue, 0, first.tail) for i, text in enumerate(texts))
        return replace(self.task.batch("train"), examples=examples)

    def batch(self, split: Split) -> Batch:
        """Return a split as it is asked for."""
        return self.task.read_batch(split) if reads_words(self._config) else self.task.batch(split)

    def measured(self, split: Split) -> list[Batch]:
        """Return what the final scores on a split ask for."""
        return [self.batch(split)]

    def of(self, task: Task) -> "Reader":
        """Return the like reader of another task."""
        return Reader(task, self._config, self.on)

    def left_on_train(self, train: Evaluation, shown: Sequence[int] = ()) -> TrainScore:
        """Return what is left on the rows of train that do not stand in the prompt, each by a head without it."""
        features, labels = _hidden(self._features(train), shown), labels_of(self.task.batch("train"))
        try:
            chances = heads.build(self._config, len(self.task.label_words)).leave_one_out(features, labels)
            chances = _complete(chances, train, labels)
        except HeadError:  # too few answered rows
            return TrainScore(float("nan"), float("nan"))
        losses = self._plain_losses(train, labels) if self._plain else losses_of(chances, labels)
        rows = np.delete(np.arange(len(labels)), list(shown))
        metric = self._metrics(chances[rows], labels[rows])[self.task.metric]
        return TrainScore(float(losses[rows].mean()), metric)

    def read(
        self, train: Evaluation, dev: Evaluation, further: Evaluation | None = None, shown: Sequence[int] = ()
    ) -> Read:
        """Read one prompt's answers to train and dev. What cannot be read has a NaN score, and is never selected.

        ``further``: the answer to the batch of that name. ``shown``: places in train of rows that stand in the prompt,
        which tell nothing then.
        """
        known = None if further is None else self._features(further)
        features = {"train": _hidden(self._features(train), shown), "dev": self._features(dev)}
        labels = {split: labels_of(self.task.batch(split)) for split in BOTH}
        both, answers = np.concatenate(list(features.values())), np.concatenate(list(labels.values()))
        words = len(self.task.label_words)
        try:
            out = heads.build(self._config, words).leave_one_out(both, answers, known)
            on = [split for split in features if split in self.on]
            head = heads.build(self._config, words).fit(
                np.concatenate([features[split] for split in on]),
                np.concatenate([labels[split] for split in on]),
                known,
            )
            rows = len(labels["train"])
            of_dev, of_train = out[rows:], out[:rows]
            if "dev" not in on:
                of_dev, of_train = head.predict(features["dev"]), head.predict(features["train"])
        except HeadError:  # too few answered rows
            nothing = np.full(len(answers), np.nan)
            nan = float("nan")
            return Read(nothing, nan, nan, {}, nan, {}, {}, np.full((len(answers), words), np.nan))
        of_train = _complete(of_train, train, labels["train"])
        of_dev = _complete(of_dev, dev, labels["dev"])
        out = np.concatenate([_complete(out[:rows], train, labels["train"]), _complete(out[rows:], dev, labels["dev"])])
        split_losses = {"train": losses_of(of_train, labels["train"]), "dev": losses_of(of_dev, labels["dev"])}
        losses = losses_of(out, answers)
        if self._plain:
            split_losses = {
                "train": self._plain_losses(train, labels["train"]),
                "dev": self._plain_losses(dev, labels["dev"]),
            }
            losses = np.concatenate(list(split_losses.values()))
        kept = np.ones(rows, dtype=np.bool_)
        kept[list(shown)] = False
        told = np.concatenate([kept, np.ones(len(labels["dev"]), dtype=np.bool_)])
        state = head.state_dict() | ({SHOWN: np.array(shown, dtype=np.float64)} if shown else {})
        return Read(
            losses=np.where(told, losses, np.nan),
            score=float(losses[told].mean()),
            dev_loss=float(split_losses["dev"].mean()),
            dev_metrics=self._metrics(of_dev, labels["dev"]),
            train_loss=float(split_losses["train"][kept].mean()),
            train_metrics=self._metrics(of_train[kept], labels["train"][kept]),
            state=state,
            out=np.where(told[:, None], np.concatenate([out[:rows], of_dev]), np.nan),
        )

    def measure(
        self, state: Mapping[str, Array64], answers: Sequence[Evaluation], split: Split
    ) -> tuple[float, dict[str, float]]:
        """Return loss and metrics of the answers to ``measured``, read by a head that was fitted before."""
        (answer,), batch = answers, self.batch(split)
        labels, chances = labels_of(batch), self.chances(state, answer, batch)
        losses = self._plain_losses(answer, labels) if self._plain else losses_of(chances, labels)
        return float(losses.mean()), self._metrics(chances, labels)

    def chances(self, state: Mapping[str, Array64], answer: Evaluation, batch: Batch) -> Array64:
        """Return label probabilities (E, W) of answers, read by a head that was fitted before."""
        head = heads.restore(self._config, len(self.task.label_words), state)
        return _complete(head.predict(self._features(answer)), answer, labels_of(batch))

    # ------------------------------------------------------------------------------------------------ parts
    def _features(self, answer: Evaluation) -> Half | npt.NDArray[np.float32]:
        if not reads_words(self._config):
            return np.asarray(answer.logits[0])
        assert answer.features is not None
        return np.asarray(answer.features[0])

    def _plain_losses(self, answer: Evaluation, labels: npt.NDArray[np.int64]) -> Array64:
        with np.errstate(invalid="ignore", over="ignore"):
            return plain_losses(self.task.loss, answer.logits[0], labels)

    def _metrics(self, chances: Array64, labels: npt.NDArray[np.int64]) -> dict[str, float]:
        """Return the task's metrics. A row without an answer counts as wrong."""
        return score(self.task.metrics, predicted(chances, labels), labels)


def _hidden(features: Half | npt.NDArray[np.float32], shown: Sequence[int]) -> npt.NDArray[Any]:
    """Return features without those of some rows: no fit sees what is not finite."""
    if not shown:
        return features
    left = features.astype(np.float32)
    left[list(shown)] = np.nan
    return left


def predicted(scores: npt.NDArray[Any], labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the best label of each row of scores (E, W), first of equals; a wrong one where a row has no answer."""
    answered = np.isfinite(scores).all(axis=-1)
    best = np.argmax(np.where(answered[:, None], scores, 0.0), axis=-1)
    return np.asarray(np.where(answered, best, (labels + 1) % scores.shape[-1]))


def _complete(chances: Array64, answer: Evaluation, labels: npt.NDArray[np.int64]) -> Array64:
    """Return label probabilities (E, W) in which all fit a row alike that tells nothing, and none is right."""
    alike = np.full(chances.shape, 1.0 / chances.shape[-1])
    alike[np.arange(len(labels)), labels] -= HAIR
    return np.where(tells_nothing(answer.logits[0])[:, None], alike, chances)


def losses_of(chances: Array64, labels: npt.NDArray[np.int64]) -> Array64:
    """Return -log of each label's probability."""
    with np.errstate(divide="ignore"):
        return np.asarray(-np.log(chances[np.arange(len(labels)), labels]))
