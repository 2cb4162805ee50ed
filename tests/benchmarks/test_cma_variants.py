"""CMA-ES with restricted covariances: it searches, and is restored to the same bits."""

import numpy as np
import pytest

from benchmarks.searches.cma_variants import VARIANTS, Covariance, RestrictedCma
from distributed_tuner.config.optimizer import CmaConfig
from distributed_tuner.storage.serialization import decode, encode
from distributed_tuner.values import Latent

SAMPLERS = {"full": "GaussFullSampler", "separable": "GaussStandardConstant", "limited": "GaussVDSampler"}


def generations(search: RestrictedCma, count: int) -> list[np.ndarray]:
    asked = []
    for _ in range(count):
        candidates = [c.z for c in search.ask() if isinstance(c, Latent)]
        search.tell([float(np.sum((z - 1.0) ** 2)) for z in candidates])
        asked += candidates
    return asked


@pytest.mark.parametrize("step_size", ["csa", "tpa"])
@pytest.mark.parametrize("covariance", ["full", "separable", "limited"])
def test_a_restricted_covariance_is_learnt_and_restored_to_the_same_bits(covariance: Covariance, step_size):
    config = CmaConfig(intrinsic_dim=12, popsize=8, step_size=step_size)
    search, twin = (RestrictedCma(config, covariance, 40) for _ in range(2))
    first = generations(search, 12)
    assert type(search._es.sm).__name__ == SAMPLERS[covariance]
    twin.load_state_dict(decode(encode(search.state_dict()), "the state"))
    later = generations(search, 8)
    np.testing.assert_array_equal(later, generations(twin, 8))
    assert np.mean((np.array(later) - 1.0) ** 2) < np.mean((np.array(first) - 1.0) ** 2)


def test_the_first_variant_is_the_search_of_the_shipped_space():
    assert next(iter(VARIANTS.values())).config == CmaConfig(popsize=20, alpha=0.3, recommend="mean")
