"""A pool that is larger than its cluster says so instead of waiting in silence."""

import pytest

from actors.cluster import shortage
from distributed_tuner.config.oracle import AnalyticOracleConfig

pytestmark = pytest.mark.ray


def test_a_pool_larger_than_the_cluster_says_what_is_missing(ray_cluster: None) -> None:
    fits = AnalyticOracleConfig(kind="analytic", actors=2, threads=1)
    assert shortage(fits) is None
    too_large = AnalyticOracleConfig(kind="analytic", actors=50, threads=1, gpus=0.5)
    message = shortage(too_large)
    assert message is not None
    assert "50 CPUs and has 6" in message
    assert "25 GPUs and has 0" in message
