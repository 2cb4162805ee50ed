"""Architectures of transformers: the oracle's losses are those of each model's plain pass, in every layout.

Which they are and how they are measured is benchmarks/families.py's.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.families import FAMILIES, LENGTH, ORIGINAL, WINDOW, Family, batch, make, measure, tokenizer
from distributed_tuner.config.oracle import TransformersOracleConfig
from distributed_tuner.errors import ModelError
from distributed_tuner.oracles.codec import codec_of
from distributed_tuner.oracles.cost_model import build_counter
from distributed_tuner.oracles.local.cpu_linear import pack_linears, unpack_linears
from distributed_tuner.oracles.local.oracle import TransformersOracle
from distributed_tuner.seeds import standard_normal
from distributed_tuner.values import Example, Point, PromptSpec, Request, Text

TOLERANCE = 1e-5
SPEC = PromptSpec(LENGTH, "zeros", "", "prefix", "embedding")
STANDING = {
    "LLaMA": "yes",
    "Phi-3 with LongRoPE": f"up to {ORIGINAL} tokens",
    "Gemma 3 multimodal": f"up to {WINDOW} tokens",  # settings inside settings, scaled embeddings
    "DeepSeek-V3": "yes",  # values narrower than keys
    "Phi-3.5-MoE": "yes",  # a linear layer that is more than one
    "BitNet": "yes",
    "GPT-OSS": "no",  # attention sinks
    "Gemma 2": "no",  # capped scores
    "BLOOM": "no",  # ALiBi
    "LFM2": "no",  # convolutions
    "RoBERTa": "yes",
}
"""Those that stand for the others, each for its own reason, and which of their rows share a sequence."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def of(name: str) -> Path:
        if name not in made:
            made[name] = make(FAMILIES[name], tmp_path_factory.mktemp("family"))
        return made[name]

    return of


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DISTRIBUTED_TUNER_CACHE", str(tmp_path / "cache"))


def settings(folder: Path, **more: Any) -> TransformersOracleConfig:
    known = {"dtype": "float32", "device": "cpu", "threads": 1} | more
    return TransformersOracleConfig(kind="transformers", model=str(folder), **known)


@pytest.mark.parametrize("name", STANDING)
@pytest.mark.parametrize("linear", ["plain", "packed_fused"])
def test_losses_are_those_of_the_plain_pass(name: str, linear: str, folder: Callable[[str], Path]) -> None:
    outcome = measure(name, folder(name), linear=linear)
    assert outcome.packed == STANDING[name]
    assert max(outcome.differences.values()) < min(TOLERANCE, 0.01 * outcome.apart)


@pytest.mark.extended  # those above stand for them
@pytest.mark.parametrize("name", sorted(FAMILIES.keys() - STANDING.keys()))
@pytest.mark.parametrize("linear", ["plain", "packed_fused"])
def test_losses_of_every_other_family(name: str, linear: str, folder: Callable[[str], Path]) -> None:
    outcome = measure(name, folder(name), linear=linear)
    assert max(outcome.differences.values()) < min(TOLERANCE, 0.01 * outcome.apart), outcome


# ------------------------------------------------------------------------------------------------------------- rows
@pytest.mark.parametrize("name", ["Phi-3 with LongRoPE", "Gemma 2", "LLaMA with dynamic rope"])
@pytest.mark.parametrize("layout", ["prefix", "suffix"])
def test_a_rows_loss_hangs_on_that_row_alone(name: str, layout: Any, folder: Callable[[str], Path]) -> None:
    oracle = TransformersOracle(settings(folder(name)))
    asked, spec = batch(FAMILIES[name]), replace(SPEC, layout=layout)
    points = tuple(Point(np.full(LENGTH * oracle.info.width, 0.1 * i, np.float32)) for i in range(3))
    together = oracle.evaluate(Request(points, asked, spec)).example_losses
    for j, example in enumerate(asked.examples):
        for i, point in enumerate(points):
            alone = oracle.evaluate(Request((point,), replace(asked, examples=(example,)), spec)).example_losses
            np.testing.assert_allclose(alone[0, 0], together[i, j], atol=TOLERANCE)


@pytest.mark.parametrize("name", ["Gemma 2", "LFM2", "RoBERTa"])
def test_whole_rows_in_many_passes(name: str, folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    oracle = TransformersOracle(settings(folder(name)))
    points = tuple(Point(standard_normal(("x", i), LENGTH * oracle.info.width)) for i in range(5))
    asked = batch(FAMILIES[name])
    rows = oracle._to_device(np.stack([codec_of(oracle).materialize(point, SPEC) for point in points]))
    with torch.inference_mode():
        wanted = oracle._whole.soft(rows, asked, SPEC)
        monkeypatch.setattr("distributed_tuner.oracles.local.whole_rows.TOKENS", {"cpu": 40})
        torch.testing.assert_close(oracle._whole.soft(rows, asked, SPEC), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["Gemma 2", "Phi-3 with LongRoPE"])
def test_gradients_of_rows_that_are_computed_whole(name: str, folder: Callable[[str], Path]) -> None:
    oracle = TransformersOracle(settings(folder(name), gradients=True))
    x = standard_normal(("x",), LENGTH * oracle.info.width)
    asked = batch(FAMILIES[name])
    found = oracle.evaluate(Request((Point(x),), asked, SPEC, gradient=True))
    assert found.gradients is not None
    step = 0.01 * found.gradients[0] / np.linalg.norm(found.gradients[0])
    up, down = oracle.evaluate(Request((Point(x + step), Point(x - step)), asked, SPEC)).losses
    assert (up - down) / 0.02 == pytest.approx(np.linalg.norm(found.gradients[0]), rel=0.02)


# ------------------------------------------------------------------------------------------------------ a user's own
@pytest.mark.parametrize("name", ["LLaMA", "Gemma 2", "BLOOM", "RoBERTa"])
def test_a_plain_model_object_is_taken(name: str, folder: Callable[[str], Path]) -> None:
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

    family = FAMILIES[name]
    kind = AutoModelForMaskedLM if family.masked else AutoModelForCausalLM
    model, words = kind.from_pretrained(folder(name)), AutoTokenizer.from_pretrained(folder(name))
    given, loaded = TransformersOracle(settings(folder(name)), model, words), TransformersOracle(settings(folder(name)))
    point = Point(np.full(LENGTH * loaded.info.width, 0.3, dtype=np.float32))
    asked = Request((point, Text("the story")), batch(family), SPEC)
    np.testing.assert_allclose(given.evaluate(asked).logits, loaded.evaluate(asked).logits, atol=TOLERANCE)


def test_a_model_whose_window_has_a_name_of_its_own_is_computed_whole(
    folder: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    """As code from a hub may have it: no setting tells of the window, but the long parity case does."""
    from transformers import AutoModelForCausalLM
    from transformers.models.llama import modeling_llama

    class Narrow(modeling_llama.LlamaAttention):  # type: ignore[misc]
        def forward(self, hidden_states: Any, attention_mask: Any = None, **more: Any) -> Any:
            count = hidden_states.shape[1]
            if attention_mask is not None:
                far = torch.ones(count, count, dtype=torch.bool).tril(-WINDOW)
                attention_mask = attention_mask.masked_fill(far, torch.finfo(attention_mask.dtype).min)
            return super().forward(hidden_states, attention_mask=attention_mask, **more)

    model = AutoModelForCausalLM.from_pretrained(folder("LLaMA"))
    for layer in model.model.layers:
        layer.self_attn.__class__ = Narrow
    oracle = TransformersOracle(settings(folder("LLaMA")), model, tokenizer(masked=False))
    assert oracle.info.extra["reach"] == "0"
    assert "LlamaForCausalLM: the model computes every row whole" in caplog.text
    assert "other scores than alone" in oracle.info.extra["notes"]


@pytest.mark.parametrize("broken", ["no embeddings", "no logits"])
def test_a_model_that_cannot_be_asked_is_refused_in_one_line(broken: str, folder: Callable[[str], Path]) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder("LLaMA"))
    forward = model.model.forward

    def failing(*args: Any, inputs_embeds: Any = None, **more: Any) -> Any:
        if inputs_embeds is not None:
            raise ValueError("give me ids")
        return forward(*args, **more)

    model.model.forward = failing if broken == "no embeddings" else lambda *args, **more: None
    with pytest.raises(ModelError, match=r"reads embeddings in the place of token ids, but LlamaForCausalLM fails"):
        TransformersOracle(settings(folder("LLaMA")), model, tokenizer(masked=False))


def test_what_was_found_of_a_models_files_is_not_looked_for_again(
    folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first = TransformersOracle(settings(folder("GPT-OSS")))
    monkeypatch.setattr(
        "distributed_tuner.oracles.checks.packing._compared", lambda *given: pytest.fail("compared again")
    )
    caplog.clear()
    again = TransformersOracle(settings(folder("GPT-OSS")))
    assert again.info == first.info
    assert "computes every row whole" in caplog.text


# ---------------------------------------------------------------------------------------------------- linear layers
class Doubled(torch.nn.Linear):
    """A linear layer of a class of its own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


def own_forward() -> torch.nn.Module:
    layer = torch.nn.Linear(32, 16)
    layer.forward = lambda x: 2 * torch.nn.functional.linear(x, layer.weight)  # type: ignore[method-assign]
    return layer


def hooked() -> torch.nn.Module:
    layer = torch.nn.Linear(32, 16)
    layer.register_forward_hook(lambda module, given, made: 2 * made)
    return layer


def hooked_before() -> torch.nn.Module:
    layer = torch.nn.Linear(32, 16)
    layer.register_forward_pre_hook(lambda module, given: (2 * given[0],))
    return layer


def parametrized() -> torch.nn.Module:
    return torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(32, 16))


@pytest.mark.parametrize("make_layer", [lambda: Doubled(32, 16), own_forward, hooked, hooked_before, parametrized])
def test_what_is_more_than_a_linear_layer_is_not_packed(make_layer: Callable[[], torch.nn.Module]) -> None:
    trunk = torch.nn.Sequential(make_layer(), torch.nn.Linear(16, 16))
    kept, x = trunk[0], torch.randn(3, 32)
    with torch.no_grad():
        wanted = trunk(x)
        assert pack_linears(trunk, "packed_fused") == 1
        assert trunk[0] is kept
        torch.testing.assert_close(trunk(x), wanted, atol=1e-5, rtol=1e-5)


def test_a_gated_mlp_that_scales_in_between_is_not_fused() -> None:
    class Scaled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate_proj, self.up_proj = torch.nn.Linear(32, 48), torch.nn.Linear(32, 48)
            self.down_proj, self.act_fn = torch.nn.Linear(48, 32), torch.nn.SiLU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.down_proj(self.act_fn(self.gate_proj(x) * 0.5) * self.up_proj(x))
            return y

    trunk, x = torch.nn.Sequential(Scaled()), torch.randn(3, 32)
    with torch.no_grad():
        wanted = trunk(x)
        assert pack_linears(trunk, "packed_fused") == 3
        torch.testing.assert_close(trunk(x), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["LLaMA", "GPT-2"])
def test_packed_layers_can_be_put_back(name: str, folder: Callable[[str], Path]) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder(name)).requires_grad_(False)
    before = {key: weight.clone() for key, weight in model.named_parameters()}
    assert pack_linears(model.base_model, "packed_fused") > 0
    unpack_linears(model.base_model)
    after = dict(model.named_parameters())
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_layers_whose_weights_are_read_past_them_stay_as_they_are(
    folder: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder("OPT"))
    layer = model.model.decoder.layers[0]
    forward = layer.forward
    layer.forward = lambda *args, **more: (layer.fc1.weight.shape, forward(*args, **more))[1]
    oracle = TransformersOracle(settings(folder("OPT"), linear="packed"), model, tokenizer(masked=False))
    assert oracle.info.extra["linear"] == "plain"
    assert "stay as they are" in caplog.text


# ------------------------------------------------------------------------------------------------------------ facts
@pytest.mark.parametrize(
    ("name", "context", "reach"),
    [("Gemma 3 multimodal", 256, WINDOW), ("Phi-3 with LongRoPE", 256, ORIGINAL), ("Mistral", 256, 256)],
)
def test_lengths_are_known_without_weights(name: str, context: int, reach: int, folder: Callable[[str], Path]) -> None:
    counter, asked = build_counter(settings(folder(name))), batch(FAMILIES[name])
    fits = Example("train-9", "film" + " film" * (context - LENGTH - 4), " It was", 0)
    counter.require(replace(asked, examples=(fits,)), SPEC)
    longer = replace(fits, text=fits.text + " film")
    with pytest.raises(ModelError, match=f"context of {context} tokens"):
        counter.require(replace(asked, examples=(longer,)), SPEC)
    told = counter.why_slow(asked, SPEC)
    assert (f"1 of 4 train rows are longer than the model's window, chunk or original context of {reach}" in told) == (
        reach < context
    )


def test_seconds_count_rows_that_are_computed_whole(folder: Callable[[str], Path]) -> None:
    shares, whole = (build_counter(settings(folder(name))) for name in ("LLaMA", "Gemma 2"))
    points = (Point(np.zeros(LENGTH * 32, np.float32)),)
    tokens = [
        counter._encoder.computed_tokens(Request(points, batch(FAMILIES["LLaMA"]), SPEC))  # type: ignore[attr-defined]
        for counter in (shares, whole)
    ]
    assert tokens[1] - tokens[0] == 3 * LENGTH  # the prompt once a row, and not once for four
    assert "capped" in whole.why_slow(batch(FAMILIES["Gemma 2"]), SPEC)
    assert shares.why_slow(batch(FAMILIES["LLaMA"]), SPEC) == ""


@pytest.mark.parametrize("name", ["Gemma", "Gemma 3 multimodal", "LLaMA", "OPT"])
def test_the_unit_is_the_spread_of_what_the_model_reads(name: str, folder: Callable[[str], Path]) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder(name), dtype=torch.float32)
    embed = model.get_input_embeddings()
    read = embed(torch.arange(len(embed.weight))).detach()
    assert TransformersOracle(settings(folder(name))).info.embedding_std == pytest.approx(float(read.std()), rel=1e-5)


# ---------------------------------------------------------------------------------------------- per-layer embeddings
PER_LAYER = Family(
    "gemma4_text",
    FAMILIES["Gemma 4 text"].settings
    | dict(hidden_size_per_layer_input=8, vocab_size_per_layer_input=len(tokenizer(masked=False))),
)


def test_rows_of_a_model_that_reads_ids_are_refused_before_the_run(tmp_path: Path) -> None:
    config = settings(make(PER_LAYER, tmp_path))
    counter, asked = build_counter(config), batch(PER_LAYER)
    with pytest.raises(ModelError, match=r"per-layer embeddings.*set prompt\.kind: text"):
        counter.require(asked, SPEC)
    counter.require(asked, replace(SPEC, length=0), ("the story",))
    oracle = TransformersOracle(config)
    with pytest.raises(ModelError, match=r"rows which are no token's.*set prompt\.kind: text"):
        oracle.evaluate(Request((Point(np.zeros(LENGTH * 32, np.float32)),), asked, SPEC))
    from transformers import AutoModelForCausalLM

    model, words = AutoModelForCausalLM.from_pretrained(tmp_path), tokenizer(masked=False)
    got = oracle.evaluate(Request((Text("the story"),), asked, SPEC)).logits[0]
    labels = [words(word, add_special_tokens=False)["input_ids"][0] for word in asked.label_words]
    for example, logits in zip(asked.examples, got, strict=True):
        ids = [
            *words("the story\n")["input_ids"],
            *words(example.text + example.cue, add_special_tokens=False)["input_ids"],
        ]
        with torch.inference_mode():
            wanted = model(input_ids=torch.tensor([ids])).logits[0, -1, labels]
        np.testing.assert_allclose(logits, wanted.numpy(), atol=TOLERANCE)


def test_embeddings_that_leave_something_out_are_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    more = dict(hidden_size_per_layer_input=8, vocab_size_per_layer_input=len(tokenizer(masked=False)))
    family = Family(
        "gemma3n_text", FAMILIES["Gemma 3 text"].settings | more | dict(num_kv_shared_layers=0, laurel_rank=4)
    )
    TransformersOracle(settings(make(family, tmp_path)))
    assert "given as embeddings, as here, a text has other scores" in caplog.text


@pytest.mark.parametrize("work", [3e5, 1e6])
def test_layers_are_compared_on_the_rows_that_they_were_asked_before(
    work: float, folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """How long the long row is follows from the model's weights, which rewriting takes away."""
    monkeypatch.setattr("distributed_tuner.oracles.checks.packing.WORK", work)
    assert TransformersOracle(settings(folder("LLaMA")))._trunk.fused == 2
