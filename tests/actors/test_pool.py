"""The pool of oracle actors: the same bits for any number of actors, whoever dies."""

from pathlib import Path
from typing import Any

import pytest
from tuner_runs import (
    CMA,
    ZOT,
    Done,
    killing,
    numbers,
    raw_rows,
    run_alone,
    run_space,
    space,
    steps_written,
    write_space,
)
from typer.testing import CliRunner

from actors.pool.pool import Pool
from actors.pool.tile_scheduler import CALL_TILES, IN_FLIGHT
from distributed_tuner.config.oracle import AnalyticOracleConfig
from distributed_tuner.errors import ModelError
from distributed_tuner.ledger.reader import Ledger
from distributed_tuner.oracles.analytic import AnalyticOracle
from distributed_tuner.oracles.codec import codec_of
from distributed_tuner.runs.evaluation import evaluate
from distributed_tuner.values import Batch, Embedded, Example, PromptSpec, Request, TokenSpace

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

QUERIES = 120
ORACLE = "ray::OracleWorker"
TRIAL = ("ray::TuneTrial", "ray::ResourceTrainable")  # waiting, working


@pytest.fixture(scope="module")
def llama_space(reviews: Path, llama: dict[str, Any]) -> Path:
    return write_space(space(llama, [ZOT, CMA], budget={"queries": QUERIES}), reviews, "llama.yaml")


@pytest.fixture(scope="module")
def alone(llama_space: Path) -> Ledger:
    """The run without Ray."""
    return run_alone(llama_space)


@pytest.fixture(scope="module")
def undisturbed(llama_space: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """The run on two actors of which none dies."""
    return run_space(llama_space, tmp_path_factory.mktemp("run") / "two", "oracle.actors=2")


@pytest.mark.extended  # a transformer in two actors stands for it
def test_one_or_two_actors_or_none_give_the_same_bits(reviews: Path, tmp_path: Path) -> None:
    path = write_space(space({"kind": "analytic"}, [ZOT, CMA]), reviews, "analytic.yaml")
    one, two = (run_space(path, tmp_path / str(count), f"oracle.actors={count}") for count in (1, 2))
    assert len(numbers(one.ledger)) == 30
    assert numbers(one.ledger) == numbers(two.ledger) == numbers(run_alone(path))
    assert one.best == two.best


def test_a_transformer_in_two_actors_gives_the_bits_of_one_in_this_process(undisturbed: Done, alone: Ledger) -> None:
    assert undisturbed.status == "done"
    assert numbers(undisturbed.ledger) == numbers(alone)
    assert {row["trial_id"] for row in raw_rows(undisturbed.directory, "trial_end")} == {"zot-0000", "cma-0001"}


def test_evaluating_the_best_prompt_again_gives_exactly_the_runs_test_metric(undisturbed: Done) -> None:
    import tune

    best = undisturbed.summary["best"]
    assert evaluate(undisturbed.directory.path, "test")[best["metric"]] == best["test_metric"]
    assert evaluate(undisturbed.directory.path, "dev")[best["metric"]] == best["dev_metric"]
    printed = CliRunner().invoke(tune.app, ["evaluate", str(undisturbed.directory.path)])
    assert printed.exit_code == 0
    assert f"{best['metric']} {best['test_metric']:.6f}" in printed.stdout


@pytest.mark.extended  # the oracle of a smaller run stands for it
def test_the_only_oracle_actor_is_killed_and_no_number_changes(
    llama_space: Path, undisturbed: Done, tmp_path: Path
) -> None:
    out, killed = tmp_path / "run", []
    with killing(ORACLE, steps_written(out, 1), killed):
        done = run_space(llama_space, out, "oracle.actors=1")
    assert killed
    assert done.status == "done"
    assert numbers(done.ledger) == numbers(undisturbed.ledger)
    assert done.best == undisturbed.best
    assert_no_row_is_written_twice(done)
    assert_budgets_hold(done, QUERIES)
    end = done.ledger.end
    assert end is not None
    assert 1 <= end.retries <= IN_FLIGHT * CALL_TILES  # what was in flight on one actor
    assert [event.kind for event in done.ledger.events] == ["oracle_restart"]
    assert done.summary["status"] == "done"


@pytest.mark.extended  # the trial of a smaller run stands for it
def test_a_killed_trial_goes_on_from_its_checkpoint_to_the_same_numbers(
    reviews: Path, llama: dict[str, Any], tmp_path: Path
) -> None:
    long = space(llama, [ZOT], budget={"queries": 1500}, eval_every=100)
    path = write_space(long, reviews, "long.yaml")
    out, killed = tmp_path / "run", []
    checkpoints = out / "tune" / "trials"

    def checkpointed() -> bool:
        return any(checkpoints.glob("*/checkpoint_*"))

    with killing(TRIAL, checkpointed, killed):
        done = run_space(path, out)
    assert killed
    assert done.status == "done"
    assert numbers(done.ledger) == numbers(run_alone(path))
    assert [trial.attempt for trial in done.ledger.trials] == [1]
    assert [event.kind for event in done.ledger.events] == ["trial_retry"]
    assert [end.status for end in done.ledger.trial_ends] == ["done"]
    assert_budgets_hold(done, 1500)
    assert len(raw_rows(done.directory, "trial")) == 2
    assert done.summary["trials"][0]["queries"] <= 1500


def assert_no_row_is_written_twice(done: Done) -> None:
    for kind in ("step", "evaluation"):
        names = [(row["trial_id"], row["stage"], row["step"]) for row in raw_rows(done.directory, kind)]
        assert len(names) == len(set(names))


def assert_budgets_hold(done: Done, queries: int) -> None:
    for row in (*done.ledger.steps, *done.ledger.evaluations):
        assert row.spent.queries <= queries


def test_texts_and_rows_go_through_the_pool_as_they_are() -> None:
    config = AnalyticOracleConfig(kind="analytic", width=4, threads=1)
    local = AnalyticOracle(config)
    spec = PromptSpec(3, "zeros", "", "prefix", "paper")
    batch = Batch((Example("a", "good film", " It was", 1),), (" bad", " good"), "train")
    texts = (Embedded("<3> <5> <8>"), Embedded("of its own"))
    pool = Pool.start(config, "texts")
    try:
        rows = [codec_of(pool.oracle).materialize(text, spec) for text in texts]
        for got, text in zip(rows, texts, strict=True):
            assert got.tobytes() == codec_of(local).materialize(text, spec).tobytes()
        for space in (TokenSpace(), TokenSpace("published", "published")):
            assert codec_of(pool.oracle).project(rows, "prefix", space) == codec_of(local).project(
                rows, "prefix", space
            )
            assert codec_of(pool.oracle).vocabulary(space) == codec_of(local).vocabulary(space)
        assert [codec_of(pool.oracle).token_count(text.text) for text in texts] == [3, 3]
        asked = Request(texts, batch, spec)
        assert pool.oracle.evaluate(asked).logits.tobytes() == local.evaluate(asked).logits.tobytes()
        assert pool.oracle.cost(asked) == local.cost(asked)
        with pytest.raises(ModelError, match=r"^a text must have at least one token"):
            codec_of(pool.oracle).materialize(Embedded(""), spec)
    finally:
        pool.stop()
