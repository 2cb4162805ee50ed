"""What several suites share: the one Ray cluster of a test run, and which tests load a language model."""

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODELS = frozenset({"tiny_directory", "tiny_model", "tiny_llama", "tiny_white", "plain_model", "chat_model", "llama"})
"""Fixtures that make tiny random models; whoever uses them is marked ``model``."""


def pytest_configure(config: pytest.Config) -> None:
    """Give each process of a test run its own folder for Ray's sessions, where a bare ``ray.init()`` looks for one."""
    if (worker := os.environ.get("PYTEST_XDIST_WORKER")) is not None:
        folder = tempfile.mkdtemp(prefix=f"ray-{worker}-", dir="/tmp")  # short: the paths of Ray's sockets have a limit
        os.environ["RAY_TMPDIR"] = folder
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


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

    ray.init(
        address="local",
        num_cpus=6,
        include_dashboard=False,
        logging_level=logging.ERROR,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}},
    )
    yield
    ray.shutdown()
