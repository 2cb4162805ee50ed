"""Rows at the end of a stage: one each, in order, without a cost of their own."""

from local_trials import OPTIMIZERS, Scripted, evals_of, make_experiment, make_trial, paid, run, steps_of

from distributed_tuner.ledger.reader import collect
from distributed_tuner.ledger.rows import Row, StageRow
from distributed_tuner.values import Cost

RESTART = {"kind": "restart", "proposer": {"kind": "random"}, "trajectory": 2, "proposals": 1}


def stages_of(rows: list[Row]) -> list[StageRow]:
    return [row for row in rows if isinstance(row, StageRow)]


def alternating() -> list[Row]:
    search = {"kind": "search", "optimizer": OPTIMIZERS["random_search"], "eval_every": 10}
    made = make_experiment(OPTIMIZERS["random_search"], budget={"queries": 100}, stages=[search, RESTART], rounds=2)
    return run(make_trial(made, proposer=Scripted(["1. judge each review"])))


def test_every_stage_ends_with_a_row_of_its_own() -> None:
    rows = alternating()
    ended = stages_of(rows)
    told = [(row.stage, row.kind, row.method) for row in ended]
    assert told == [(0, "search", "random_search"), (1, "restart", "random"), (2, "search", "random_search")]
    for row in ended:
        steps = [step for step in steps_of(rows) if step.stage == row.stage]
        assert row.steps == len(steps) and row.reason
    assert ended[0].reason == f"all {ended[0].steps} planned steps done"


def test_it_says_what_the_stage_paid_and_how_the_trial_stands() -> None:
    rows = alternating()
    ended = stages_of(rows)
    assert sum((row.paid.value() for row in ended), Cost()) == ended[-1].spent.value() == paid(rows)
    best = [evaluation for evaluation in evals_of(rows) if evaluation.selected][-1]
    assert (ended[-1].dev_loss, ended[-1].dev_metric) == (best.dev_loss, best.dev_metric)


def test_the_ledger_keeps_one_row_a_stage_and_counts_no_cost_twice() -> None:
    rows = alternating()
    once, again = collect(rows), collect([*rows, *stages_of(rows)])
    assert once.stages == again.stages == tuple(stages_of(rows))
    assert once.sessions[0].cost == again.sessions[0].cost
