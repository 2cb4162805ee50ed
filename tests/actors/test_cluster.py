"""A pool that is larger than its cluster says so instead of waiting in silence; where the head is."""

import pytest

from actors.cluster import HEAD, HEAD_SHARE, head, head_for_trials, shortage
from distributed_tuner.config.oracle import AnalyticOracleConfig, Elastic

pytestmark = pytest.mark.ray


def test_a_pool_larger_than_the_cluster_says_what_is_missing(ray_cluster: None) -> None:
    fits = AnalyticOracleConfig(kind="analytic", actors=2, threads=1)
    assert shortage(fits) is None
    too_large = AnalyticOracleConfig(kind="analytic", actors=50, threads=1, gpus=0.5)
    message = shortage(too_large)
    assert message is not None
    assert "50 CPUs and has 6" in message
    assert "25 GPUs and has 0" in message


def test_a_pool_that_grows_asks_for_its_first_actors_alone(ray_cluster: None) -> None:
    assert shortage(AnalyticOracleConfig(kind="analytic", actors=Elastic(min=0, max=50), threads=6)) is None
    message = shortage(AnalyticOracleConfig(kind="analytic", actors=Elastic(min=2, max=50), threads=6))
    assert message is not None
    assert "12 CPUs and has 6" in message


def test_a_pool_for_a_market_says_when_no_machine_is_of_it(ray_cluster: None) -> None:
    message = shortage(AnalyticOracleConfig(kind="analytic", threads=1, market="spot"))
    assert message is not None
    assert "ray.io/market-type: spot" in message


def test_the_head_is_known(ray_cluster: None) -> None:
    assert head() == head_for_trials() == {HEAD: HEAD_SHARE}
