"""Conformance suites: what every optimizer, head, oracle, task and proposer promises, as tests of pytest.

A test module of your own derives a suite and names its part; pytest collects the tests from there:

    from distributed_tuner.testing import OptimizerSuite

    class TestMine(OptimizerSuite):
        part = Mine
        settings = {"sigma": 0.2}

The project's own members pass the same suites. Needs pytest (``pip install 'distributed-prompt-tuner[test]'``).
"""

import importlib
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from distributed_tuner.testing.heads import FittedHeadSuite, HeadSuite
    from distributed_tuner.testing.optimizers import OptimizerSuite
    from distributed_tuner.testing.oracles import OracleSuite, VocabularySuite
    from distributed_tuner.testing.proposers import ProposerSuite
    from distributed_tuner.testing.tasks import TaskSuite

__all__ = [
    "FittedHeadSuite",
    "HeadSuite",
    "OptimizerSuite",
    "OracleSuite",
    "ProposerSuite",
    "TaskSuite",
    "VocabularySuite",
]

SUITES = {
    "FittedHeadSuite": "heads",
    "HeadSuite": "heads",
    "OptimizerSuite": "optimizers",
    "OracleSuite": "oracles",
    "ProposerSuite": "proposers",
    "TaskSuite": "tasks",
    "VocabularySuite": "oracles",
}
for _module in sorted(set(SUITES.values())):
    pytest.register_assert_rewrite(f"{__name__}.{_module}")  # has failed assertions say what stood on both sides


def __getattr__(name: str) -> Any:
    """Return a suite, whose module is imported when it is asked for."""
    if name not in SUITES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{SUITES[name]}"), name)
