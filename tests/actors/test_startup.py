"""Startup of a run: tile size and precision, chosen before the first trial and recorded for good."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tuner_runs import CMA, RANDOM, ZOT, Done, numbers, raw_rows, run_alone, run_space, space, write_space
from typer.testing import CliRunner

from actors.run.experiment import RayBackend, run
from actors.shutdown import Stop
from benchmarks.fault_kinds import SmallHost, hosted_by
from distributed_tuner.config.oracle import Tile
from distributed_tuner.ledger.writer import LedgerWriter
from distributed_tuner.preflight.precision_cases import cases
from distributed_tuner.preflight.prepare import prepare, prepare_again
from distributed_tuner.runs.directory import RunDirectory, write_json
from distributed_tuner.runs.evaluation import evaluate
from distributed_tuner.runs.pool import Statistics
from distributed_tuner.runs.progress import Progress
from distributed_tuner.runs.run import Run

COARSE = {**ZOT, "rho": 1.0}
FINE = {**ZOT, "rho": 1e-5}


def oracles_of(directory: RunDirectory) -> list[dict[str, Any]]:
    """Return the oracle's settings in config.json: the experiment's and every trial's."""
    config = directory.read_config()
    return [config["experiment"]["oracle"], *(trial["config"]["oracle"] for trial in config["trials"])]


def bfloat16_space(llama: dict[str, Any], reviews: Path, optimizers: list[dict[str, Any]], name: str) -> Path:
    tree = space({**llama, "dtype": "bfloat16", "tile": {}}, optimizers, budget={"queries": 30})
    return write_space(tree, reviews, name)


# ------------------------------------------------------------------------------------------------------- tile size
def test_a_tile_that_became_smaller_is_in_config_json_before_it_is_told(reviews: Path, tmp_path: Path) -> None:
    class Told:
        def statistics(self) -> Statistics:
            return Statistics(events=[("tile_halved", "smaller")], tile=Tile(candidates=2, examples=32))

    path = write_space(space({"kind": "analytic"}, [ZOT, CMA]), reviews, "told.yaml")
    directory = RunDirectory(tmp_path / "run")
    directory.create()
    prepared = prepare(path, [])
    write_json(
        directory.config,
        {
            "experiment": prepared.experiment.model_dump(mode="json"),
            "trials": [plan.to_json() for plan in prepared.plans],
            "root": str(prepared.root),
        },
    )
    with LedgerWriter(directory.ledger) as writer:
        progress = Progress(prepared.plans, "accuracy")
        backend = RayBackend("told", directory, writer, progress, Stop(), None)
        this = Run(prepared, directory, backend, writer, progress, command="test")
    assert this._hear(Told()).events == [("tile_halved", "smaller")]  # type: ignore[arg-type]
    assert [oracle["tile"] for oracle in oracles_of(directory)] == [{"candidates": 2, "examples": 32}] * 3
    again = prepare_again(directory, reviews)
    assert {plan.experiment.oracle.tile for plan in again.plans} == {Tile(candidates=2, examples=32)}
    assert [plan.drawn for plan in again.plans] == [plan.drawn for plan in prepared.plans]


@pytest.mark.extended  # the dispatcher alone does so without Ray, and the test above writes the size down
@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_a_pool_that_runs_out_of_memory_goes_on_with_smaller_tiles_and_records_them(
    reviews: Path, tmp_path: Path
) -> None:
    path = write_space(space({"kind": "analytic", "tile": {}}, [ZOT, CMA]), reviews, "small.yaml")
    with hosted_by(SmallHost)():
        done = run_space(path, tmp_path / "run", "oracle.actors=2")
    assert done.status == "done"
    events = [event for event in done.ledger.events if event.kind == "tile_halved"]
    assert len(events) == 1
    assert "2 candidates x 64 examples instead of 4 candidates x 64 examples" in events[0].message
    assert {oracle["tile"]["candidates"] for oracle in oracles_of(done.directory)} == {2}
    tree = space({"kind": "analytic", "tile": {"candidates": 2}}, [ZOT, CMA])
    assert numbers(done.ledger) == numbers(run_alone(write_space(tree, reviews, "narrow.yaml")))
    best = done.summary["best"]
    assert evaluate(done.directory.path, "test")[best["metric"]] == best["test_metric"]


# ------------------------------------------------------------------------------------------------------- kept answers
WORDS = {"kind": "token_edit", "popsize": 4}


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_a_run_whose_answers_are_kept_is_the_same_run_and_free_the_second_time(
    reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    prompt = {"kind": "text", "length": 4, "vocabulary": "task"}
    tree = space({"kind": "analytic", "actors": 2, "cache": "kept"}, [WORDS], prompt=prompt)
    path = write_space(tree, reviews, "kept-answers.yaml")
    first, again = (run_space(path, tmp_path / name) for name in ("first", "again"))
    assert first.status == again.status == "done"
    assert {oracle["cache"] for oracle in oracles_of(first.directory)} == {str(tmp_path / "kept")}

    def losses(done: Done) -> list[Any]:
        steps = [(row.step, row.loss, row.best_loss, row.failed, row.metrics) for row in done.ledger.steps]
        evaluations = [
            (row.step, row.train_loss, row.dev_metrics, row.selected, row.text) for row in done.ledger.evaluations
        ]
        return [steps, evaluations, [(row.loss, row.metrics) for row in done.ledger.measures]]

    assert losses(first) == losses(again)
    paid, free = first.summary["totals"], again.summary["totals"]
    assert paid["queries"] > 40
    assert (free["queries"], free["forwards"], free["tokens"], free["usd"]) == (0, 0, 0, 0.0)
    gate = 3 * 2  # two texts, thrice: never from the cache
    assert [done.ledger.parities[0].cost.queries for done in (first, again)] == [gate, gate]
    assert free["measurement"]["queries"] == gate
    assert free["counts"]["cached_forwards"] > paid["counts"].get("cached_forwards", 0)
    assert "Forwards answered from the cache" in again.directory.report.read_text()


# ------------------------------------------------------------------------------------------------------- precision
def test_of_every_method_the_smallest_radius_is_calibrated_first(reviews: Path) -> None:
    rhos = [{**ZOT, "rho": rho} for rho in (0.3, 0.1, 0.2, 0.1, 0.5)]
    tree = space({"kind": "analytic"}, [*rhos, {**CMA, "sigma": 2.0}, {**RANDOM, "sigma": 0.05}])
    prepared = prepare(write_space(tree, reviews, "cases.yaml"), [])
    found = cases([plan.experiment for plan in prepared.plans], prepared.tasks)
    assert [(case.optimizer.kind, case.optimizer.radius) for case in found] == [
        ("random_search", 0.05),
        ("zot", 0.1),
        ("cma", 2.0),
        ("zot", 0.2),
    ]


@pytest.fixture(scope="module")
def kept(
    ray_cluster: None, llama: dict[str, Any], reviews: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Done]:
    """A run in bfloat16 whose differences are far above the rounding noise, and its space."""
    one = {"kind": "nevergrad", "optimizer": "OnePlusOne", "intrinsic_dim": 6, "num_workers": 1, "sigma": 2.0}
    path = bfloat16_space(llama, reviews, [COARSE, CMA, one], "kept.yaml")
    return path, run_space(path, tmp_path_factory.mktemp("kept") / "run")


@pytest.mark.ray
def test_a_precision_that_suffices_is_kept_and_written_down(kept: tuple[Path, Done]) -> None:
    path, done = kept
    assert done.status == "done"
    rows = done.ledger.calibrations
    assert [(row.method, row.radius_name, row.radius) for row in rows] == [
        ("zot", "rho", 1.0),
        ("cma", "sigma", 1.0),
        ("nevergrad", "sigma", 2.0),
    ]
    for row in rows:
        assert (row.dtype, row.used, row.cost.queries) == ("bfloat16", "bfloat16", 24)
        assert row.snr is not None
        assert row.snr > row.limit
    assert done.summary["totals"]["measurement"]["queries"] == 3 * 24 + 3 + 3
    assert done.summary["totals"]["queries"] <= 90
    assert {oracle["dtype"] for oracle in oracles_of(done.directory)} == {"bfloat16"}
    assert {oracle["tile"]["candidates"] for oracle in oracles_of(done.directory)} == {4}
    assert numbers(done.ledger) == numbers(run_alone(path)), "measuring beside the budget changes no number"
    page = done.directory.report.read_text()
    assert "Calibrated" in page
    assert "bfloat16 at" in page


@pytest.mark.extended  # an interrupted run that goes on stands for it
@pytest.mark.ray
def test_a_resumed_run_takes_what_was_chosen_and_calibrates_no_more(kept: tuple[Path, Done]) -> None:
    path, done = kept
    before = len(raw_rows(done.directory, "calibration"))
    oracles = oracles_of(done.directory)
    prepared = prepare_again(done.directory, path.parent)
    assert prepared.experiment.oracle.tile == Tile(candidates=4)

    shutil.rmtree(done.directory.tune)  # so that every trial begins again
    finished = run(prepared, done.directory, address=None, resume=True, command="test")
    assert finished.status == "done"
    assert len(raw_rows(done.directory, "calibration")) == before == 3
    assert oracles_of(done.directory) == oracles
    assert finished.summary["totals"]["measurement"]["queries"] == 3 * 24 + 3 + 3


@pytest.mark.extended  # a run that keeps its precision and one that is refused stand for it
@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_where_rounding_swamps_the_difference_auto_falls_back_to_float32(
    llama: dict[str, Any], reviews: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if not fast_bfloat16():
        pytest.skip("auto is float32 on this machine")
    path = write_space(
        space({**llama, "dtype": "auto", "tile": {}}, [FINE], budget={"queries": 30}), reviews, "fine.yaml"
    )
    done = run_space(path, tmp_path / "run", "oracle.actors=2")
    assert done.status == "done"
    (row,) = done.ledger.calibrations
    assert (row.dtype, row.used) == ("bfloat16", "float32")
    assert row.snr is not None
    assert row.snr < row.limit
    assert {oracle["dtype"] for oracle in oracles_of(done.directory)} == {"float32"}
    config = json.loads(done.directory.config.read_text())
    assert config["model"]["dtype"] == "float32"
    exact = write_space(space({**llama, "tile": {}}, [FINE], budget={"queries": 30}), reviews, "exact.yaml")
    assert numbers(done.ledger) == numbers(run_alone(exact))
    said = capsys.readouterr().out
    assert "bfloat16 at rho 1e-05 (zot)" in said
    assert "rounding swamps the difference" in said
    assert "again in float32" in said
    assert "below 3, so float32" in done.directory.report.read_text()


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_a_dtype_that_was_asked_for_by_name_is_refused_instead(
    llama: dict[str, Any], reviews: Path, tmp_path: Path
) -> None:
    import tune

    path = bfloat16_space(llama, reviews, [FINE], "refused.yaml")
    out = tmp_path / "run"
    result = CliRunner().invoke(tune.app, ["run", str(path), "--out", str(out)])
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: loss differences must be at least 3 times their rounding noise, but bfloat16")
    assert "rho 1e-05 of zot; set oracle.dtype: auto or float32, or a larger rho" in line
    assert not out.exists(), "nothing is in the way of the next try"


def fast_bfloat16() -> bool:
    from distributed_tuner.oracles.local.loading import resolve_dtype

    return str(resolve_dtype("auto", "cpu")) == "torch.bfloat16"
