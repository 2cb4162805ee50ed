"""The vLLM oracle where there is no vLLM: that it is missing, what does not go together, whose Python it gets."""

import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from actors.oracle import _environment
from distributed_tuner import oracles
from distributed_tuner.config.oracle import AnalyticOracleConfig, VllmOracleConfig
from distributed_tuner.errors import ModelError
from distributed_tuner.oracles import vllm_engine


def config(**more: Any) -> VllmOracleConfig:
    return VllmOracleConfig(kind="vllm", **more)


def test_without_vllm_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_engine.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"make vllm.*oracle.python") as refused:
        oracles.build(config())
    assert sys.executable in str(refused.value)


def test_a_folder_called_vllm_is_not_vllm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "vllm").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "vllm", raising=False)
    with pytest.raises(ModelError, match="needs vLLM"):
        oracles.build(config())


def test_an_engine_over_two_gpus_needs_both() -> None:
    with pytest.raises(ValidationError, match=r"tensor_parallel_size is 2 and gpus 1; set gpus: 2"):
        config(tensor_parallel_size=2, gpus=1)
    config(tensor_parallel_size=2, gpus=2)


def test_only_an_engine_has_a_python_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert "py_executable" not in _environment(AnalyticOracleConfig(kind="analytic"))
    assert "py_executable" not in _environment(config())
    assert _environment(config(python="python3.11"))["py_executable"] == "python3.11"
    environment = _environment(config(python="my env/bin/python", threads=3))
    assert environment["py_executable"] == f"'{tmp_path}/my env/bin/python'"
    assert environment["env_vars"]["OMP_NUM_THREADS"] == "3"


def test_the_link_of_a_virtual_environment_is_not_followed(tmp_path: Path) -> None:
    link = tmp_path / "python"
    link.symlink_to(sys.executable)
    assert _environment(config(python=str(link)))["py_executable"] == str(link)
