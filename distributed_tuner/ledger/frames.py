"""A ledger as pandas frames, for notebooks. The report does without them, so pandas is imported only here, inside."""

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from pydantic import BaseModel

from distributed_tuner.ledger.reader import Ledger
from distributed_tuner.ledger.rows import RestartRow, ScoredText

if TYPE_CHECKING:
    import pandas as pd

_TABLES = (
    *("trials", "steps", "evaluations", "feedbacks", "exchanges", "restarts"),
    *(
        "surveys",
        "screens",
        "ensembles",
        "stages",
        "measures",
        "calibrations",
        "parities",
        "layouts",
        "curvatures",
        "events",
        "trial_ends",
    ),
)
_ELSEWHERE = {"feedbacks": {"texts"}, "restarts": {"scored"}}
"""Lists of scored texts, which have a frame of their own."""
_TEXT_COLUMNS = ("trial_id", "stage", "source", "text", "loss", "metric", "adopted")


def frames(ledger: Ledger) -> "dict[str, pd.DataFrame]":
    """Return one frame per table of the ledger; nested values become columns such as ``spent.queries``.

    ``runs`` and ``run_ends`` hold a line per session. Drawn values stay one column, as dicts, and so do the texts found
    in an exchange's answer, as lists. ``texts`` holds a line for every prompt in words that was scored: those of
    ``feedbacks`` (source "trajectory"), then those of ``restarts`` ("proposal", and "source_trial", whose text is
    empty), with the columns trial_id, stage, source, text, loss, metric and adopted. The incumbent's loss stays in
    ``restarts``.
    """
    tables: dict[str, Sequence[BaseModel]] = {name: getattr(ledger, name) for name in _TABLES}
    tables["runs"] = [session.run for session in ledger.sessions if session.run]
    tables["run_ends"] = [session.end for session in ledger.sessions if session.end]
    made = {name: _frame(rows, _ELSEWHERE.get(name, ())) for name, rows in tables.items()}
    return {**made, "texts": _texts(ledger)}


def _texts(ledger: Ledger) -> "pd.DataFrame":
    import pandas as pd

    return pd.DataFrame(list(_text_lines(ledger)), columns=list(_TEXT_COLUMNS))


def _text_lines(ledger: Ledger) -> Iterator[dict[str, object]]:
    for feedback in ledger.feedbacks:
        for text in feedback.texts:
            yield {"trial_id": feedback.trial_id, "stage": feedback.stage, **text.model_dump(), "adopted": False}
    for restart in ledger.restarts:
        for text in restart.scored:
            yield {
                "trial_id": restart.trial_id,
                "stage": restart.stage,
                **text.model_dump(),
                "adopted": _is_adopted(text, restart),
            }


def _is_adopted(text: ScoredText, restart: RestartRow) -> bool:
    return text.source == restart.adopted and text.text == restart.text


def _frame(rows: Sequence[BaseModel], elsewhere: Collection[str]) -> "pd.DataFrame":
    import pandas as pd

    return pd.DataFrame([_flat(row, elsewhere) for row in rows])


def _flat(row: BaseModel, elsewhere: Collection[str]) -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in row.model_dump(exclude=set(elsewhere)).items():
        if isinstance(value, dict) and name != "drawn":
            flat.update({f"{name}.{key}": inner for key, inner in value.items()})
        else:
            flat[name] = value
    return flat
