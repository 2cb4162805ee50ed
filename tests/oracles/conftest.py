"""The oracles that the suites run over: both analytic functions, a tiny model of every architecture, and a server."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from completions_server import CompletionsServer
from tiny_models import make_tokenizer, plain_model, save_tiny

from distributed_tuner import oracles
from distributed_tuner.config.oracle import AnalyticOracleConfig, OpenAIOracleConfig, TransformersOracleConfig
from distributed_tuner.oracles.base import LossOracle
from distributed_tuner.oracles.served.openai import OpenAIOracle


@pytest.fixture(scope="session")
def tiny_directory(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return the directory of a tiny model, made at the first call."""
    made: dict[tuple[str, bool], Path] = {}

    def directory(architecture: str, bos: bool = False) -> Path:
        key = (architecture, bos)
        if key not in made:
            made[key] = save_tiny(architecture, tmp_path_factory.mktemp(f"{architecture}-bos{bos}"), bos)
        return made[key]

    return directory


@pytest.fixture(scope="session")
def tiny_config(tiny_directory: Callable[..., Path]) -> Callable[..., TransformersOracleConfig]:
    """Return the oracle settings of a tiny model."""

    def config(architecture: str, bos: bool = False, **more: Any) -> TransformersOracleConfig:
        settings = {"dtype": "float32", "device": "cpu", "threads": 1} | more
        return TransformersOracleConfig(kind="transformers", model=str(tiny_directory(architecture, bos)), **settings)

    return config


@pytest.fixture(scope="session")
def tiny_oracle(tiny_config: Callable[..., TransformersOracleConfig]) -> Callable[..., LossOracle]:
    """Return the oracle of a tiny model; one a setting and session."""
    built: dict[str, LossOracle] = {}

    def oracle(architecture: str, bos: bool = False, **more: Any) -> LossOracle:
        config = tiny_config(architecture, bos, **more)
        return built.setdefault(config.model_dump_json(), oracles.build(config))

    return oracle


@pytest.fixture(scope="session")
def plain(tiny_directory: Callable[..., Path]) -> Callable[..., tuple[Any, Any]]:
    """Return a tiny model and its tokenizer as transformers loads them."""
    loaded: dict[tuple[str, bool], tuple[Any, Any]] = {}

    def model(architecture: str, bos: bool = False) -> tuple[Any, Any]:
        key = (architecture, bos)
        if key not in loaded:
            loaded[key] = plain_model(tiny_directory(architecture, bos))
        return loaded[key]

    return model


@pytest.fixture(scope="session")
def analytic() -> Callable[..., LossOracle]:
    """Return an analytic oracle."""
    return lambda **more: oracles.build(AnalyticOracleConfig(kind="analytic", **more))


# --------------------------------------------------------------------------------------------------- a server
@pytest.fixture
def server() -> Iterator[CompletionsServer]:
    """Return a server that is up; it may be stopped and started again."""
    state = CompletionsServer()
    state.start()
    yield state
    state.stop()


@pytest.fixture
def settings(server: CompletionsServer, monkeypatch: pytest.MonkeyPatch) -> Callable[..., OpenAIOracleConfig]:
    """Return settings of an oracle that asks the server."""
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setenv("ORACLE_KEY", "sk-RECOGNISABLE-0123456789")
    known = {"model": "m", "base_url": server.url, "api_key_env": "ORACLE_KEY", "api": "completions", "timeout": 10.0}
    return lambda **more: OpenAIOracleConfig(kind="openai", **(known | more))


@pytest.fixture
def pauses() -> list[float]:
    """Return the pauses that oracles made, which are written down and not slept."""
    return []


@pytest.fixture
def make(settings: Callable[..., OpenAIOracleConfig], pauses: list[float]) -> Iterator[Callable[..., OpenAIOracle]]:
    """Return oracles that ask the server; all are closed at the end. ``sleep``: what they pause with."""
    made: list[OpenAIOracle] = []

    async def note(seconds: float) -> None:
        pauses.append(seconds)

    def build(sleep: Any = note, **more: Any) -> OpenAIOracle:
        made.append(OpenAIOracle(settings(**more), sleep))
        return made[-1]

    yield build
    for oracle in made:
        oracle.close()


@pytest.fixture(scope="session")
def tokenizer_directory(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the directory of a tokenizer alone, which begins texts with a special token."""
    directory = tmp_path_factory.mktemp("tokenizer")
    make_tokenizer(bos=True).save_pretrained(directory)
    return str(directory)
