import math
from typing import Any

import pytest

from distributed_tuner.report import formatting
from distributed_tuner.report.curves import Series, band, running_best
from distributed_tuner.report.significance import binomial_error, nothing_learnt, sentence, weigh
from distributed_tuner.runs.recorded_config import Recorded


def test_a_band_holds_values_like_a_staircase_and_starts_where_all_have_begun() -> None:
    one = band([Series((0, 10, 20), (1.0, 0.5, 0.25)), Series((5, 15), (0.9, 0.7))])
    assert one is not None
    assert one.x == (5, 10, 15, 20)
    assert one.low == (0.9, 0.5, 0.5, 0.25)
    assert one.high == (1.0, 0.9, 0.7, 0.7)
    assert one.mean == pytest.approx((0.95, 0.7, 0.6, 0.475))


def test_a_failed_trial_leaves_the_mean_where_it_ends_and_others_keep_their_last_value() -> None:
    whole = Series((0, 10), (1.0, 0.0))
    failed = band([whole, Series((0,), (0.5,), keeps=False)])
    ended = band([whole, Series((0,), (0.5,))])
    assert failed is not None and ended is not None
    assert (failed.mean, ended.mean) == ((0.75, 0.0), (0.75, 0.25))
    assert failed.trials == 2


def test_a_trial_that_failed_before_another_began_makes_no_hole() -> None:
    one = band([Series((5, 6), (1.0, 2.0)), Series((0, 1), (9.0, 9.0), keeps=False)])
    assert one is not None and (one.x, one.mean) == ((5, 6), (1.0, 2.0))


def test_long_curves_are_thinned_but_keep_their_ends() -> None:
    places = tuple(float(place) for place in range(5000))
    one = band([Series(places, places)], points=100)
    assert one is not None
    assert len(one.x) == 100 and (one.x[0], one.x[-1]) == (0.0, 4999.0) and one.mean == one.x


def test_nothing_has_no_band() -> None:
    assert band([]) is None and band([Series((), ())]) is None


def test_running_best() -> None:
    assert running_best((0.5, 0.4, 0.6, 0.1)) == (0.5, 0.5, 0.6, 0.6) and running_best(()) == ()


def summary(tuned: float | None, manual: float | None, metric: str = "accuracy") -> dict[str, object]:
    manual_prompt = {"dev_metric": None, "test_metric": manual}
    return {"best": {"test_metric": tuned, "metric": metric}, "baseline": {"manual_prompt": manual_prompt}}


def test_the_error_of_a_difference_of_shares() -> None:
    assert binomial_error(0.5, 0.5, 200) == pytest.approx(0.05)
    assert binomial_error(1.0, 0.8, 100) == pytest.approx(0.04)


@pytest.mark.parametrize(
    ("tuned", "manual", "outcome", "said"),
    [
        (0.90, 0.70, "better", "20.0 points above the manual prompt on 200 test examples: more than two"),
        (0.57, 0.50, "better", "one to two errors"),
        (0.54, 0.50, "tie", "not shown to beat the manual prompt"),
        (0.46, 0.50, "tie", "4.0 points on 200 test examples do not go beyond one standard error"),
        (0.50, 0.50, "tie", "no difference"),
        (0.40, 0.50, "worse", "does not beat the manual prompt: it is 10.0 points below on 200 test examples"),
        (None, 0.50, "unmeasured", "nothing is claimed"),
        (0.50, None, "unmeasured", "nothing is claimed"),
    ],
)
def test_the_verdict_weighs_the_size_of_the_test_set(tuned: float, manual: float, outcome: str, said: str) -> None:
    verdict = weigh(summary(tuned, manual), Recorded.of({"task": {"test": 200}}))
    assert verdict.outcome == outcome
    assert said in sentence(verdict, formatting.MetricWords("accuracy"))


def searched(*tied: float | None, best: str | None = "zot-0", failed: int = 0) -> dict[str, Any]:
    trials = [{"queries": 8, "status": "done", "tied_loss": loss} for loss in tied]
    return {"trials": trials, "best": {"trial_id": best}, "totals": {"failed_candidates": failed}}


def test_searches_that_met_nothing_to_go_by_are_told() -> None:
    assert "every prompt that it scored had the same loss (0.6931)" in nothing_learnt(searched(0.69314, 0.69314))
    assert "(0.6931 or 0.5000)" in nothing_learnt(searched(0.69314, 0.5))
    assert nothing_learnt(searched(0.69314, None)) == "", "one of them did"
    assert "12 candidates had no finite loss" in nothing_learnt(searched(None, best=None, failed=12))
    assert nothing_learnt(searched(None, failed=12)) == ""
    assert nothing_learnt(searched()) == "", "nothing was searched"


def test_the_verdict_claims_no_error_it_does_not_know() -> None:
    other = weigh(summary(0.6, 0.5, "mcc"), Recorded.of({"task": {"test": 200}}))
    unsized = weigh(summary(0.6, 0.5), Recorded())
    assert other.error is None and unsized.error is None
    assert "No standard error is known for mcc" in sentence(other, formatting.MetricWords("mcc"))
    assert "size of the test set is unknown" in sentence(unsized, formatting.MetricWords("accuracy"))


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(None, "—"), (0.25, "0.25 s"), (4.04, "4.0 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_durations(seconds: float | None, said: str) -> None:
    assert formatting.duration(seconds) == said


@pytest.mark.parametrize(
    ("value", "said"), [(0, "0"), (999, "999"), (1998, "2 k"), (16210, "16.2 k"), (999_800, "1 M"), (20.48e6, "20.5 M")]
)
def test_short_counts(value: float, said: str) -> None:
    assert formatting.short_count(value) == said


@pytest.mark.parametrize(("usd", "said"), [(0, "$0"), (0.00418, "$0.0042"), (12.3, "$12.30"), (None, "—")])
def test_money(usd: float | None, said: str) -> None:
    assert formatting.money(usd) == said


def test_metrics_are_percent_where_they_are_shares() -> None:
    assert formatting.MetricWords("accuracy").bare(0.8842, 0.012) == "88.4 ± 1.2"
    assert formatting.MetricWords("mcc").value(0.51234) == "0.512"
    assert math.isclose(formatting.MetricWords("f1").scale, 100)
