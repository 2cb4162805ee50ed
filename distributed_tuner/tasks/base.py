"""The task: labelled examples in three splits, already worded, with all that is needed to score them.

Owns the value and how a batch is cut from it. How it comes about belongs to the sibling modules.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from distributed_tuner.config.task import MetricConfig
from distributed_tuner.errors import TaskError
from distributed_tuner.values import LABEL_WORDS, Batch, Decoding, Example, LabelRule, LossName, Objective, Split


@dataclass(frozen=True, slots=True)
class Task:
    """A few-shot task. Plain tuples of text and numbers, so it pickles fast and means the same anywhere.

    ``label_words[i]`` is what the model says for label index ``i``, ``label_names[i]`` what the data call it;
    ``metrics[0]`` selects, the others are reported. ``feedback`` was held out from train to score texts for a proposer.
    A task with targets, texts to be generated, has no labels, but a ``decoding``.
    """

    name: str
    label_words: tuple[str, ...]
    label_names: tuple[str, ...]
    loss: LossName
    label_rule: LabelRule
    metrics: tuple[str, ...]
    manual_prompt: str
    description: str
    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    test: tuple[Example, ...]
    feedback: tuple[Example, ...] = ()
    objective: Objective = LABEL_WORDS
    """Objective on train and feedback, which steer."""
    answer_words: tuple[str, ...] = ()
    """Words in addition to the label words that the head reads."""
    template: str = ""
    """Template of the rows."""
    others: tuple["Task", ...] = ()
    """The same rows in other templates, which a screen may try."""
    verbalizers: tuple[tuple[str, ...], ...] = ()
    """Other label words, in label order, which a screen may try."""
    warnings: tuple[str, ...] = ()
    """Warnings about the data, a sentence each."""
    decoding: Decoding | None = None
    """How answers are generated, where there are targets."""
    text_metrics: tuple[MetricConfig, ...] = ()
    """The metrics of generated texts, where there are targets: names, and functions of the user's."""
    steers: Literal["likelihood", "metric"] = "likelihood"
    """The loss of targets on train and feedback, and on dev: their likelihood, or 1 minus the first metric."""
    per: Literal["token", "example"] = "token"
    """What the likelihood of an example is: the mean over its target's tokens, or their sum."""
    end: str = ""
    """String that is scored behind each target, so that the model learns where to end."""

    @property
    def metric(self) -> str:
        """The name of the metric that selects."""
        return self.metrics[0]

    @property
    def has_targets(self) -> bool:
        """Whether answers are texts to be generated, and not labels."""
        return self.decoding is not None

    @property
    def fewest_rows(self) -> int:
        """The train rows of the label that has the fewest; all, where there are no labels."""
        if self.has_targets:
            return len(self.train)
        labels = [example.label for example in self.train]
        return min(labels.count(label) for label in range(len(self.label_words)))

    @property
    def splits(self) -> tuple[Split, ...]:
        """Train and dev, and test where there is one."""
        return ("train", "dev", "test") if self.test else ("train", "dev")

    def examples(self, split: Split) -> tuple[Example, ...]:
        """Return all examples of ``split``."""
        match split:
            case "train":
                return self.train
            case "feedback":
                return self.feedback
            case "dev":
                return self.dev
            case "test":
                return self.test
        raise TaskError(f"a split is 'train', 'feedback', 'dev' or 'test', got {split!r}")

    def worded(self, template: str, label_words: Sequence[str] = ()) -> "Task":
        """Return the task in another of its templates and with other label words; those of the template where empty."""
        other = next((task for task in self.others if task.template == template), self)
        return replace(
            self,
            template=other.template,
            label_words=tuple(label_words) or other.label_words,
            train=other.train,
            dev=other.dev,
            test=other.test,
            feedback=other.feedback,
        )

    def batch(self, split: Split, indices: Sequence[int] | None = None) -> Batch:
        """Return the batch of the examples of ``split`` at ``indices`` (all of them where None), in that order.

        Train and feedback have the task's objective, with the answer words if it reads them; the others the plain one.
        Of targets it is what steers, on every split.

        Raises TaskError where an index lies outside the split.
        """
        examples = self._chosen(split, indices)
        if self.has_targets:
            return self._generated(examples, split) if self.steers == "metric" else self._scored(examples, split)
        objective = self.objective if split in ("train", "feedback") else LABEL_WORDS
        words = self.answer_words if objective.head == "vocabulary" else ()
        return Batch(examples, self.label_words, split, self.loss, self.label_rule, objective, words)

    def likelihood_batch(self, split: Split) -> Batch:
        """Return all examples of ``split`` so that the likelihoods of their targets are asked for."""
        return self._scored(self.examples(split), split)

    def generated_batch(self, split: Split) -> Batch:
        """Return all examples of ``split`` so that texts are asked for."""
        return self._generated(self.examples(split), split)

    def _chosen(self, split: Split, indices: Sequence[int] | None) -> tuple[Example, ...]:
        examples = self.examples(split)
        if indices is None:
            return examples
        outside = [int(i) for i in indices if not 0 <= i < len(examples)]
        if outside:
            raise TaskError(f"indices into {split} run from 0 to {len(examples) - 1}, got {outside[:3]}")
        return tuple(examples[i] for i in indices)

    def _scored(self, examples: tuple[Example, ...], split: Split) -> Batch:
        ended = tuple(replace(example, target=example.target + self.end) for example in examples)
        return Batch(ended if self.end else examples, (), split, per=self.per)

    def _generated(self, examples: tuple[Example, ...], split: Split) -> Batch:
        return Batch(examples, (), split, decoding=self.decoding)

    def read_batch(self, split: Split) -> Batch:
        """Return all examples of ``split`` as a head reads them: with the scores of its answer words."""
        return replace(self.batch(split), answer_words=self.answer_words)
