"""Size of a pool if its settings leave it open."""

from pathlib import Path

import pytest

from distributed_tuner.config.oracle import (
    AnalyticOracleConfig,
    Elastic,
    OpenAIOracleConfig,
    TransformersOracleConfig,
    VllmOracleConfig,
)
from distributed_tuner.oracles import pool_size
from distributed_tuner.oracles.pool_size import sized, usable_cores

GIB = 2**30


def transformers(**more: object) -> TransformersOracleConfig:
    return TransformersOracleConfig.model_validate({"kind": "transformers"} | more)


@pytest.mark.parametrize(
    ("slots", "tiles", "model", "free", "actors"),
    [
        (2, 6, 0, None, 2),  # as many as cores
        (16, 6, 0, None, 6),  # no more than have something to do
        (1, 6, 0, None, 1),
        (0, 6, 0, None, 1),  # a cluster that has nothing yet: an autoscaler may bring it
        (8, 8, 2 * GIB, 9 * GIB, 2),  # their models take half of the free memory at most
        (8, 8, 20 * GIB, 9 * GIB, 1),  # whether one fits is for the model's loading to find
        (8, 8, 2 * GIB, None, 8),
    ],
)
def test_actors_by_cores_tiles_and_memory(slots: int, tiles: int, model: int, free: int | None, actors: int) -> None:
    found = sized(transformers(), slots=slots, tiles=tiles, model_bytes=model, free=free)
    assert (found.actors, found.threads) == (actors, 1)


def test_what_is_set_stays() -> None:
    limits = Elastic(min=1, max=3)
    assert sized(transformers(actors=5, threads=4), slots=2, tiles=1) == transformers(actors=5, threads=4)
    assert sized(transformers(actors=limits), slots=2, tiles=1).actors == limits
    assert sized(transformers(threads=4), slots=8, tiles=9).actors == 2


def test_actors_with_gpus_are_counted_by_them() -> None:
    assert sized(transformers(gpus=1), slots=4, tiles=9).actors == 4
    assert sized(transformers(gpus=0.5), slots=4, tiles=9).actors == 8


def test_engines_and_servers_need_one_actor() -> None:
    engine, server = VllmOracleConfig(kind="vllm"), OpenAIOracleConfig(kind="openai", model="m")
    assert (sized(engine, slots=8, tiles=9).actors, sized(engine, slots=8, tiles=9).threads) == (1, 2)
    assert (sized(server, slots=8, tiles=9).actors, sized(server, slots=8, tiles=9).threads) == (1, 1)


def test_a_pool_that_is_not_sized_yet_is_one_actor() -> None:
    config = AnalyticOracleConfig(kind="analytic")
    assert (config.first_actors, config.most_actors, config.thread_count) == (1, 1, 1)


@pytest.mark.parametrize(("quota", "cores"), [("150000 100000", 1), ("max 100000", None), ("50000 100000", 1)])
def test_a_containers_quota_counts(
    quota: str, cores: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_size, "CGROUP_CPUS", tmp_path / "missing")
    without = usable_cores()
    (tmp_path / "cpu.max").write_text(quota)
    monkeypatch.setattr(pool_size, "CGROUP_CPUS", tmp_path / "cpu.max")
    assert usable_cores() == (without if cores is None else cores)
