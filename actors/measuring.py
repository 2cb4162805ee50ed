"""Scores that are not bought from any trial's budget: the manual prompt's, and the selected prompt's on test."""

from pathlib import Path

from actors.progress import Progress
from distributed_tuner.ledger.reader import read
from distributed_tuner.ledger.rows import CostRow, MeasureRow
from distributed_tuner.ledger.writer import LedgerWriter
from distributed_tuner.oracles.base import LossOracle
from distributed_tuner.preflight import SPLITS, Prepared
from distributed_tuner.prompts.spec import NO_ROWS
from distributed_tuner.stages.looking import scores_of
from distributed_tuner.tasks.base import Task
from distributed_tuner.values import Batch, Candidate, PromptSpec, Request, Split, Text


def measure_manual_prompts(
    prepared: Prepared, ledger: Path, oracle: LossOracle, writer: LedgerWriter, progress: Progress
) -> None:
    """Score the manual prompt of every split on dev and test, but for what the ledger has already."""
    done = {(row.split_seed, row.split) for row in read(ledger).measures if row.what == "manual_prompt"}
    measured: dict[tuple[str, Batch], MeasureRow] = {}
    for split_seed, task in prepared.baselines():
        for split in SPLITS[1:]:
            if (split_seed, split) in done:
                continue
            asked = (task.manual_prompt, task.batch(split))
            if asked in measured:  # test sets are often the same for every split seed
                row = measured[asked].model_copy(update={"split_seed": split_seed, "cost": CostRow()})
            else:
                row = measure(oracle, task, Text(task.manual_prompt), NO_ROWS, split, split_seed, None)
                measured[asked] = row
            writer.write(row)
            progress.note(f"manual prompt, split {split_seed}: {split} {task.metric} {row.metric:.4f}")


def measure(
    oracle: LossOracle,
    task: Task,
    candidate: Candidate,
    spec: PromptSpec,
    split: Split,
    split_seed: int,
    trial_id: str | None,
) -> MeasureRow:
    """Score a candidate beside any budget; without a trial it is the manual prompt."""
    batch = task.batch(split)
    answer = oracle.evaluate(Request((candidate,), batch, spec))
    scores = scores_of(task, answer, batch)
    return MeasureRow(
        trial_id=trial_id,
        what="selected" if trial_id else "manual_prompt",
        split="dev" if split == "dev" else "test",
        split_seed=split_seed,
        loss=float(answer.losses[0]),
        metric=scores[task.metric],
        metrics=scores,
        cost=CostRow.of(answer.cost),
    )
