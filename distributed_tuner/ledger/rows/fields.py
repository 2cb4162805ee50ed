"""Types of the fields of rows: numbers that JSON can hold, counts, costs; and the base class of rows.

NaN and infinity never enter the JSON: a loss or metric that is not finite, or so large that sums of it are not, is
``None``, a named metric of that kind is left out, and any other number of that kind is refused. Whole numbers stay so
small that a double holds them.
"""

import time
from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from distributed_tuner.values import Cost

LARGEST = 1e100
"""Of a loss: what diverged is far beyond, and millions of these can be added up."""


def _is_finite(value: Any) -> bool:
    return not isinstance(value, int | float) or abs(value) <= LARGEST


def _none_if_not_finite(value: Any) -> Any:
    return value if _is_finite(value) else None


def _finite_items(value: Any) -> Any:
    return {name: one for name, one in value.items() if _is_finite(one)} if isinstance(value, dict) else value


def _finite_tree(value: Any) -> Any:
    match value:
        case dict():
            return {name: _finite_tree(one) for name, one in value.items()}
        case list() | tuple():
            return [_finite_tree(one) for one in value]
    return _none_if_not_finite(value)


# What is finite, which is nearly everything, is taken by the first member of each union, without a call of Python.
_InOrder = Field(union_mode="left_to_right")
_Finite: TypeAlias = Annotated[float, Field(ge=-LARGEST, le=LARGEST)]
_FiniteOrNone: TypeAlias = Annotated[float | None, BeforeValidator(_none_if_not_finite)]
_FiniteItems: TypeAlias = Annotated[dict[str, _Finite], BeforeValidator(_finite_items)]
Score: TypeAlias = Annotated[_Finite | _FiniteOrNone, _InOrder]
Metrics: TypeAlias = Annotated[dict[str, _Finite] | _FiniteItems, _InOrder]
Tree: TypeAlias = Annotated[dict[str, Any], BeforeValidator(_finite_tree)]
Count: TypeAlias = Annotated[int, Field(ge=0, le=10**15)]
Seconds: TypeAlias = Annotated[float, Field(ge=0, le=1e15)]
Seed: TypeAlias = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Moment: TypeAlias = Annotated[float, Field(ge=0, lt=253_402_300_800)]
"""Unix seconds, before the year 10000."""


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True, allow_inf_nan=False)


class CostRow(Frozen):
    """Cost. ``seconds`` are device seconds, summed over tiles; a query is one candidate on one batch.

    ``output_tokens`` of the tokens were generated; left out where none were.
    """

    queries: Count = 0
    forwards: Count = 0
    tokens: Count = 0
    seconds: Seconds = 0.0
    usd: Seconds = 0.0
    output_tokens: Count = Field(0, exclude_if=lambda count: count == 0)

    @classmethod
    def of(cls, cost: Cost) -> "CostRow":
        """Return ``cost`` as it is written down."""
        return cls(
            queries=cost.queries,
            forwards=cost.forwards,
            tokens=cost.tokens,
            seconds=cost.seconds,
            usd=cost.usd,
            output_tokens=cost.output_tokens,
        )

    def value(self) -> Cost:
        """Return the cost as the value that can be added up."""
        return Cost(self.queries, self.forwards, self.tokens, self.seconds, self.usd, self.output_tokens)


class TypedRow(Frozen):
    time: Moment = Field(default_factory=time.time)
    """Time of the row, in unix seconds."""
