"""The scaling benchmark in small: two emulated devices behind a real dispatcher, its arithmetic, its verdicts."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from benchmarks import emulated, node_growth, round_trips, split_threads, wire_bytes
from benchmarks.emulated import Crowd, Load
from benchmarks.populations import INTRINSIC, Population
from benchmarks.scaling import Results, device_cells, main, report, throughput, verdicts, weight
from benchmarks.texts import batch
from distributed_tuner import oracles
from distributed_tuner.config.oracle import AnalyticOracleConfig
from distributed_tuner.oracles.base import value_and_grad
from distributed_tuner.oracles.cost_model import build_counter
from distributed_tuner.values import Latent, Perturbation

CPU = {"dispatcher": 1.0, "oracles": 3.0, "trials": 0.5, "ray": 0.5}
ROW = emulated.Row(16, 1, 2, "ZOT", 0.05, 10.0, 3100, 512, 12, CPU, 40 * 2.0**20, 0, 0)


def population(asks: Any, size: int = 6) -> Population:
    return Population(asks, size, batch("quickstart"), emulated.PROMPT, (0, "trial-0000", 0), emulated.WIDTH)


def test_zot_asks_for_pairs_around_a_new_centre_each_step() -> None:
    first, second = (population("ZOT").request(step).candidates for step in (1, 2))
    pairs = [one for one in first if isinstance(one, Perturbation)]
    assert [one.sign for one in pairs] == [1, -1] * 3
    assert len({one.key for one in pairs}) == 3
    assert len({one.center.id for one in pairs}) == 1
    assert not {one.center.id for one in second if isinstance(one, Perturbation)} & {one.center.id for one in pairs}


def test_cma_asks_for_latent_vectors_that_differ() -> None:
    request = population("CMA-ES").request(0)
    vectors = np.stack([one.z for one in request.candidates if isinstance(one, Latent)])
    assert vectors.shape == (6, INTRINSIC) and vectors.dtype == np.float32
    assert len(np.unique(vectors, axis=0)) == 6


@pytest.mark.parametrize("function", ["flat", "quadratic"])
def test_an_emulated_device_takes_its_time_and_answers_as_without(function: Any) -> None:
    config = AnalyticOracleConfig(kind="analytic", function=function, width=emulated.WIDTH)
    slow = config.model_copy(update={"seconds": 0.02})
    request = population("ZOT").request(1)
    answers = [oracles.build(each).evaluate(request) for each in (config, slow)]
    assert answers[0].logits.tobytes() == answers[1].logits.tobytes()
    assert answers[1].cost.seconds >= 0.02
    assert build_counter(slow).seconds(request) >= 0.02


def test_a_flat_oracle_gives_every_prompt_the_loss_of_knowing_nothing() -> None:
    oracle = oracles.build(AnalyticOracleConfig(kind="analytic", function="flat", width=emulated.WIDTH))
    request = population("ZOT").request(1)
    plain, derived = oracle.evaluate(request), value_and_grad(oracle, request)
    for answer in (plain, derived):
        assert answer.losses == pytest.approx(np.log(len(request.batch.label_words)))
    assert plain.gradients is None and plain.cost == replace(oracle.cost(request), seconds=plain.cost.seconds)
    assert derived.gradients is not None and not derived.gradients.any()


def test_shares_are_of_devices_that_never_wait() -> None:
    assert ROW.rate == pytest.approx(310.0)
    assert ROW.share == pytest.approx(310 / 320)
    assert ROW.dispatcher_share == pytest.approx(0.1)
    assert ROW.cpu_share == pytest.approx(0.5)
    assert ROW.cpu_a_tile("dispatcher", "trials") == pytest.approx(1.5 / 3100)
    assert ROW.cpu_a_tile() == pytest.approx(5 / 3100)
    assert replace(ROW, service=0.0).share is None
    assert device_cells(replace(ROW, service=0.0, memory=None)).count("-") == 2


def test_the_verdict_is_of_the_worst_row() -> None:
    worse = replace(ROW, trials=16, ahead=1, tiles=2900)
    assert throughput([ROW], 16, 0.95).met is True
    assert throughput([ROW, worse], 16, 0.95).met is False
    assert "16 x 1, ZOT 90.6%" in throughput([ROW, worse], 16, 0.95).measured
    assert throughput([ROW, replace(worse, trials=1)], 16, 0.95).met is True, "one request at a time is not judged"
    assert throughput([ROW], 64, 0.9).met is None


def test_the_heavier_way_decides() -> None:
    row = wire_bytes.Row("ZOT", 20, 4, 3000, 900, 50.0, 1000)
    assert weight([row], "ZOT", 200).met is False
    assert weight([replace(row, tile=700)], "ZOT", 200).met is True
    assert weight([], "ZOT", 200).met is None


def test_nothing_measured_is_said_of_every_target() -> None:
    judged = verdicts(Results())
    assert {verdict.met for verdict in judged} == {None}
    assert report(Results(), judged)[1:] == [str(verdict) for verdict in judged]


@pytest.mark.parametrize(
    ("arguments", "said"), [(["--actors", "1,none"], "numbers from 1"), (["--parts", "byts"], "must be one of")]
)
def test_bad_input_is_refused(arguments: list[str], said: str) -> None:
    done = CliRunner().invoke(command(), arguments)
    assert done.exit_code == 2
    assert said in " ".join(done.output.replace("│", "").split())


@pytest.mark.extended  # the whole command stands for its parts
@pytest.mark.ray
def test_two_devices_answer_two_trials(ray_cluster: None) -> None:
    crowds = (Crowd(1, 2), Crowd(2))
    rows = emulated.measure((2,), crowds, ("ZOT", "CMA-ES"), Load(0.01, 4, 0.5, 0.2), lambda line: None)
    assert [(row.actors, row.trials, row.ahead, row.asks) for row in rows] == [
        *((2, 1, 2, "ZOT"), (2, 1, 2, "CMA-ES")),
        *((2, 2, 1, "ZOT"), (2, 2, 1, "CMA-ES")),
    ]
    assert {row.population for row in rows} == {8}
    for row in rows:
        assert row.tiles > 0 and row.requests >= row.trials
        assert row.share is not None and 0 < row.share <= 1.1
        assert {"oracles", "dispatcher", "trials", "driver", "ray"} <= row.cpu.keys()
        assert row.memory is not None and row.memory > 2**20
        assert row.retries == row.duplicates == 0


@pytest.mark.extended  # likewise
@pytest.mark.ray
def test_a_pool_gives_the_oracles_own_answers_one_by_one(ray_cluster: None) -> None:
    rows = round_trips.measure(3)
    assert [(row.asks, row.candidates, row.tiles, len(row.pooled)) for row in rows] == [
        *(("ZOT", 2, 1, 3), ("ZOT", 20, 5, 3)),
        ("CMA-ES", 20, 5, 3),
    ]


@pytest.mark.extended  # likewise
@pytest.mark.ray
def test_two_real_oracles_take_turns_with_one(ray_cluster: None, tiny_llama: Path) -> None:
    found = split_threads.measure(2, str(tiny_llama), "SST-2")
    assert len(found.one_of_two_threads) == len(found.two_of_one_thread) == 2
    assert found.ratio > 0 and min(found.rates()) > 0


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.extended  # a pool on an autoscaled cluster stands for it
def test_a_pool_grows_where_nodes_have_to_come() -> None:
    found = node_growth.measure()
    assert found.first > 0 and 1 <= len(found.growth) < node_growth.NODES
    assert all(0 < node < actor for node, actor in found.growth)


@pytest.mark.ray
def test_the_command_prints_tables_and_verdicts_and_writes_json(ray_cluster: None, tmp_path: Path) -> None:
    file = tmp_path / "new" / "scaling.json"
    small = ["--quick", "--actors", "2", "--trials", "1", "--window", "0.5", "--rounds", "2"]
    done = CliRunner().invoke(command(), [*small, "--json", str(file)])
    assert done.exit_code == 0, done.output
    assert "| 2 | 1 x 1 | ZOT | 64 |" in done.output and "| 2 | 1 x 2 | ZOT | 32 |" in done.output
    assert "not measured  64 emulated devices" in done.output
    written = json.loads(file.read_text(encoding="utf-8"))
    assert {row["asks"] for row in written["devices"]} == {"ZOT", "CMA-ES"}
    assert [row["asks"] for row in written["bytes"]] == ["ZOT", f"CMA-ES, {INTRINSIC} dimensions", "words"]
    assert written["limit"] == [] and written["threads"] is None
    assert len(written["targets"]) == 4


def command() -> typer.Typer:
    app = typer.Typer()
    app.command()(main)
    return app
