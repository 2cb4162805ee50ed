"""The conclusion follows from the numbers: made-up contests that a Trainable Optimizer wins, loses and draws."""

from typing import Any

import numpy as np
import pytest

from benchmarks.reproductions.trainable_optimizer.conclusions import conclude
from benchmarks.reproductions.trainable_optimizer.methods import VARIANTS
from benchmarks.reproductions.trainable_optimizer.ranking import Standing, against, compare_pair, comparisons
from distributed_tuner.seeds import generator
from distributed_tuner.values import Array64

NAMES = ("sgd", "momentum", "adam", "a_off", *VARIANTS)


def losses(mean: float, name: str = "") -> Array64:
    return mean + 0.02 * generator((name,)).standard_normal(8)


def made(levels: dict[str, float], title: str = "P", **more: Any) -> Standing:
    """Return a standing whose methods end at a loss of 1, others in ``levels``; all errors are 1, SGD's 8."""
    ends = {name: losses(levels.get(name, 1.0), name) for name in NAMES if levels.get(name, 1.0) >= 0}
    errors = {name: np.full(8, 8.0 if name == "sgd" else 1.0) for name in ends}
    return Standing(title, ends, errors, **more)


def ablation(errors: tuple[float, float, float, float], ends: tuple[float, float, float, float] = (1, 1, 1, 1)) -> Any:
    """Return the cells: trained and decaying, trained and constant, off and decaying, off and constant."""
    cells = ((True, True), (True, False), (False, True), (False, False))
    made_up = zip(cells, ends, errors, strict=True)
    return {"ablation": {cell: (np.full(8, end), np.full(8, error)) for cell, end, error in made_up}}


def test_a_pair_is_compared_run_by_run() -> None:
    base = np.array([1.0, 2.0, 3.0, 4.0])
    shifted = base - np.array([0.1, 0.11, 0.09, 0.1])
    assert compare_pair(shifted, base).outcome == "better"  # the runs' spread is far larger than the difference
    assert compare_pair(base, shifted).outcome == "worse"
    assert compare_pair(shifted, base).change == pytest.approx(-0.04)
    assert compare_pair(shifted, base, level=1e-9).outcome == "tie"
    assert compare_pair(base[::-1], base).outcome == "tie"


def test_equal_runs_are_a_tie_and_equal_differences_are_none() -> None:
    base = np.array([1.0, 2.0])
    assert (compare_pair(base, base).outcome, compare_pair(base, base).p) == ("tie", 1.0)
    assert compare_pair(base - 0.5, base).outcome == "better"
    assert compare_pair(base[:1] - 0.5, base[:1]).outcome == "tie"  # one run tells nothing


def test_who_diverges_less_is_better() -> None:
    base, lost = np.array([1.0, 2.0]), np.array([0.1, np.nan])
    assert compare_pair(lost, base).outcome == "worse"
    assert compare_pair(base, lost).outcome == "better"
    assert compare_pair(lost, np.array([np.inf, 0.0])).outcome == "tie"


def test_the_level_is_shared_among_variants() -> None:
    first, second = losses(1.0, "a"), losses(1.0, "b")
    p = compare_pair(first, second).p
    alone = Standing("P", {"a_off": second, "diagonal": first}, {})
    assert comparisons(alone, "a_off")["diagonal"].p == p
    assert set(comparisons(made({}), "a_off")) == set(VARIANTS)
    assert set(comparisons(made({"full": -1}), "a_off")) == {"diagonal", "rank_one"}


def test_one_variant_wins_for_all_and_only_all_lose() -> None:
    assert against(made({"diagonal": 0.5}), "a_off") == "better"
    assert against(made({"diagonal": 2.0}), "a_off") == "tie"
    assert against(made(dict.fromkeys(VARIANTS, 2.0)), "a_off") == "worse"
    assert against(made({"full": -1, "diagonal": 2.0, "rank_one": 2.0}), "a_off") == "worse"


def test_where_it_wins_it_says_so() -> None:
    said = conclude([made({"full": 0.5}, "First"), made({"full": 0.5, "diagonal": 0.5}, "Second"), made({}, "Third")])
    assert said[0].startswith("Training A helped on most problems")
    assert "on 2 of 3 problems (no single one on more than 2), and every variant with a higher one on 0." in said[0]
    assert any(
        "the A-off control it is significantly better with some variant on 2 of 3 (First; Second)" in s for s in said
    )
    assert any(s.startswith("The full variant against the A-off control: better on 2, worse on 0") for s in said)


def test_where_it_wins_little_it_says_so() -> None:
    said = conclude([made({"full": 0.5}), made({"diagonal": 0.5}), made({})])
    assert said[0].startswith("Training A helped on some problems, but no variant on most")
    assert "on 2 of 3 problems (no single one on more than 1)" in said[0]


def test_where_it_loses_it_says_so() -> None:
    bad = dict.fromkeys(VARIANTS, 2.0)
    said = conclude([made(bad, "First"), made(bad, "Second"), made({}, "Third")])
    assert said[0].startswith("Training A did not help: it did harm")
    assert "every variant with a higher one on 2." in said[0]
    assert any("tuned momentum" in s and "worse with every variant on 2 of 3 (First; Second)" in s for s in said)


def test_where_nothing_differs_it_says_so() -> None:
    said = conclude([made({}), made({})])
    assert said[0].startswith("Training A did not help: some variant")
    assert "on 0 of 2 problems" in said[0]
    assert all("better with some variant on 0 of 2, worse with every variant on 0 of 2" in s for s in said[1:5])


def test_it_beats_adam_and_not_its_control() -> None:
    said = conclude([made({"adam": 3.0}, "First")])
    assert said[0].startswith("Training A did not help")
    assert any(
        s.startswith("Against Adam it is significantly better with some variant on 1 of 1 (First)") for s in said
    )


def test_errors_are_told_next_to_sgds() -> None:
    assert any("divided by 8 with A off, 8 with the full variant" in s for s in conclude([made({})]))


@pytest.mark.parametrize(
    ("errors", "cause"),
    [
        ((0.1, 1.0, 0.1, 1.0), "What lowers the error is the decaying rates, not A."),
        ((0.1, 0.1, 1.0, 1.0), "What lowers the error is A, not the decaying rates."),
        ((0.01, 0.5, 0.2, 1.0), "Both lower the error, the decaying rates more."),
        ((1.0, 1.0, 1.0, 1.0), "Neither lowers the error clearly"),
        ((2.0, 1.0, 2.0, 1.0), "Neither lowers the error clearly"),
    ],
)
def test_the_cause_is_what_was_switched(errors: Any, cause: str) -> None:
    assert any(cause in s for s in conclude([made({}, **ablation(errors)), made({})]))


def test_a_smaller_error_is_not_yet_a_lower_loss() -> None:
    calm = (0.1, 1.0, 0.1, 1.0)
    lower, higher = (conclude([made({}, **ablation(calm, ends))]) for ends in ((1, 2, 1, 2), (2, 1, 2, 1)))
    assert any(
        "by 0.5 (a lower loss came with the smaller error) for the decaying rates and by 1 for A" in s for s in lower
    )
    assert any(
        "by 2 (no lower loss came with the smaller error) for the decaying rates and by 1 for A" in s for s in higher
    )


def test_problems_tuned_with_decaying_and_with_constant_rates_are_told_apart() -> None:
    calm, wild = ablation((0.1, 1.0, 0.1, 1.0)), ablation((3.0, 1.0, 3.0, 1.0))
    said = conclude([made({}, **calm), made({}, decaying=False, **wild)])
    assert any("tuned with decaying rates (1)" in s and "multiply the error by 0.1," in s for s in said)
    assert any("tuned with constant rates (1)" in s and "multiply the error by 3," in s for s in said)


def test_without_an_ablation_no_cause_is_named() -> None:
    assert not any("switched one at a time" in s for s in conclude([made({})]))


def test_step_sizes_at_the_end_of_the_grid_are_told() -> None:
    assert conclude([made({})])[-1] == "None of the 7 chosen step sizes lies at an end of those that were tried."
    assert conclude([made({}, "First", edges=["Adam"])])[-1].endswith("so that more might be had: Adam (First).")


def test_losses_of_0_and_runs_that_diverged_make_no_nonsense() -> None:
    ends = {name: np.zeros(3) for name in NAMES} | {"adam": np.full(3, np.nan)}
    said = conclude([Standing("P", ends, {name: np.full(3, np.nan) for name in NAMES})])
    assert not any("nan" in s or "inf" in s for s in said)
