"""Keys: named in the settings, read from the environment or a mounted file, and shown nowhere."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from distributed_tuner.clients.openai import Endpoint
from distributed_tuner.config.proposer import OpenAIProposerConfig
from distributed_tuner.errors import ProposerError
from distributed_tuner.shown import masked

KEY = "sk-RECOGNISABLE-0123456789"


def written(folder: Path, **oracle: Any) -> Path:
    """Write a space that asks a server."""
    space = {
        "name": "served",
        "task": {"kind": "demo"},
        "oracle": {"kind": "openai", "model": "m", **oracle},
        "prompt": {"kind": "text"},
        "stages": [{"kind": "search", "optimizer": {"kind": "token_edit"}}],
        "budget": {"queries": 10},
    }
    path = folder / "space.yaml"
    path.write_text(yaml.safe_dump(space))
    return path


@pytest.mark.parametrize("command", ["check", "run"])
@pytest.mark.parametrize(
    ("oracle", "says"),
    [
        ({"api_key": KEY}, "oracle.api_key is not a known setting; did you mean 'api_key_env'?"),
        ({"api_key_env": KEY}, "oracle.api_key_env must be the name of an environment variable, in capitals"),
        ({"api_key_env": KEY.replace("-", "_")}, "oracle.api_key_env must be the name of an environment variable"),
        ({"base_url": f"https://me:{KEY}@host/v1"}, "what was given is not shown, since it may hold a key"),
        ({"base_url": f"https://host/v1?key={KEY}"}, "give that by api_key_env"),
        ({"headers": {"Authorization": KEY}}, "oracle.headers is not a known setting"),
        ({"extra_body": {"provider": {"api_key": "short"}}}, "no field of it may be or look like a key"),
        ({"extra_body": {"user": KEY}}, "oracle.extra_body: extra_body is written down with the run"),
        ({"extra_body": KEY}, "oracle.extra_body"),
    ],
)
def test_a_key_in_the_settings_is_refused_and_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, oracle: dict[str, Any], says: str, command: str
) -> None:
    import tune

    path = written(tmp_path, **oracle)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(tune.app, [command, str(path)])
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert says in line
    assert KEY not in line and KEY.replace("-", "_") not in line
    assert [found.name for found in tmp_path.iterdir()] == ["space.yaml"]


@pytest.mark.parametrize("name", ["api_key", "api_key_env"])
def test_a_key_on_the_command_line_is_refused_and_not_shown(tmp_path: Path, name: str) -> None:
    import tune

    result = CliRunner().invoke(tune.app, ["check", str(written(tmp_path)), "--set", f"oracle.{name}={KEY}"])
    assert result.exit_code == 2
    assert f"oracle.{name}" in result.stderr
    assert KEY not in result.output


LETTERS = "Abc0" * 8  # a key without a prefix that tells


@pytest.mark.parametrize("key", [KEY, LETTERS], ids=["prefix", "letters"])
@pytest.mark.parametrize(
    "typed",
    [
        ["--set", "{key}"],
        ["--set", "{key}=1"],
        ["--set", "oracle={key}"],
        ["--set", "oracle.price={key}"],
        ["--set", "oracle.timeout={key}"],
        ["--set", "oracle.{key}=1"],
        ["--set", "stages.{key}=1"],
        ["--set", "stages.0.{key}=1"],
        ["--set", "oracle.kind={key}"],
        ["--set", "oracle.timeout=!{key} [1]"],
        ["--set", "oracle.timeout=!uniform [{key}, 1]"],
        ["--set", "task.template={key}"],
        ["--set", "oracle.api_key", "{key}"],
        ["--{key}"],
        ["{key}"],
    ],
    ids=" ".join,
)
def test_a_key_is_not_repeated_wherever_it_was_typed(tmp_path: Path, key: str, typed: list[str]) -> None:
    import tune

    arguments = [part.format(key=key) for part in typed]
    result = CliRunner().invoke(tune.app, ["check", str(written(tmp_path)), *arguments])
    assert result.exit_code == 2 and result.stderr
    assert key not in result.output and key[4:] not in result.output
    assert f"{key[:3]}***" in result.output


@pytest.mark.parametrize("name", [KEY, LETTERS])
def test_a_key_that_stands_as_a_name_in_the_yaml_is_not_repeated(tmp_path: Path, name: str) -> None:
    import tune

    for text in (f"{name}: 1", f"oracle: {{{name}: 1}}", f"{name}: 1\n{name}: 2", name, f"oracle: !{name} [1]"):
        path = tmp_path / "space.yaml"
        path.write_text(f"task: {{kind: demo}}\n{text}\n")
        result = CliRunner().invoke(tune.app, ["check", str(path)])
        assert result.exit_code == 2
        assert name not in result.output


@pytest.mark.parametrize(
    "text",
    [
        "hf-internal-testing/tiny-random-gpt2",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "runs/2026-12-01_sst2-zot-and-cma_seed0",
        "intrinsic_dim, learning_rate, max_concurrent_trials",
        "risk-averse-2026-model, task-2026-01",
        "Donaudampfschifffahrtsgesellschaft",
        "12345678901234567890123",
    ],
)
def test_names_and_numbers_are_no_keys(text: str) -> None:
    assert masked(text) == text


# ------------------------------------------------------------------------------------------------------ mounted files
def key_of(**settings: Any) -> str:
    config = OpenAIProposerConfig(kind="openai", model="m", api_key_env="MY_KEY", **settings)
    return Endpoint("proposer", config, ProposerError).key()


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A mounted secret, which ends in a line break as such files do."""
    path = tmp_path / "key"
    path.write_text(f"{KEY}\n")
    monkeypatch.delenv("MY_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setenv("MY_KEY_FILE", str(path))
    return path


def test_a_key_may_be_mounted_as_a_file(mounted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert key_of() == KEY
    mounted.write_text("sk-another")
    assert key_of() == "sk-another"
    monkeypatch.setenv("MY_KEY", "sk-first")
    assert key_of() == "sk-first"


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda path: path.unlink(), "No such file"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "it is no text"),
        (lambda path: path.write_text("schl\u00fcssel"), "plain ASCII"),
        (lambda path: path.write_text(" \n"), "the environment variable MY_KEY is not set"),
    ],
)
def test_a_file_that_holds_no_key_is_told_without_what_is_in_it(
    mounted: Path, spoil: Callable[[Path], Any], says: str
) -> None:
    spoil(mounted)
    with pytest.raises(ProposerError, match=says) as told:
        key_of()
    assert "MY_KEY" in str(told.value) and "schl" not in str(told.value)


# ------------------------------------------------------------------------------------------------------- job metadata
def test_what_ray_is_told_of_an_actors_environment_is_written_by_us_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray shows runtime environments on its dashboard, and in its logs."""
    from actors.pool.worker import _environment
    from distributed_tuner.config.oracle import OpenAIOracleConfig, TransformersOracleConfig

    for name in ("OPENAI_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, KEY)
    for config in (
        OpenAIOracleConfig(kind="openai", model="m"),
        TransformersOracleConfig(kind="transformers", model="m"),
    ):
        variables = _environment(config)["env_vars"]
        assert variables and all(name.endswith("_THREADS") or value.isdigit() for name, value in variables.items())
        assert KEY not in str(variables)
