"""Fixtures of several suites: the one Ray cluster of a test run, tests that load a language model, and the model
architectures that stand for others."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from object_store import KEYS

try:
    from hypothesis import settings
except ModuleNotFoundError:  # vLLM's environment does without
    pass
else:
    settings.register_profile("patient", deadline=None)  # a machine that is slow is none of a test's business
    settings.load_profile("patient")

MODELS = frozenset({"tiny_directory", "tiny_model", "tiny_llama", "tiny_white", "plain_model", "chat_model", "llama"})
"""Fixtures that make tiny random models; whoever uses them is marked ``model``."""


HERE = Path(__file__).parent
WITH_RAY = ("actors", "benchmarks")
STANDS_FOR = {"qwen2": "llama", "mistral": "llama", "opt": "gpt2", "bert": "roberta"}
"""Rotary embeddings, learned positions, masked models: where a test has both, the first of the two is ``extended``."""


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    tested: dict[str, set[object]] = {}  # what each test has cases of
    for item in items:
        tested.setdefault(_name(item), set()).update(_case(item))
    for item in items:
        folder = item.path.relative_to(HERE).parts[0]
        if item.get_closest_marker("ray") and not item.get_closest_marker("vllm") and folder not in WITH_RAY:
            raise pytest.UsageError(
                f"make test looks for tests with Ray in {WITH_RAY} alone, but there is {item.nodeid}"
            )
        if not MODELS.isdisjoint(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.model)
        if any(STANDS_FOR.get(part) in tested[_name(item)] for part in _case(item)):
            item.add_marker(pytest.mark.extended)


def _name(item: pytest.Item) -> str:
    return item.nodeid.partition("[")[0]


def _case(item: pytest.Item) -> list[str]:
    """Return the words among the parameters of a case."""
    case = getattr(item, "callspec", None)
    return [] if case is None else [value for value in case.params.values() if isinstance(value, str)]


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """Start a small Ray cluster; runs join it."""
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    import ray

    from actors.cluster import lend_path

    lend_path()
    keys = {name: key for name, key in KEYS.items() if name not in os.environ}
    os.environ.update(keys)  # Ray's workers have the environment of its start, and may be asked to write to a store
    ray.init(
        address="local",
        num_cpus=6,
        include_dashboard=False,
        logging_level=logging.ERROR,
        log_to_driver=False,
    )
    for name in keys:
        del os.environ[name]
    yield
    ray.shutdown()
