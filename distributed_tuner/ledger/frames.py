"""A ledger as pandas frames, for notebooks. The report does without them, so pandas is imported only here, inside."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import BaseModel

from distributed_tuner.ledger.reader import Ledger

if TYPE_CHECKING:
    import pandas as pd

_TABLES = (
    *("trials", "steps", "looks", "feedbacks", "exchanges", "restarts"),
    *("measures", "calibrations", "events", "trial_ends"),
)


def frames(ledger: Ledger) -> "dict[str, pd.DataFrame]":
    """Return one frame per table of the ledger; nested values become columns such as ``spent.queries``.

    ``runs`` and ``run_ends`` hold a line per session. Drawn values stay one column, as dicts.
    """
    tables: dict[str, Sequence[BaseModel]] = {name: getattr(ledger, name) for name in _TABLES}
    tables["runs"] = [session.run for session in ledger.sessions if session.run]
    tables["run_ends"] = [session.end for session in ledger.sessions if session.end]
    return {name: _frame(rows) for name, rows in tables.items()}


def _frame(rows: Sequence[BaseModel]) -> "pd.DataFrame":
    import pandas as pd

    return pd.DataFrame([_flat(row) for row in rows])


def _flat(row: BaseModel) -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in row.model_dump().items():
        if isinstance(value, dict) and name != "drawn":
            flat.update({f"{name}.{key}": inner for key, inner in value.items()})
        else:
            flat[name] = value
    return flat
