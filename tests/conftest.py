"""What several suites share: the one Ray cluster of a test run, and which tests load a language model."""

import logging
import os
from collections.abc import Iterator

import pytest

MODELS = frozenset({"tiny_directory", "tiny_model", "tiny_llama", "tiny_white", "plain_model", "chat_model", "llama"})
"""Fixtures that make tiny random models; whoever uses them is marked ``model``."""


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if not MODELS.isdisjoint(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.model)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """Start a small Ray cluster; runs join it."""
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    import ray

    from actors.cluster import lend_path

    lend_path()
    ray.init(
        address="local",
        num_cpus=6,
        include_dashboard=False,
        logging_level=logging.ERROR,
        log_to_driver=False,
    )
    yield
    ray.shutdown()
