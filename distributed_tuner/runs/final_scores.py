"""Scores that are not bought from any trial's budget: the baselines', and the selected prompt's on test."""

import math
from collections.abc import Mapping, Sequence

from distributed_tuner.baselines import bag_of_words_scores
from distributed_tuner.ledger.follower import Follower
from distributed_tuner.ledger.rows import CostRow, GeneratedText, MeasureRow
from distributed_tuner.ledger.writer import LedgerWriter
from distributed_tuner.oracles.base import LossOracle, labels_of
from distributed_tuner.preflight.prepared import SPLITS, Prepared
from distributed_tuner.prompts.export import ExportedPrompt
from distributed_tuner.prompts.spec import NO_ROWS
from distributed_tuner.runs.directory import RunDirectory
from distributed_tuner.runs.evaluation import chances_of
from distributed_tuner.runs.observer import Observer
from distributed_tuner.stages.ensemble import read_together
from distributed_tuner.stages.measuring import kept_texts
from distributed_tuner.stages.reading import Reader
from distributed_tuner.stages.target_reading import TargetReader
from distributed_tuner.stages.validation import batches, reader_of, scores_of
from distributed_tuner.tasks.base import Task
from distributed_tuner.values import Array64, Batch, Cost, Evaluation, Request, Text


def _last(task: Task) -> tuple[str, str]:
    """Return which row is written last."""
    return "manual_prompt" if task.has_targets else "manual_prompt_with_head", "test" if task.test else "dev"


def measure_baselines(
    prepared: Prepared,
    directory: RunDirectory,
    oracle: LossOracle,
    ledger: Follower,
    writer: LedgerWriter,
    observer: Observer,
) -> None:
    """Score the manual prompt of every split as it is, and with the run's head, except for scores that the ledger
    has already."""
    done = {(row.split_seed, row.what, row.split) for row in ledger.catch_up().measures}
    asked = _Asked(oracle)
    for split_seed, task in prepared.baselines():
        if (split_seed, *_last(task)) in done:
            continue
        reader = reader_of(task, prepared.experiment.head, prepared.fitted_on)
        if isinstance(reader, Reader):
            state, rows = _baseline_rows(reader, split_seed, asked)
            directory.keep_baseline_head(split_seed, state)
        else:
            rows = _target_rows(reader, split_seed, asked)
        for row in rows:
            if (split_seed, row.what, row.split) not in done:
                writer.write(row)
                _tell(row, task, observer)


def measure_bags_of_words(prepared: Prepared, ledger: Follower, writer: LedgerWriter, observer: Observer) -> None:
    """Score a bag of words on the rows of every split, except those that the ledger has already.

    It asks no model, and comes last: scikit-learn takes longer to import than a trial to begin.
    """
    done = {(row.split_seed, row.split) for row in ledger.catch_up().measures if row.what == "bag_of_words"}
    for split_seed, task in prepared.baselines():
        for split in () if task.has_targets else SPLITS[1:]:
            if task.examples(split) and (split_seed, split) not in done:
                scores = bag_of_words_scores(task, split, prepared.fitted_on)
                row = _baseline_row("bag_of_words", split, split_seed, None, scores, scores[task.metric])
                writer.write(row)
                _tell(row, task, observer)


def _tell(row: MeasureRow, task: Task, observer: Observer) -> None:
    name = row.what.replace("_", " ")
    observer.note(f"{name}, split {row.split_seed}: {row.split} {task.metric} {row.metric:.4f}")


def _baseline_row(
    what: str,
    split: str,
    split_seed: int,
    loss: float | None,
    scores: Mapping[str, float],
    metric: float,
    **more: object,
) -> MeasureRow:
    facts = {"what": what, "split": split, "split_seed": split_seed, "loss": loss, "metrics": dict(scores)}
    return MeasureRow.model_validate({"cost": CostRow(), **facts, "metric": metric, **more})


class _Asked:
    """Answers to manual prompts, each asked for once: test sets are often the same for every split seed."""

    def __init__(self, oracle: LossOracle) -> None:
        self._oracle = oracle
        self._answers: dict[tuple[str, Batch], Evaluation] = {}

    def answer(self, text: str, batch: Batch) -> tuple[Evaluation, Cost]:
        """Return an answer and what it has just cost."""
        key = (text, batch)
        if key in self._answers:
            return self._answers[key], Cost()
        found = self._answers[key] = self._oracle.evaluate(Request((Text(text),), batch, NO_ROWS))
        return found, found.cost


def _baseline_rows(reader: Reader, split_seed: int, asked: _Asked) -> tuple[Mapping[str, Array64], list[MeasureRow]]:
    """Return the head that reads the manual prompt, and the rows of both ways to read it on one split."""
    task = reader.task
    fitting = [asked.answer(task.manual_prompt, batch) for batch in batches(reader)]
    (train, _), (dev, _), *references = fitting
    read = reader.read(train, dev, references[0][0] if references else None)
    dev_cost = fitting[1][1]

    def row(what: str, split: str, loss: float | None, scores: Mapping[str, float], **more: object) -> MeasureRow:
        return _baseline_row(what, split, split_seed, loss, scores, scores[task.metric], **more)

    plain_dev = scores_of(task, dev, reader.batch("dev"))
    plain = [row("manual_prompt", "dev", float(dev.losses[0]), plain_dev, cost=CostRow.of(dev_cost))]
    headed = [
        row(
            "manual_prompt_with_head",
            "dev",
            read.dev_loss,
            read.dev_metrics,
            losses=[round(float(one), 5) for one in read.losses],
            cost=CostRow.of(sum((cost for _, cost in fitting), Cost()) - dev_cost),
        )
    ]
    if task.test:
        batch = reader.batch("test")
        test, test_cost = asked.answer(task.manual_prompt, batch)
        scores = scores_of(task, test, batch)
        plain.append(row("manual_prompt", "test", float(test.losses[0]), scores, cost=CostRow.of(test_cost)))
        if math.isfinite(read.score):
            label_words_metric = scores[task.metric]
            loss, scores = reader.measure(read.state, [test], "test")
            headed.append(row("manual_prompt_with_head", "test", loss, scores, label_words_metric=label_words_metric))
    return read.state, plain + (headed if math.isfinite(read.score) else [])


def _target_rows(reader: TargetReader, split_seed: int, asked: _Asked) -> list[MeasureRow]:
    """Return the rows of the manual prompt on dev and test, for targets."""
    task = reader.task
    fitting = [asked.answer(task.manual_prompt, batch) for batch in batches(reader)]
    (train, _), (dev, _), *further = fitting
    read = reader.read(train, dev, further[0][0] if further else None)
    found = {"dev": (read.dev_loss, read.dev_metrics, sum((cost for _, cost in fitting), Cost()))}
    texts: list[GeneratedText] = []
    if task.test:
        tested = [asked.answer(task.manual_prompt, batch) for batch in reader.measured("test")]
        loss, scores = reader.measure({}, [answer for answer, _ in tested], "test")
        found["test"] = (loss, scores, sum((cost for _, cost in tested), Cost()))
        texts = kept_texts(task.test, tested[0][0].texts[0], with_inputs=True)
    losses = [round(float(one), 5) for one in read.losses]
    return [
        _baseline_row(
            "manual_prompt",
            split,
            split_seed,
            loss,
            scores,
            scores[task.metric],
            losses=losses if split == "dev" else [],
            texts=texts if split == "test" else [],
            cost=CostRow.of(cost),
        )
        for split, (loss, scores, cost) in found.items()
    ]


def measure_ensemble(
    oracle: LossOracle, members: Sequence[tuple[Reader, ExportedPrompt]], split_seed: int, trial_id: str
) -> MeasureRow:
    """Score a trial's ensemble on test, each member with its own head, outside the budgets."""
    found = [chances_of(prompt, reader, oracle) for reader, prompt in members]
    task = members[0][0].task
    together = read_together([chances for chances, _ in found], labels_of(task.batch("test")), task.metrics)
    return MeasureRow(
        trial_id=trial_id,
        what="ensemble",
        split="test",
        split_seed=split_seed,
        loss=together.loss,
        metric=together.metrics[task.metric],
        metrics=together.metrics,
        cost=CostRow.of(sum((cost for _, cost in found), Cost())),
    )
