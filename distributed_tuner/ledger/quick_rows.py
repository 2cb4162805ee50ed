"""Rows of a ledger that are nearly all of it, steps and evaluations, parsed by msgspec: several times as fast as `ROW`.

The same fields within the same bounds. What does not fit is left to `ROW`, which knows what may be mended, and says
what is wrong with the rest.
"""

from typing import Annotated, TypeAlias

import msgspec

from distributed_tuner.ledger.rows import CostRow, EvalRow, Row, StepRow
from distributed_tuner.ledger.rows.fields import LARGEST

_Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=10**15)]
_Seconds: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=1e15)]
_Moment: TypeAlias = Annotated[float, msgspec.Meta(ge=0, lt=253_402_300_800)]
_Finite: TypeAlias = Annotated[float, msgspec.Meta(ge=-LARGEST, le=LARGEST)]
_Score: TypeAlias = _Finite | None


class QuickCost(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """A cost, as in `CostRow`."""

    queries: _Count = 0
    forwards: _Count = 0
    tokens: _Count = 0
    seconds: _Seconds = 0.0
    usd: _Seconds = 0.0
    output_tokens: _Count = 0

    @property
    def row(self) -> CostRow:
        """The cost as a row holds it."""
        return CostRow.model_construct(
            queries=self.queries,
            forwards=self.forwards,
            tokens=self.tokens,
            seconds=self.seconds,
            usd=self.usd,
            output_tokens=self.output_tokens,
        )


class QuickMetrics(msgspec.Struct, frozen=True, gc=False):
    """What racing saved, of the metrics in `StepRow`; None where there was none. The others are not read."""

    queries_saved: _Score = None
    forwards_saved: _Score = None

    @property
    def saved(self) -> tuple[bool, float, float]:
        """Whether candidates were raced, and the queries and forwards that it saved."""
        raced = self.queries_saved is not None or self.forwards_saved is not None
        return raced, self.queries_saved or 0.0, self.forwards_saved or 0.0


class QuickStep(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True, tag_field="type", tag="step"):
    """A step, as in `StepRow`."""

    time: _Moment
    trial_id: str
    stage: _Count
    step: _Count
    loss: _Score
    best_loss: _Score
    failed: _Count
    cost: QuickCost
    spent: QuickCost
    elapsed: _Seconds
    metrics: QuickMetrics = QuickMetrics()


class QuickEval(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True, tag_field="type", tag="evaluation"):
    """An evaluation, as in `EvalRow`."""

    time: _Moment
    trial_id: str
    stage: _Count
    step: _Count
    train_loss: _Score
    dev_loss: _Score
    dev_metric: _Score
    selected: bool
    cost: QuickCost
    spent: QuickCost
    elapsed: _Seconds
    dev_metrics: dict[str, _Finite] = {}
    score: _Score = None
    losses: list[_Score] = []
    screen: bool = False
    text: str | None = None


Step: TypeAlias = StepRow | QuickStep
Eval: TypeAlias = EvalRow | QuickEval
AnyRow: TypeAlias = Row | QuickStep | QuickEval

QUICK: msgspec.json.Decoder[QuickStep | QuickEval] = msgspec.json.Decoder(QuickStep | QuickEval)
"""Reads one line: ``QUICK.decode(line)``; raises msgspec.MsgspecError for rows of other kinds, and where a rule is
broken."""
