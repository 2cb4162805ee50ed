"""Digests of ledgers: the same sums as row by row, in bounded memory, and while the ledger grows."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from distributed_tuner.errors import LedgerError
from distributed_tuner.ledger import (
    CostRow,
    Digest,
    EvalRow,
    EventRow,
    ExchangeRow,
    Follower,
    LedgerWriter,
    Row,
    RunRow,
    StepRow,
    TrialRow,
    digest,
    read,
)
from distributed_tuner.ledger.curve import MOST, Curve
from distributed_tuner.ledger.digest import EVENTS, TALKS


def step(number: int, loss: float = 0.5, failed: int = 0, trial: str = "a", stage: int = 0) -> StepRow:
    accounting = {"cost": CostRow(queries=2), "spent": CostRow(queries=2 * number), "elapsed": float(number)}
    return StepRow(
        time=float(number),
        trial_id=trial,
        stage=stage,
        step=number,
        loss=loss,
        best_loss=loss,
        failed=failed,
        **accounting,
    )


def evaluation(number: int, loss: float, selected: bool, trial: str = "a") -> EvalRow:
    accounting = {"cost": CostRow(), "spent": CostRow(queries=2 * number), "elapsed": float(number)}
    scores = {"train_loss": loss, "dev_loss": loss, "dev_metric": 1 - loss, "losses": [loss, None]}
    return EvalRow.model_validate(
        {"trial_id": trial, "stage": 0, "step": number, "selected": selected, **scores, **accounting}
    )


def begun(trial: str = "a") -> TrialRow:
    return TrialRow(time=1.0, trial_id=trial, method="zot", seed=0, split_seed=0, drawn={})


# ------------------------------------------------------------------------------------------------------------- curves
def test_a_curve_is_its_rows_while_they_are_few() -> None:
    curve = Curve(last=("queries",), total=("failed",), best=("metric",))
    for number in (3, 1, 2):
        curve.add((0, number, 1, 2 * number, 1, 0.1 * number))
    assert curve["queries"].tolist() == [2, 4, 6]
    assert curve.columns("failed", "metric").tolist() == [[1, 0.1], [1, 0.2], [1, pytest.approx(0.3)]]


def test_a_row_that_is_written_again_counts_once_in_its_latest_version() -> None:
    trial = Digest([begun(), step(1, failed=1), step(2, failed=1), step(3), step(2, loss=0.25, failed=5)]).trials["a"]
    assert trial.steps["loss"].tolist() == [0.5, 0.25, 0.5]
    assert trial.steps["failed"].sum() == 6
    assert trial.spent.queries == 6


@pytest.mark.parametrize("rows", [MOST, 10 * MOST + 17])
def test_a_curve_of_many_rows_stays_small_and_loses_no_sum(rows: int) -> None:
    curve = Curve(last=("queries",), total=("loss", "failed"), best=("metric",))
    losses = np.sin(np.arange(rows))
    for number, loss in enumerate(losses):
        curve.add((number // 1000, number, 1, 2.0 * number, loss, number % 3, math.nan if number % 2 else loss))
    assert len(curve["queries"]) < MOST
    assert curve["rows"].sum() == rows
    assert curve["loss"].sum() == pytest.approx(losses.sum(), abs=1e-9)
    assert curve["failed"].sum() == sum(number % 3 for number in range(rows))
    assert np.nanmax(curve["metric"]) == losses[::2].max()
    assert curve["queries"][-1] == 2.0 * (rows - 1)
    assert (np.diff(curve["queries"]) > 0).all()


def test_rows_of_a_long_curve_that_are_written_again_are_not_counted_twice() -> None:
    rows = 3 * MOST
    found = Digest([begun(), *(step(number, failed=1) for number in range(rows))])
    for number in range(rows // 2, rows):
        found.add(step(number, failed=1))
    steps = found.trials["a"].steps
    assert steps["failed"].sum() == steps["losses"].sum() == rows
    found.add(step(rows - 1, failed=7))  # of the newest the latest version counts
    assert steps["failed"].sum() == rows + 6


# ------------------------------------------------------------------------------------------------------------ digests
def test_the_last_selected_look_is_the_trials_best_even_when_it_is_written_again() -> None:
    found = Digest([begun(), evaluation(0, 0.5, True), evaluation(1, 0.4, True), evaluation(2, 0.6, False)])
    best = found.trials["a"].selected
    assert best is not None and (best.dev_loss, best.losses) == (0.4, (0.4, None))
    found.add(evaluation(1, 0.7, False))  # a server that answered otherwise
    best = found.trials["a"].selected
    assert best is not None and best.dev_loss == 0.5


def test_steps_that_were_not_scored_are_no_losses() -> None:
    steps = Digest([begun(), step(1, loss=math.nan), step(2, loss=0.25)]).trials["a"].steps
    assert (steps["loss"].sum(), steps["losses"].sum()) == (0.25, 1)


def test_what_a_trial_had_spent_at_a_moment() -> None:
    found = Digest([begun(), *(step(number) for number in range(1, 9))])
    assert [found.queries_at("a", at) for at in (0.5, 3.0, 3.5, 99.0)] == [0, 6, 6, 16]
    assert found.queries_at("nobody", 3.0) == 0


def test_long_lists_keep_what_a_page_shows_and_count_the_rest() -> None:
    events = [EventRow(time=1.0, kind="note", message=str(number)) for number in range(EVENTS + 50)]
    asked = {"trial_id": "a", "stage": 1, "proposer": "p", "answer": "long", "instruction": "longer", "texts": []}
    calls = [ExchangeRow.model_validate({**asked, "number": number}) for number in (*range(TALKS + 5), 0)]
    found = Digest([begun(), *events, *calls])
    assert (found.events_seen, len(found.events), found.events[-1].message) == (EVENTS + 50, EVENTS, str(EVENTS + 49))
    assert (len(found.calls), len(found.talks)) == (TALKS + 5, TALKS)
    assert {call.answer for call in found.calls} == {""} and {talk.answer for talk in found.talks.values()} == {"long"}


def test_sessions_are_those_of_the_whole_ledger(tmp_path: Path) -> None:
    first = RunRow(time=1.0, name="r", version="1", seed=0, methods=["zot"])
    with LedgerWriter(tmp_path / "ledger.jsonl") as writer:
        for row in (first, begun(), step(2), step(5), first.model_copy(update={"resumed": True, "time": 9.0}), step(5)):
            writer.write(row)
    assert digest(tmp_path / "ledger.jsonl").sessions == read(tmp_path / "ledger.jsonl").sessions
    assert [session.cost.queries for session in digest(tmp_path / "ledger.jsonl").sessions] == [4, 2]


# ---------------------------------------------------------------------------------------------------- rows by msgspec
def many(count: int) -> Iterator[Row]:
    """Rows of two trials: lost losses, raced steps, steps that were written again, a resumed run."""
    yield RunRow(time=1.0, name="r", version="1", seed=0, methods=["zot"])
    yield from (begun("a"), begun("b"))
    for number in [*range(count), *range(count // 2, count)]:
        if number == count - 1:
            yield RunRow(time=float(number), name="r", version="1", seed=0, methods=["zot"], resumed=True)
        for trial in ("a", "b"):
            row = step(number, loss=math.nan if number % 7 == 0 else 1 / (1 + number), failed=number % 3, trial=trial)
            saved = {"queries_saved": 1.5, "rho": 0.1} if trial == "a" and number % 5 == 0 else {"rho": 0.1}
            yield row.model_copy(update={"metrics": saved})
            if number % 4 == 0:
                yield evaluation(number, 0.5 / (1 + number), number % 8 == 0, trial)


@pytest.mark.parametrize("count", [40, 3 * MOST])
def test_rows_that_are_parsed_quickly_come_to_the_same(tmp_path: Path, count: int) -> None:
    path = tmp_path / "ledger.jsonl"
    written = list(many(count))
    path.write_bytes(b"".join(row.model_dump_json().encode() + b"\n" for row in written))
    quick, plain = digest(path), Digest(written)
    for trial in ("a", "b"):
        one, other = quick.trials[trial], plain.trials[trial]
        assert (one.spent, one.elapsed, one.least, one.most) == (other.spent, other.elapsed, other.least, other.most)
        assert one.selected is not None and other.selected is not None
        assert (one.selected.losses, one.selected[:4]) == (other.selected.losses, other.selected[:4])
        for curve in ("steps", "evaluations"):
            found, expected = getattr(one, curve)._rows(), getattr(other, curve)._rows()
            np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert quick.sessions == plain.sessions == read(path).sessions


@pytest.mark.parametrize(
    ("found", "written"),
    [
        ('"loss":0.5', '"loss":1e200'),  # far beyond what is added up: no loss
        ('"best_loss":0.5', '"best_loss":null'),
        ('"elapsed":3.0', '"elapsed":3'),
    ],
)
def test_odd_numbers_of_a_step_mean_what_they_mean_elsewhere(tmp_path: Path, found: str, written: str) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_text(step(3).model_dump_json().replace(found, written) + "\n", encoding="utf-8")
    quick, plain = digest(path).trials["a"], Digest(read(path).steps).trials["a"]
    assert quick.steps["loss"].tolist() == plain.steps["loss"].tolist()
    assert (quick.least, quick.elapsed) == (plain.least, plain.elapsed)


@pytest.mark.parametrize(
    ("found", "written"),
    [('"failed":0', '"failed":-1'), ('"failed":0', '"failed":0,"planet":1'), ('"stage":0', '"stage":"0.5"')],
)
def test_a_step_that_breaks_a_rule_is_refused_as_elsewhere(tmp_path: Path, found: str, written: str) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_text(step(3).model_dump_json().replace(found, written) + "\n", encoding="utf-8")
    with pytest.raises(LedgerError) as expected:
        read(path)
    with pytest.raises(LedgerError) as refused:
        digest(path)
    assert str(refused.value) == str(expected.value)


# ----------------------------------------------------------------------------------------------------------- following
def rows() -> Iterator[Row]:
    yield RunRow(time=1.0, name="r", version="1", seed=0, methods=["zot"])
    yield begun()
    yield from (step(number, loss=1 / number) for number in range(1, 30))


def test_a_ledger_is_followed_as_it_grows_wherever_its_lines_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    follower = Follower(path)
    assert follower.catch_up().trials == {}  # it is not there yet
    whole = b"".join(row.model_dump_json().encode() + b"\n" for row in rows())
    for start in range(0, len(whole), 301):
        with path.open("ab") as file:
            file.write(whole[start : start + 301])
        seen = follower.catch_up()
    assert seen is follower.catch_up()
    assert seen.trials["a"].steps["loss"].tolist() == [1 / number for number in range(1, 30)]
    assert seen.sessions == read(path).sessions


def test_a_ledger_that_became_shorter_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    lines = [row.model_dump_json().encode() + b"\n" for row in rows()]
    path.write_bytes(b"".join(lines))
    follower = Follower(path)
    assert len(follower.catch_up().trials["a"].steps["loss"]) == 29
    path.write_bytes(b"".join(lines[:5]))
    assert len(follower.catch_up().trials["a"].steps["loss"]) == 3


def test_a_ledger_that_was_replaced_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    lines = [row.model_dump_json().encode() + b"\n" for row in rows()]
    path.write_bytes(b"".join(lines[:5]))
    follower = Follower(path)
    assert follower.catch_up().sessions[0].run is not None
    other = RunRow(time=2.0, name="another", version="1", seed=0, methods=["zot"])
    path.write_bytes(other.model_dump_json().encode() + b"\n" + b"".join(lines[1:]))
    found = follower.catch_up()
    assert (len(found.trials["a"].steps["loss"]), found.sessions[0].run) == (29, other)


def test_a_torn_line_that_is_cut_off_and_written_anew_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    lines = [row.model_dump_json().encode() + b"\n" for row in rows()]
    path.write_bytes(b"".join(lines[:5]) + lines[5][:40])
    follower = Follower(path)
    assert len(follower.catch_up().trials["a"].steps["loss"]) == 3
    path.write_bytes(b"".join(lines))
    assert len(follower.catch_up().trials["a"].steps["loss"]) == 29


def test_a_look_that_is_short_of_time_says_how_far_it_came(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(b"".join(row.model_dump_json().encode() + b"\n" for row in rows()))
    follower = Follower(path)
    assert follower.catch_up(seconds=0).trials == {} and follower.share == 0
    assert follower.catch_up().trials and follower.share == 1


def test_a_follower_names_the_line_that_is_no_row(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(b"".join(row.model_dump_json().encode() + b"\n" for row in rows()))
    follower = Follower(path)
    follower.catch_up()
    with path.open("ab") as file:
        file.write(b'{"type":"planet"}\n')
    with pytest.raises(LedgerError, match="line 32 of"):
        follower.catch_up()
