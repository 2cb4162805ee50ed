"""The arithmetic of the loss oracle's table, on timings that are made up."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from benchmarks.rows import GIB, Block, Case, Measured, Row, Timing, table
from benchmarks.targets import HEADLINE, LONG_TEXTS, verdicts
from benchmarks.worker import Facts
from distributed_tuner.values import Array

BLOCK = HEADLINE.block
FACTS = Facts(
    trunk=1_000_000, lengths={"prefix": (10, 20, 30), "suffix": (11, 21, 31), "add": (10, 20, 30)}, cues=(2, 2, 3)
)
PLAIN = HEADLINE.plain
SUFFIX = replace(HEADLINE, method="suffix", layout="suffix")


def losses(*means: float) -> Array:
    return np.array([[mean] * 3 for mean in means], dtype=np.float32)


def timing(*seconds: float, asked: int = 1, peak: int = GIB, found: Array | None = None) -> Timing:
    return Timing(seconds, asked, losses(1.0) if found is None else found, peak)


def measured(timings: dict[Case, Timing], **more: Any) -> Measured:
    settings: dict[str, Any] = {"rates": {(BLOCK, "bfloat16"): [1e9, 3e9, 2e9]}, "checks": {}, "noise": {}} | more
    return Measured(timings=timings, facts={case.block: FACTS for case in timings}, **settings)


def row_of(case: Case, timings: dict[Case, Timing], **more: Any) -> Row:
    (row,) = [r for r in table(measured(timings, **more), [20]) if (r.method, r.dtype) == (case.method, case.dtype)]
    return row


@pytest.mark.parametrize(
    ("case", "computed", "useful"),
    [
        (PLAIN, 3 * (50 + 30), 3 * 50 + 60),  # padded to the longest; padding is not useful
        (SUFFIX.plain, 3 * (50 + 31), 3 * 50 + 63),
        (HEADLINE, 50 + 60, 50 + 60),  # the prompt once a candidate
        (replace(HEADLINE, method="add", layout="add"), 50 + 60, 50 + 60),
        (SUFFIX, 3 * 50 + 7, 3 * 50 + 7),  # the texts not at all
    ],
)
def test_tokens_and_the_share_of_the_matrix_product(case: Case, computed: int, useful: int) -> None:
    row = row_of(case, {case: timing(0.3, 0.1, 0.2)})
    assert (row.seconds_per_query, row.samples) == (0.2, 3)
    assert row.tokens_per_query == computed
    assert row.useful_gflops == pytest.approx(2 * 1e6 * useful / 0.2 / 1e9)
    assert row.share_of_matmul == pytest.approx(row.useful_gflops / 2)  # the median of the rates


def test_ratios_are_to_the_plain_way_with_the_prompt_in_the_same_place() -> None:
    in_front = {PLAIN: timing(4.0), PLAIN.in_float32: timing(12.0)}
    behind = {SUFFIX.plain: timing(5.0), SUFFIX.plain.in_float32: timing(15.0)}
    rows = table(measured(in_front | behind | {HEADLINE: timing(0.5), SUFFIX: timing(1.0)}), [2, 20])
    ratios = {r.method: (r.times_plain, r.times_plain_float32) for r in rows if r.method != "plain"}
    assert ratios == {"prefix": (8.0, 24.0), "suffix": (5.0, 15.0)}
    plain = [r for r in rows if r.method == "plain" and r.dtype == "bfloat16" and r.layout == "prefix"]
    assert [(r.candidates, r.times_plain, r.times_plain_float32) for r in plain] == [(2, 1.0, 3.0), (20, 1.0, 3.0)]


def test_what_was_not_measured_has_no_ratio() -> None:
    row = row_of(HEADLINE, {HEADLINE: timing(0.5)}, rates={})
    assert (row.times_plain, row.times_plain_float32, row.share_of_matmul, row.difference) == (None, None, None, None)


def test_float32_is_compared_with_its_plain_form_where_both_are_there() -> None:
    exact = HEADLINE.in_float32
    found = losses(1.0, 2.0)
    found[0, 1] += 0.25
    checks = {(BLOCK, "prefix", "float32"): losses(1.0)[:, :2]}  # one candidate, two examples
    assert row_of(exact, {exact: timing(1.0, found=found)}, checks=checks).difference == 0.25
    found[0, 0] = np.nan
    assert np.isnan(row_of(exact, {exact: timing(1.0, found=found)}, checks=checks).difference)


def test_bfloat16_is_compared_with_its_plain_form_by_candidate() -> None:
    timings = {HEADLINE: timing(1.0, found=losses(1.0, 2.5, 9.0))}
    checks = {(BLOCK, "prefix", "float32"): losses(7.0), (BLOCK, "prefix", "bfloat16"): losses(1.0, 2.0)}
    row = row_of(HEADLINE, timings, checks=checks, noise={(BLOCK, "prefix"): 0.1})
    assert (row.difference, row.noise, row.within_noise) == (pytest.approx(0.5 / 2**0.5), 0.1, False)
    assert row_of(HEADLINE, timings, checks=checks, noise={(BLOCK, "prefix"): 0.12}).within_noise is True
    assert row_of(HEADLINE, timings, checks=checks).within_noise is None
    assert row_of(HEADLINE, timings, noise={(BLOCK, "prefix"): 0.1}).within_noise is None


def good_run() -> dict[Case, Timing]:
    return {
        HEADLINE: timing(0.1, asked=20, peak=2 * GIB),
        PLAIN: timing(0.8, peak=4 * GIB),
        PLAIN.in_float32: timing(1.6),
        HEADLINE.in_float32: timing(0.2, asked=4, peak=3 * GIB),
        LONG_TEXTS: timing(0.1, asked=20),
        LONG_TEXTS.plain: timing(0.5),
    }


def test_every_target_has_a_verdict_and_a_miss_is_shown() -> None:
    checks = {(BLOCK, "prefix", "float32"): losses(1.00005)}
    said = [str(verdict) for verdict in verdicts(table(measured(good_run(), checks=checks), [2, 20]))]
    words = ["met", "met", "met", "met", "MISSED", "not measured", "met", "not measured", "met"]
    assert [line.split("  ")[0] for line in said] == words
    assert said[0].endswith("queries/s over plain bfloat16 >= 5.0x: 8.0x")
    assert said[4].endswith(">= 10.0x: 5.0x")
    assert said[8].endswith("2.00 GiB at most in 2 rows")  # neither the plain way nor what asked for fewer


def test_losses_that_are_not_the_plain_forms_are_a_miss() -> None:
    for wrong in (1.001, np.nan):
        rows = table(measured(good_run(), checks={(BLOCK, "prefix", "float32"): losses(wrong)}), [2, 20])
        assert [verdict.met for verdict in verdicts(rows) if "float32 losses of" in verdict.target] == [False]


def test_nothing_measured_is_no_verdict() -> None:
    assert {verdict.met for verdict in verdicts([])} == {None}


def test_memory_and_noise_are_missed_by_one_row() -> None:
    run = good_run() | {HEADLINE: timing(0.1, asked=20, peak=3 * GIB, found=losses(1.5))}
    checks = {(BLOCK, "prefix", "bfloat16"): losses(1.0)}
    rows = table(measured(run, checks=checks, noise={(BLOCK, "prefix"): 0.1}), [2, 20])
    said = {str(verdict).split(":")[0]: str(verdict) for verdict in verdicts(rows)[-2:]}
    assert [line.split()[0] for line in said.values()] == ["MISSED", "MISSED"]


def test_blocks_of_other_texts_stay_apart() -> None:
    other = replace(HEADLINE, block=Block("150 tokens", 50))
    rows = table(measured({HEADLINE: timing(1.0), other.plain: timing(5.0)}), [20])
    assert [row.times_plain for row in rows if row.method == "prefix"] == [None]
