"""The small quadratic world of the conformance suite, as fixtures."""

from collections.abc import Callable

import pytest

from distributed_tuner.testing.quadratic import answer, materialise, run, sphere
from distributed_tuner.values import Array, Candidate


@pytest.fixture(name="materialise")
def materialise_fixture() -> Callable[[Candidate], Array]:
    return materialise


@pytest.fixture(name="sphere")
def sphere_fixture() -> Callable[[Array], float]:
    return sphere


@pytest.fixture(name="answer")
def answer_fixture() -> Callable[..., None]:
    return answer


@pytest.fixture(name="run")
def run_fixture() -> Callable[..., list[Array]]:
    return run
