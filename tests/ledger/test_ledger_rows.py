import json
import math

import pytest
from pydantic import ValidationError

from distributed_tuner.ledger.rows import ROW, CostRow, MeasureRow, StepRow, TrialRow
from distributed_tuner.values import Cost


def step(**changes: object) -> StepRow:
    given = {"trial_id": "a", "stage": 0, "step": 1, "loss": 0.5, "best_loss": 0.4, "failed": 0, "elapsed": 1.0}
    return StepRow.model_validate({**given, "time": 10.0, "cost": CostRow(), "spent": CostRow(), **changes})


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_losses_that_are_not_finite_become_none_and_such_metrics_are_left_out(bad: float) -> None:
    row = step(loss=bad, best_loss=bad, metrics={"sigma": bad, "rate": 0.1})
    assert (row.loss, row.best_loss, row.metrics) == (None, None, {"rate": 0.1})
    assert "NaN" not in row.model_dump_json() and "Infinity" not in row.model_dump_json()


@pytest.mark.parametrize("field", ["elapsed", "time"])
def test_other_numbers_must_be_finite(field: str) -> None:
    with pytest.raises(ValidationError):
        step(**{field: math.nan})


def test_drawn_values_that_are_not_finite_stay_valid_json() -> None:
    row = TrialRow(trial_id="a", method="zot", seed=0, split_seed=0, drawn={"clip": math.inf})
    assert json.loads(row.model_dump_json(), parse_constant=pytest.fail)["drawn"] == {"clip": None}


def test_the_type_tells_rows_apart_and_they_return_as_they_were() -> None:
    rows = [
        step(),
        MeasureRow(what="manual_prompt", split="dev", split_seed=0, loss=None, metric=0.5, cost=CostRow(queries=1)),
    ]
    for row in rows:
        assert ROW.validate_json(row.model_dump_json()) == row


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(ValidationError, match="colour"):
        step(colour="red")


def test_costs_keep_their_value() -> None:
    cost = Cost(1, 2, 3, 0.5, 0.25)
    assert CostRow.of(cost).value() == cost
    generated = Cost(1, 2, 3, 0.5, 0.25, 2)
    assert CostRow.of(generated).value() == generated


def test_generated_tokens_are_written_where_there_are_any() -> None:
    assert "output_tokens" not in CostRow.of(Cost(1, 2, 3)).model_dump_json()
    written = CostRow.of(Cost(1, 2, 3, output_tokens=2)).model_dump_json()
    assert CostRow.model_validate_json(written).output_tokens == 2


def test_rows_are_stamped_with_the_time() -> None:
    assert TrialRow(trial_id="a", method="zot", seed=0, split_seed=0, drawn={}).time > 1_700_000_000
