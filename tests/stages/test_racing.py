"""Racing: the rule on made-up losses, and races inside trials, where everything is paid for."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from local_trials import (
    OPTIMIZERS,
    TimedOracle,
    evals_of,
    make_experiment,
    make_task,
    make_trial,
    paid,
    run,
    steps_of,
    travelled,
)

from distributed_tuner.config.optimizer import CmaConfig
from distributed_tuner.errors import BudgetTooSmall
from distributed_tuner.ledger.rows import EvalRow, Row, StepRow
from distributed_tuner.optimizers import build
from distributed_tuner.optimizers.base import Race
from distributed_tuner.oracles.base import evaluation
from distributed_tuner.stages.racing import Raced, Racing, run_race
from distributed_tuner.values import (
    Array,
    Array64,
    Batch,
    Cost,
    Evaluation,
    Example,
    Latent,
    Objective,
    Point,
    PromptSpec,
    Request,
)

SPEC = PromptSpec(1, "zeros", "", "prefix", "paper")
CMA = OPTIMIZERS["cma"] | {"popsize": 8, "intrinsic_dim": 6, "alpha": 10.0}  # losses that differ much


# ------------------------------------------------------------------------------------------------- the rule
class Table:
    """Answers race batches from a table of losses, shape (candidates, examples), and writes down what was asked."""

    def __init__(self, losses_C_E: Array64) -> None:
        self._losses_C_E = losses_C_E
        self.race_batches: list[tuple[list[int], list[int]]] = []
        self.queries: list[int] = []

    def race(self, race: Race) -> Raced:
        count, width = self._losses_C_E.shape
        candidates = tuple(Point(np.array([i], dtype=np.float32)) for i in range(count))
        examples = tuple(Example(str(i), "", "", 0) for i in range(width))
        return run_race(Request(candidates, Batch(examples, ("a", "b"), "train"), SPEC), race, self._answer)

    def _answer(self, request: Request, queries: int) -> Evaluation:
        rows = [int(candidate.vector[0]) for candidate in request.candidates if isinstance(candidate, Point)]
        columns = [int(example.uid) for example in request.batch.examples]
        self.race_batches.append((rows, columns))
        self.queries.append(queries)
        losses = self._losses_C_E[np.ix_(rows, columns)]
        cost = Cost(queries, losses.size, 7 * losses.size, 0.5)
        return Evaluation(losses.mean(axis=1), losses, np.zeros((*losses.shape, 2), dtype=np.float32), cost)


def top(losses: Array64, mu: int) -> list[int]:
    """Return the indices of the best ``mu`` finite losses, best first, the first of equals."""
    finite = [i for i in range(len(losses)) if math.isfinite(losses[i])]
    return sorted(finite, key=lambda i: (losses[i], i))[:mu]


def tables(holes: bool = False) -> st.SearchStrategy[Array64]:
    shapes = st.tuples(st.integers(1, 9), st.integers(1, 12))
    values = st.one_of(st.floats(0, 8), st.sampled_from([0.0, 0.1, 0.5, 5e-324]))
    if holes:
        values = st.one_of(values, values, values, st.sampled_from([math.nan, math.inf]))
    return shapes.flatmap(lambda shape: arrays(np.float64, shape, elements=values))


@settings(max_examples=150, deadline=None)
@given(table=tables(), block=st.integers(1, 13), mu=st.integers(1, 9))
def test_the_top_mu_and_their_losses_are_those_of_the_full_evaluation(table: Array64, block: int, mu: int) -> None:
    raced, full = Table(table).race(Race(block, mu)), table.mean(axis=1)
    best = top(full, mu)
    assert top(raced.losses, mu) == best
    np.testing.assert_array_equal(raced.losses[best], full[best])
    others = sorted(set(range(len(full))) - set(best))
    assert all(raced.losses[i] == full[i] or raced.losses[i] > full[best[-1]] for i in others)
    assert raced.stopped >= int((raced.losses != full).sum())


@settings(max_examples=150, deadline=None)
@given(table=tables(holes=True), block=st.integers(1, 13), mu=st.integers(1, 9))
def test_candidates_with_a_failed_example_never_enter_the_top_mu(table: Array64, block: int, mu: int) -> None:
    raced = Table(table).race(Race(block, mu))
    full = np.where(np.isfinite(table).all(axis=1), table.mean(axis=1), np.nan)
    best = top(full, mu)
    assert top(raced.losses, mu)[: len(best)] == best
    np.testing.assert_array_equal(raced.losses[best], full[best])
    if len(best) < mu:  # no threshold: nobody stops
        np.testing.assert_array_equal(raced.losses, full)


@settings(max_examples=100, deadline=None)
@given(table=tables(holes=True), block=st.integers(1, 13), mu=st.integers(1, 9))
def test_blocks_are_the_same_for_all_and_each_is_asked_once(table: Array64, block: int, mu: int) -> None:
    asked = Table(table)
    asked.race(Race(block, mu))
    width = table.shape[1]
    blocks = [list(range(at, min(at + block, width))) for at in range(0, width, block)]
    assert asked.race_batches[0] == (list(range(len(table))), blocks[0])
    for candidate in range(len(table)):
        mine = [columns for rows, columns in asked.race_batches if candidate in rows]
        assert mine == blocks[: len(mine)]
        failed = [i for i, columns in enumerate(mine) if not np.isfinite(table[candidate, columns]).all()]
        assert failed in ([], [len(mine) - 1])  # who fails is asked nothing more


@settings(max_examples=100, deadline=None)
@given(table=tables(holes=True), block=st.integers(1, 13), mu=st.integers(1, 9))
def test_heats_count_as_their_forwards_over_the_examples_rounded_up(table: Array64, block: int, mu: int) -> None:
    asked = Table(table)
    raced = asked.race(Race(block, mu))
    forwards = np.cumsum([len(rows) * len(columns) for rows, columns in asked.race_batches])
    np.testing.assert_array_equal(np.cumsum(asked.queries), -(-forwards // table.shape[1]))
    assert raced.cost == Cost(
        sum(asked.queries), int(forwards[-1]), 7 * int(forwards[-1]), 0.5 * len(asked.race_batches)
    )  # seconds and tokens are those really spent
    assert raced.cost.queries <= len(table)


@settings(max_examples=150, deadline=None)
@given(table=tables(holes=True), block=st.integers(1, 13), mu=st.integers(1, 9), exact=st.sets(st.integers(0, 8)))
def test_who_must_be_exact_has_the_loss_and_the_rank_of_the_full_evaluation(
    table: Array64, block: int, mu: int, exact: set[int]
) -> None:
    places = tuple(sorted(i for i in exact if i < len(table)))
    raced = Table(table).race(Race(block, mu, places))
    full = np.where(np.isfinite(table).all(axis=1), table.mean(axis=1), np.nan)
    assert top(raced.losses, mu) == top(full, mu)
    for i in places:
        np.testing.assert_array_equal(raced.losses[i], full[i])
        if math.isfinite(full[i]):
            assert (raced.losses < raced.losses[i]).tolist() == (full < full[i]).tolist()


def test_the_hopeless_go_on_until_they_are_behind_who_must_be_exact() -> None:
    table = np.array([[4.0, 4, 4, 4], [1, 1, 1, 1], [5, 5, 5, 5], [9, 9, 9, 9]])
    asked = Table(table)
    raced = asked.race(Race(1, 1, (0,)))
    assert asked.race_batches[1:] == [*[([0, 1], [i]) for i in (1, 2, 3)], ([2, 3], [1]), ([2], [2]), ([2], [3])]
    assert raced.losses.tolist() == [4.0, 1.0, 5.0, 9.0]
    assert raced.stopped == 1


def test_who_leads_is_completed_first_and_the_hopeless_stop_together() -> None:
    table = np.array([[9.0, 0, 0, 0], [1, 1, 1, 1], [2, 1, 1, 1], [2, 4, 4, 4]])
    asked = Table(table)
    raced = asked.race(Race(1, 2))
    assert asked.race_batches == [([0, 1, 2, 3], [0]), *[([1, 2], [i]) for i in (1, 2, 3)], ([3], [1])]
    np.testing.assert_array_equal(raced.losses, [9.0, 1.0, 1.25, 3.0])  # the mean over the examples seen
    assert raced.stopped == 2  # the first's bound was 9/4, the last's 6/4
    assert raced.cost.queries == 3  # 11 forwards of 16


def test_one_who_started_badly_can_still_win_and_lowers_the_threshold() -> None:
    table = np.array([[3.0, 0, 0], [1, 2, 2], [2, 3, 3], [2, 4, 4]])
    asked = Table(table)
    raced = asked.race(Race(1, 1))
    assert asked.race_batches[1:] == [([1], [1]), ([1], [2]), ([0, 2, 3], [1]), ([0, 2], [2])]
    assert (raced.losses[0], raced.losses[1]) == (1.0, table[1].mean())
    assert np.argmin(raced.losses) == 0


def test_a_leader_that_fails_is_replaced_by_the_next_most_promising() -> None:
    table = np.array([[1.0, math.nan, 1], [2, 1, 1], [3, 3, 3], [12, 0, 0]])
    asked = Table(table)
    raced = asked.race(Race(1, 2))
    assert asked.race_batches[1:] == [([0, 1], [1]), ([1], [2]), ([2], [1]), ([2], [2])]
    np.testing.assert_array_equal(raced.losses, [math.nan, 4 / 3, 3.0, 12.0])
    assert raced.stopped == 1


def test_an_estimate_is_never_better_than_the_threshold() -> None:
    examples = tuple(Example(str(i), "text", "", 0) for i in range(2))
    racing = Racing(2, Batch(examples, (" a", " b"), "train"), Race(1, 1))
    for losses in ([[1.0], [3.0]], [[1.0]]):
        race_batch = racing.race_batch()
        assert race_batch is not None
        racing.score(race_batch, np.array(losses))
    assert racing.race_batch() is None
    assert racing.losses().tolist() == [1.0, 3.0]


def test_equal_losses_are_all_completed() -> None:
    raced = Table(np.full((4, 3), 0.1)).race(Race(1, 2))
    np.testing.assert_array_equal(raced.losses, np.full((4, 3), 0.1).mean(axis=1))
    assert raced.stopped == 0


@pytest.mark.parametrize("seed", range(20))
def test_what_a_bias_leaves_is_raced_as_surely(seed: int) -> None:
    """The best mu and their losses are those of the full evaluation, for an objective that fits a bias as well."""
    stream = np.random.default_rng(seed)
    logits = (stream.uniform(0.1, 6) * stream.standard_normal((9, 12, 2)) + stream.standard_normal((9, 1, 2))).astype(
        np.float32
    )
    examples = tuple(Example(str(i), "", "", i % 2) for i in range(12))
    batch = Batch(examples, ("a", "b"), "train", objective=Objective("bias"))
    full = evaluation(logits, batch, Cost()).losses
    points = tuple(Point(np.array([i], dtype=np.float32)) for i in range(9))

    def answered(request: Request, queries: int) -> Evaluation:
        assert request.batch.objective.plain
        rows = [int(c.vector[0]) for c in request.candidates if isinstance(c, Point)]
        columns = [int(example.uid) for example in request.batch.examples]
        return evaluation(logits[np.ix_(rows, columns)], request.batch, Cost(queries, len(rows) * len(columns)))

    raced = run_race(Request(points, batch, SPEC), Race(3, 4), answered)
    best = np.argsort(full)[:4]
    assert sorted(np.argsort(raced.losses)[:4]) == sorted(best)
    np.testing.assert_allclose(raced.losses[best], full[best], rtol=1e-12)
    assert (np.delete(raced.losses, best) >= full[best].max()).all()


# ------------------------------------------------------------------------------------------------- in a trial
def raced(block: int = 2, **more: Any) -> dict[str, Any]:
    return CMA | {"race_block": block} | more


def told(rows: list[Row]) -> list[StepRow | EvalRow]:
    return [row for row in rows if isinstance(row, StepRow | EvalRow)]


def saved(rows: Sequence[Row], unit: str = "queries") -> int:
    return int(sum(step.metrics[f"{unit}_saved"] for step in steps_of(list(rows))))


def test_the_first_generation_has_the_same_best_for_fewer_forwards() -> None:
    task = make_task(sizes=(1, 4, 2))
    runs = [run(make_trial(make_experiment(o, budget={"queries": 200}), task)) for o in (CMA, raced())]
    plain, quick = (steps_of(rows)[0] for rows in runs)
    assert quick.best_loss == pytest.approx(plain.best_loss, rel=1e-6)
    assert quick.cost.forwards < plain.cost.forwards
    assert quick.cost.queries == -(-quick.cost.forwards // 12) < plain.cost.queries == 8
    assert quick.metrics["forwards_saved"] == plain.cost.forwards - quick.cost.forwards > 0
    assert quick.metrics["queries_saved"] == plain.cost.queries - quick.cost.queries > 0
    assert quick.metrics["stopped_early"] > 0
    assert "queries_saved" not in plain.metrics


def test_the_parents_of_a_raced_generation_are_those_of_the_full_one() -> None:
    """Scored once more in full, the four best that the optimizer was told are the four best."""
    experiment, task = make_experiment(raced(), budget={"queries": 200}), make_task(sizes=(1, 4, 2))
    oracle = TimedOracle(experiment)
    trial = make_trial(experiment, task, oracle)
    trial.advance()
    before = len(oracle.asked)
    (row,) = trial.advance()
    race_batches = oracle.asked[before:]
    full = TimedOracle(experiment).evaluate(
        Request(race_batches[0].candidates, task.batch("train"), race_batches[0].prompt)
    )
    order = np.argsort(full.losses)[:4]
    complete = {
        id(candidate)
        for race_batch in race_batches
        if race_batch.batch.examples[-1] is task.train[-1]
        for candidate in race_batch.candidates
    }
    assert all(id(race_batches[0].candidates[i]) in complete for i in order)
    assert isinstance(row, StepRow)
    assert row.best_loss == pytest.approx(full.losses[order[0]], rel=1e-6)
    assert row.cost.forwards == sum(
        len(race_batch.candidates) * len(race_batch.batch.examples) for race_batch in race_batches
    )
    assert [len(race_batch.candidates) for race_batch in race_batches[:4]] == [8, 4, 4, 4]


def test_blocks_are_the_same_in_every_generation() -> None:
    experiment, task = make_experiment(raced(5), budget={"queries": 150}), make_task()
    oracle = TimedOracle(experiment)
    run(make_trial(experiment, task, oracle))
    steps = [request for request in oracle.asked if request.batch.split == "train" and len(request.batch.examples) < 12]
    blocks = {request.batch.examples for request in steps}
    assert blocks == {task.train[:5], task.train[5:10], task.train[10:]}


@pytest.mark.parametrize("block", [12, 50])
def test_one_block_for_all_is_the_full_evaluation(block: int) -> None:
    rows, plain = (run(make_trial(make_experiment(o, budget={"queries": 90}))) for o in (raced(block), CMA))
    assert [step.loss for step in steps_of(rows)] == [step.loss for step in steps_of(plain)]
    assert saved(rows) == saved(rows, "forwards") == 0


def test_what_is_saved_buys_more_steps_and_looks_go_by_what_was_spent() -> None:
    budget, stage = {"queries": 300}, {"eval_every": 24}
    plain, quick = (
        run(make_trial(make_experiment(o, budget=budget, stage=stage), make_task(sizes=(1, 4, 2))))
        for o in (CMA, raced())
    )
    assert len(steps_of(quick)) > len(steps_of(plain))
    assert saved(quick) > 10
    assert 300 - 8 - 2 < paid(quick).queries <= 300
    since = 0
    for row in told(quick)[1:-1]:
        assert since < 24 + 8
        since = 0 if isinstance(row, EvalRow) else since + row.cost.queries
    assert evals_of(quick)[-1].step == len(steps_of(quick))


def test_steps_that_were_asked_for_are_not_exceeded() -> None:
    stage = {"eval_every": 1000}
    experiment = make_experiment(raced(), CMA, budget={"queries": 400}, first={"steps": 30}, stage=stage)
    task = make_task(sizes=(1, 4, 2))
    rows = run(make_trial(experiment, task))
    first, second = ([row for row in steps_of(rows) if row.stage == stage] for stage in (0, 1))
    assert len(first) == 30
    assert saved(first) > 8
    assert len(second) == (400 - sum(row.cost.queries for row in first) - 4 - 4) // 8  # two evaluations a stage
    assert len(second) > (400 - 30 * 8 - 4 - 4) // 8  # what the race saved is left to the second stage


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    budget=st.fixed_dictionaries(
        {},
        optional={
            "queries": st.integers(12, 150),
            "forwards": st.integers(150, 2000),
            "tokens": st.integers(900, 9000),
            "usd": st.floats(0.005, 0.2),
            "seconds": st.floats(0.5, 20),
        },
    ).filter(bool),
    block=st.integers(1, 13),
    popsize=st.integers(2, 9),
    eval_every=st.integers(1, 40),
)
def test_no_limit_is_ever_exceeded(budget: dict[str, float], block: int, popsize: int, eval_every: int) -> None:
    experiment = make_experiment(
        raced(block, popsize=popsize),
        budget={"queries": None} | budget,
        stage={"eval_every": eval_every, "steps": 60},
        oracle={
            "kind": "analytic",
            "width": 3,
            "tile": {"candidates": 2, "examples": 8},
            "price": {"usd_per_device_hour": 3.6, "usd_per_million_input_tokens": 10.0},
        },
    )
    try:
        rows = run(make_trial(experiment, make_task(sizes=(1, 6, 3)), TimedOracle(experiment, seconds=0.05)))
    except BudgetTooSmall:
        return
    total, last = paid(rows), told(rows)[-1].spent
    assert (total.queries, total.forwards, total.tokens) == (last.queries, last.forwards, last.tokens)
    for unit in ("queries", "forwards", "tokens"):
        assert getattr(total, unit) <= budget.get(unit, math.inf)
    assert total.usd <= budget.get("usd", math.inf) * (1 + 1e-12)
    assert told(rows)[-1].elapsed <= budget.get("seconds", math.inf) + 1e-9


def test_a_step_begins_only_where_all_of_it_can_be_paid() -> None:
    """Where a full step does not fit, no race begins, although it might have ended in time."""
    full, evaluation = 8 * 12, 12 + 11
    experiment = make_experiment(raced(), budget={"queries": None, "forwards": 2 * evaluation + full + 60})
    rows = run(make_trial(experiment, make_task(sizes=(1, 4, 2))))
    assert steps_of(rows)
    for row in steps_of(rows):
        assert row.spent.forwards - row.cost.forwards + full + evaluation <= 2 * evaluation + full + 60


def test_failed_candidates_of_a_race_are_counted_and_never_best() -> None:
    def spoil(request: Request, logits: Array) -> Array:
        if len(request.batch.examples) == 2 and len(request.candidates) == 8:  # the first race batch of a step
            logits[[1, 4], 0, 0] = np.nan
        return logits

    experiment = make_experiment(raced(), budget={"queries": 120})
    rows = run(make_trial(experiment, make_task(sizes=(1, 4, 2)), TimedOracle(experiment, spoil=spoil)))
    assert {row.failed for row in steps_of(rows)} == {2}
    assert all(row.loss is not None and row.best_loss is not None for row in steps_of(rows))


def test_a_generation_that_failed_in_the_first_block_costs_no_more() -> None:
    experiment = make_experiment(raced(), budget={"queries": 60})
    oracle = TimedOracle(experiment, spoil=lambda request, logits: logits * np.nan)
    rows = run(make_trial(experiment, oracle=oracle))
    assert {(row.failed, row.loss, row.cost.forwards, row.cost.queries) for row in steps_of(rows)} == {(8, None, 16, 2)}


def test_a_race_that_runs_out_of_time_is_told_and_teaches_nothing() -> None:
    experiment = make_experiment(raced(), budget={"queries": None, "seconds": 1.0})
    trial = make_trial(experiment, oracle=TimedOracle(experiment, seconds=0.15))
    rows = run(trial)
    assert (steps_of(rows)[-1].loss, steps_of(rows)[-1].step) == (None, len(steps_of(rows)))
    last = told(rows)[-1].spent
    assert (paid(rows).queries, paid(rows).forwards) == (last.queries, last.forwards)
    assert trial.outcome is not None


def test_two_point_adaptation_is_told_the_ranks_of_its_pair_in_a_race() -> None:
    """As many candidates are better than either of the pair as in the full evaluation, although others stopped."""
    config = CmaConfig(intrinsic_dim=6, popsize=10, step_size="tpa", race_block=2)
    optimizer = build(config, dim=6, key=(1, "a", 0), steps=20)
    targets_E_K = np.random.default_rng(0).uniform(1, 3, (12, 6))
    stopped = 0
    for step in range(15):
        z_C_K = np.array([candidate.z for candidate in optimizer.ask() if isinstance(candidate, Latent)])
        table = ((z_C_K[:, None] - targets_E_K) ** 2).mean(axis=2)
        race = optimizer.race
        assert race is not None
        raced, full = Table(table).race(race), table.mean(axis=1)
        if step:
            assert [(raced.losses < raced.losses[i]).sum() for i in (0, 1)] == [(full < full[i]).sum() for i in (0, 1)]
        stopped += raced.stopped
        optimizer.tell(raced.losses)
    assert stopped > 15


@pytest.mark.parametrize("after", [1, 2, 5, 14])
def test_a_raced_trial_goes_on_from_its_state_with_the_same_bits(after: int) -> None:
    experiment = make_experiment(
        raced(), OPTIMIZERS["zot"], budget={"queries": 200}, first={"steps": 12}, stage={"eval_every": 9}
    )
    task = make_task(sizes=(1, 4, 2))
    whole = run(make_trial(experiment, task))
    first = make_trial(experiment, task)
    rows = [row for _ in range(after) for row in first.advance()]
    again = make_trial(experiment, task)
    again.load_state_dict(travelled(first.state_dict()))
    rows += run(again)
    bits = [[row.model_dump(exclude={"time"}) for row in some] for some in (rows, whole)]
    assert bits[0] == bits[1]
    assert any(row.metrics.get("queries_saved") for row in steps_of(whole))
