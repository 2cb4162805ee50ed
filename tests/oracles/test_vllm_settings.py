"""The vLLM oracle where there is no vLLM: that it is missing, what does not go together, whose Python it gets."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from actors.pool.worker import _environment
from distributed_tuner import oracles
from distributed_tuner.config.oracle import AnalyticOracleConfig, VllmOracleConfig
from distributed_tuner.errors import ModelError
from distributed_tuner.oracles.served import vllm_engine


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


class FakeVllm:
    """An engine's model that answers every sequence with the same log-probabilities."""

    def __init__(self, logprobs: Any) -> None:
        self.logprobs = logprobs
        self.asked: list[Any] = []

    def generate(self, prompts: list[Any], asked: Any, use_tqdm: bool) -> list[Any]:
        self.asked.append(asked[0])
        answer = SimpleNamespace(logprobs=self.logprobs, token_ids=(1,))
        return [SimpleNamespace(outputs=[answer]) for _ in prompts]


def engine_of(model: FakeVllm, monkeypatch: pytest.MonkeyPatch) -> vllm_engine.VllmEngine:
    def sampling(**given: Any) -> SimpleNamespace:
        return SimpleNamespace(**{"prompt_logprobs": None} | given)

    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(SamplingParams=sampling))
    engine = object.__new__(vllm_engine.VllmEngine)
    engine._prefix_caching = False
    engine._llm = model
    return engine


def test_more_words_than_one_request_takes_are_asked_in_several(monkeypatch: pytest.MonkeyPatch) -> None:
    model = FakeVllm([{i: SimpleNamespace(logprob=-float(i), rank=0) for i in range(300)}])
    found = engine_of(model, monkeypatch).log_probabilities([[1], [2]], range(300))
    np.testing.assert_array_equal(found, -np.arange(300, dtype=np.float32) * np.ones((2, 1)))
    assert [len(asked.logprob_token_ids) for asked in model.asked] == [128, 128, 44]


@pytest.mark.parametrize("logprobs", [None, [None], [{}], [{5: SimpleNamespace(logprob=0.0)}]])
def test_an_answer_without_what_was_asked_for_is_no_score(logprobs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ModelError, match=r"log-probabilities of all 2 tokens .* \(token 6 is the first|token 5 is the first"
    ):
        engine_of(FakeVllm(logprobs), monkeypatch).log_probabilities([[1]], [5, 6])


def test_embeddings_are_never_scored_by_their_prompts_log_probabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of(FakeVllm([{}]), monkeypatch)
    asked = SimpleNamespace(prompt_logprobs=0)
    with pytest.raises(ModelError, match="no log-probabilities of a prompt that is given as embeddings"):
        engine._generate([np.zeros((2, 3))], [asked])  # type: ignore[list-item]
    assert len(engine._generate([[1, 2]], [asked])) == 1


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
