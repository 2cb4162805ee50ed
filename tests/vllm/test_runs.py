"""vLLM in actors: exact in float32, the shipped space to its report, and to the same numbers after a SIGKILL."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from small_engine import DTYPE, ENGINE, LAYOUTS, mixed
from tuner_runs import ROOT, Done, killing, numbers, raw_rows, run_space, steps_written

from actors.pool.messages import pack, read_reply, tiles_of
from actors.pool.worker import start_oracle
from distributed_tuner.config.oracle import VllmOracleConfig
from distributed_tuner.oracles.base import LossOracle
from distributed_tuner.oracles.tiling import Cut, merge
from distributed_tuner.tasks.base import Task
from distributed_tuner.values import Evaluation, Request

pytestmark = [pytest.mark.vllm, pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

START_SECONDS = 300.0
SPACE = ROOT / "search_spaces" / "vllm.yaml"
SMALL = ("task.shots=2", "task.test_limit=8", "budget.queries=12", f"oracle.dtype={DTYPE}")


@pytest.mark.extended  # in bfloat16 the engine of the test's own process stands for it
def test_in_float32_losses_are_the_transformers_oracles_but_for_rounding(
    task: Task, transformers_oracle: Callable[[str], LossOracle]
) -> None:
    """The proof that no token, position or row is another: bfloat16 would hide what is small."""
    actor = start_oracle(VllmOracleConfig(**(ENGINE | {"dtype": "float32"})), "exact")
    try:
        width = ray.get(actor.info.remote(), timeout=START_SECONDS).width
        for layout in LAYOUTS:
            request = mixed(task, width, layout)
            found, wanted = _answer(actor, request), transformers_oracle("float32").evaluate(request)
            assert np.abs(found.losses - wanted.losses).max() < 1e-3
            assert np.abs(found.logits - wanted.logits).max() < 0.02  # logits of tens
            hinged = replace(request, batch=replace(request.batch, loss="hinge"))
            found, wanted = _answer(actor, hinged), transformers_oracle("float32").evaluate(hinged)
            assert np.abs(found.losses - wanted.losses).max() < 0.04  # a difference of two logits
    finally:
        ray.kill(actor)


def _answer(actor: Any, request: Request) -> Evaluation:
    whole = [Cut((0, len(request.candidates)), (0, len(request.batch.examples)))]
    (answer,) = ray.get(actor.evaluate.remote(tiles_of(pack(request), whole)), timeout=START_SECONDS)
    return merge(request, whole, [read_reply(answer)])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """The run on an actor that does not die."""
    return run_space(SPACE, tmp_path_factory.mktemp("run") / "vllm", *SMALL)


def test_the_shipped_space_runs_to_its_report(undisturbed: Done) -> None:
    assert undisturbed.status == "done"
    assert {end.status for end in undisturbed.ledger.trial_ends} == {"done"}
    losses = [step.loss for step in undisturbed.ledger.steps]
    assert len(losses) >= 4 and np.isfinite(losses).all()
    assert undisturbed.summary["best"]["test_metric"] is not None
    assert undisturbed.summary["totals"]["oracle_busy_seconds"] > 0
    assert (undisturbed.directory.path / "report.html").is_file()
    assert undisturbed.best  # the prompt is there to be used


@pytest.mark.extended  # another oracle that is killed stands for it
def test_a_killed_engine_changes_no_number(undisturbed: Done, tmp_path: Path) -> None:
    out, killed = tmp_path / "run", []
    with killing("ray::OracleWorker", steps_written(out, 1), killed, seconds=START_SECONDS):
        done = run_space(SPACE, out, *SMALL)
    assert killed
    assert done.status == "done"
    assert numbers(done.ledger) == numbers(undisturbed.ledger)
    assert done.best == undisturbed.best
    assert "oracle_restart" in [event.kind for event in done.ledger.events]
    steps = raw_rows(done.directory, "step")
    assert len({(row["trial_id"], row["step"]) for row in steps}) == len(steps)


@pytest.mark.extended  # the engine of the test's own process writes as well, and the shipped space runs
def test_the_engine_writes_the_prompts_as_well(tmp_path: Path) -> None:
    settings = (
        "oracle={kind: vllm, kv_cache_gib: 0.5, max_model_len: 1024}",
        "stages.1.proposer={kind: vllm, max_tokens: 60}",
        *("stages.0.eval_every=12", "task.shots=4", "task.feedback=2", "task.test_limit=8"),
        *("rounds=2", "budget.queries=40"),
    )
    done = run_space(ROOT / "search_spaces" / "maao.yaml", tmp_path / "maao", *settings)
    assert done.status == "done"
    asked = done.ledger.exchanges
    assert asked and {row.proposer for row in asked} == {"vllm smollm2-135m"}
    assert all(row.output_tokens > 0 and row.seconds > 0 for row in asked)
    assert [row.texts for row in asked if row.texts]
    assert done.summary["totals"]["proposer_calls"] == len(asked)
    assert len(done.ledger.restarts) == 1
