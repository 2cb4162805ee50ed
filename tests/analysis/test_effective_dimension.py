"""Charts, tables and sentences of the effective dimension: conclusions follow from the measured numbers."""

import numpy as np
import pytest

from distributed_tuner.analysis.effective_dimension import (
    QUICK,
    Run,
    Spot,
    dimension_of,
    findings,
    on_a_model,
    on_quadratics,
    step_sizes,
)
from distributed_tuner.analysis.landscape import Curvature
from distributed_tuner.maths.curvature import Mean, slowdown, step_size
from distributed_tuner.values import Cost

WHERE = "the loss of some-model on 16 examples of a task"


def spot(trace: float, norm: float, step: int | None = 0, error: float = 0.1, exact: bool = True) -> Spot:
    ritz = (0.1, norm) if exact else ()
    cost = Cost(queries=57)
    return Spot(f"step {step}", Curvature(1.5, 0.2 if exact else None, Mean(trace, error, 16), norm, ritz, cost), step)


def test_the_quadratics_confirm_the_factor_in_their_own_numbers() -> None:
    part = on_quadratics(QUICK, seed=0)
    (sentence,) = part.conclusion
    rows = part.tables[0].rows
    held = int(((rows["ratio"] > 1 / 3) & (rows["ratio"] < 3) & (rows["method"] == "ZO-GD")).sum())
    assert f"in {held} of {int((rows['method'] == 'ZO-GD').sum())} cases" in sentence
    assert [chart.name for chart in part.charts] == [f"quadratic_d{d}" for d in (10, 50, 100, 500)]
    assert all(len(curve.x) == QUICK.quadratic_steps + 1 for chart in part.charts for curve in chart.curves)


def test_maxima_over_points_make_the_dimension() -> None:
    spots = [spot(4.0, 0.5, 0), spot(6.0, 0.4, 8)]
    assert dimension_of(spots) == 12.0
    part = on_a_model(spots, [], 4608, WHERE, "one")
    assert part.conclusion[0] == (
        f"Over 2 point(s), {WHERE} has an effective dimension of 12, 384 times fewer than its 4608 coordinates."
    )
    assert f"{step_size(12, 1, 0.5):.3g} with n = 1" in part.conclusion[-1]
    assert [chart.name for chart in part.charts] == ["way"]


def test_doubts_and_negative_curvature_are_told() -> None:
    doubtful = on_a_model([spot(0.1, 0.5, 0, error=0.2), spot(-1.0, 0.5, 4)], [], 100, WHERE, "one").conclusion[0]
    assert "not told from zero by its standard error" in doubtful
    assert "At 1 of 2 points the trace is negative." in doubtful
    negative = on_a_model([spot(-1.0, 0.5)], [], 100, WHERE, "one")
    assert "an effective dimension of 0 of 100 coordinates" in negative.conclusion[0]


def test_losses_alone_give_bounds() -> None:
    part = on_a_model([spot(6.0, 2.0, None, exact=False)], [], 100, WHERE, "one")
    assert "of 3 or more (and at most 9 where no curvature is negative)" in part.conclusion[0]
    assert "upper bound" in part.conclusion[-1]
    assert part.charts == ()
    assert np.isnan(part.tables[0].rows["gradient norm"][0])


def test_descents_are_compared_at_the_same_progress() -> None:
    spots = [spot(5.0, 1.0)]
    gd = Run(0, 1.0, np.linspace(2.0, 1.0, 11))
    zo = Run(5, step_size(5.0, 5, 1.0), np.linspace(2.0, 1.6, 11))
    part = on_a_model(spots, [gd, zo], 50, WHERE, "one")
    table = part.tables[-1].rows
    assert table["slowdown"].tolist() == [1.0, slowdown(5.0, 5)]
    expected = 2.0 - 1.0 / slowdown(5.0, 5)
    assert table.iloc[1, -1] == pytest.approx(expected)
    assert f"ZO-GD with n = 5 by 0.4, where the theorem expects {2.0 - expected:.3g}" in part.conclusion[1]
    assert part.charts[-1].name == "descent"


def test_step_sizes_name_the_dimensions_own_number_of_probes_once() -> None:
    assert [row["n"] for row in step_sizes(8.2, 1.0)] == [1, 2, 4, 8, 16]
    assert [row["n"] for row in step_sizes(11.0, 1.0)] == [1, 2, 4, 8, 11, 16]
    assert [row["n"] for row in step_sizes(0.0, 1.0)] == [1, 2, 4, 8, 16]


def test_parts_become_one_page_in_order() -> None:
    part = on_a_model([spot(5.0, 1.0)], [], 50, WHERE, "one")
    found = findings([part, part], {"d": "50"})
    assert len(found.tables) == 2 * len(part.tables)
    assert found.conclusion[0] == part.conclusion[0]
