"""The rows of a study: one a cell, as CSV and as a table."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from distributed_tuner.storage.files import write_text

if TYPE_CHECKING:
    import pandas as pd

KEYS = ["task", "method", "shots", "split", "budget"]


@dataclass(frozen=True, slots=True)
class Row:
    """One cell: what one method had found on one draw of one task by the time that its budget was spent.

    queries, forwards, tokens: what it has spent of the budget; seconds: wall clock, of one thread. train_loss,
    score, dev_metric: of the prompt that was selected; score is the loss over train and dev by cross-validation.
    test_metric, test_label_words: its metric on test, read by its head and by the label words as they are.
    p_value: that its losses on dev are lower than the untuned prompt's, read by the same sort of head. returned: what
    a run would return by that test, and returned_metric its metric on test. members: prompts whose predictions are
    averaged; such a row has no losses, and is never tested. None is what does not exist.
    """

    task: str
    method: str
    shots: int
    split: int
    budget: int
    queries: int
    forwards: int
    tokens: int
    seconds: float | None
    train_loss: float | None
    score: float | None
    dev_metric: float | None
    test_metric: float | None
    test_label_words: float | None
    p_value: float | None
    returned: Literal["tuned", "manual"]
    returned_metric: float | None
    test_rows: int
    metric: str
    dtype: str
    members: int = 1


def frame_of(rows: Iterable[Row]) -> "pd.DataFrame":
    """Return the rows as a frame, in the order of what they are the cell of."""
    import pandas as pd

    frame = pd.DataFrame([asdict(row) for row in rows], columns=[field.name for field in fields(Row)])
    return frame.sort_values(KEYS, ignore_index=True)


def write_csv(frame: "pd.DataFrame", path: Path) -> None:
    """Write a frame as CSV, losses and metrics to five places."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, frame.to_csv(index=False, float_format="%.5f"))
