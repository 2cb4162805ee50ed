"""The real model of the quickstart: loads from its wheel, agrees with the plain forward, and can be tuned."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import plain_logits, plain_model, plain_text_logits

from distributed_tuner import oracles, tasks
from distributed_tuner.config.optimizer import ZotConfig
from distributed_tuner.config.oracle import TransformersOracleConfig
from distributed_tuner.config.task import DemoTaskConfig
from distributed_tuner.optimizers import build as build_optimizer
from distributed_tuner.oracles.base import LossOracle
from distributed_tuner.oracles.codec import codec_of
from distributed_tuner.oracles.local import gguf, loading
from distributed_tuner.preflight.prepare import prepare
from distributed_tuner.seeds import standard_normal
from distributed_tuner.tasks.base import Task
from distributed_tuner.values import Embedded, Point, PromptSpec, Request, Text, TokenSpace

pytestmark = pytest.mark.model
LENGTH = 6
AS_LLAMA_CPP = {
    "room  101": [3066, 256, 33, 32, 33],
    "a\n\n1. one\n\n2. two": [81, 1116, 33, 30, 582, 1116, 34, 30, 827],
    "12  34": [33, 34, 256, 35, 36],
    "x 1": [104, 216, 33],
    "\n1": [198, 33],
    "\t1": [197, 33],
    "a  b": [81, 216, 278],
    "3.14": [35, 30, 33, 36],
    "\u00bd \u00b2  \u0663": [16738, 216, 19133, 256, 164, 113],
    "v2.0  10": [102, 34, 30, 32, 256, 33, 32],
    "10\n\n 20": [33, 32, 8866, 34, 32],
    "it's 5  o'clock": [269, 506, 216, 37, 216, 263, 23, 17466],
    "1 000": [33, 216, 32, 32, 32],
    "\u2167  8": [173, 223, 117, 256, 40],
    "a1b22c": [81, 33, 82, 34, 34, 83],
}
"""What its server's /tokenize answers for the same file (xllamacpp 2026.10.11549)."""


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return the converted model: the one in the user's cache where there is one, else a new one."""
    with pytest.MonkeyPatch.context() as patch:
        if not (loading.cache_directory() / f"smollm2-135m-instruct-{gguf.FORM}" / "model.safetensors").exists():
            patch.setenv("DISTRIBUTED_TUNER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield Path(loading.locate("smollm2-135m"))


@pytest.fixture(scope="module")
def oracle(converted: Path) -> LossOracle:
    return oracles.build(TransformersOracleConfig(kind="transformers", dtype="float32", device="cpu", threads=1))


@pytest.fixture(scope="module")
def plain(converted: Path) -> tuple[Any, Any]:
    return plain_model(converted)


@pytest.fixture(scope="module")
def task() -> Task:
    return tasks.build(DemoTaskConfig(kind="demo", shots=2, test_limit=4), Path())


def spec_of(task: Task, layout: Any) -> PromptSpec:
    return PromptSpec(LENGTH, "text", task.manual_prompt, layout, "embedding")


def test_a_second_start_does_not_convert(converted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def again(*_: Any) -> None:
        raise AssertionError("converted again")

    before = (converted / "model.safetensors").stat().st_mtime_ns
    monkeypatch.setattr(gguf, "convert", again)
    monkeypatch.setattr(loading, "_smollm2_gguf", again)
    assert Path(loading.locate("smollm2-135m")) == converted
    assert (converted / "model.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize("text", AS_LLAMA_CPP)
def test_texts_have_the_ids_that_llama_cpp_gives_them(text: str, converted: Path) -> None:
    tokenizer = loading.load_tokenizer(TransformersOracleConfig(kind="transformers"))
    assert tokenizer(text)["input_ids"] == AS_LLAMA_CPP[text]


def test_the_model_is_smollm2(oracle: LossOracle) -> None:
    info = oracle.info
    assert (info.model, info.width, info.vocabulary, info.context) == ("smollm2-135m", 576, 49152, 8192)
    assert 0.05 < info.embedding_std < 0.5


@pytest.mark.parametrize("layout", ["prefix", "suffix"])
def test_soft_prompts_agree_with_the_plain_forward(
    layout: Any, oracle: LossOracle, plain: tuple[Any, Any], task: Task
) -> None:
    spec, batch = spec_of(task, layout), replace(task.batch("train"), examples=task.train[:4])
    points = [Point(scale * standard_normal(("x",), LENGTH * 576)) for scale in (0.0, 0.5)]
    answer = oracle.evaluate(Request(tuple(points), batch, spec))
    for logits, point in zip(answer.logits, points, strict=True):
        expected = plain_logits(*plain, codec_of(oracle).materialize(point, spec), layout, batch)
        np.testing.assert_allclose(logits, expected, atol=1e-4, rtol=1e-5)


def test_a_text_prompt_agrees_with_the_plain_forward(oracle: LossOracle, plain: tuple[Any, Any], task: Task) -> None:
    batch = replace(task.batch("train"), examples=task.train[:4])
    logits = oracle.evaluate(Request((Text(task.manual_prompt),), batch, spec_of(task, "prefix"))).logits[0]
    np.testing.assert_allclose(logits, plain_text_logits(*plain, task.manual_prompt, batch), atol=1e-4, rtol=1e-5)


def test_a_tokens_nearest_token_is_itself(oracle: LossOracle, task: Task) -> None:
    spec = replace(spec_of(task, "prefix"), text="billing, shipping, technical or account.", length=4)
    rows = codec_of(oracle).materialize(Point(np.zeros(4 * 576, dtype=np.float32)), spec)
    assert "".join(token for token, _ in codec_of(oracle).nearest_tokens(rows)).strip() == "technical or account."


def test_words_are_read_back_and_rows_of_words_are_their_tokens(
    oracle: LossOracle, plain: tuple[Any, Any], task: Task
) -> None:
    model, tokenizer = plain
    embedding = model.get_input_embeddings().weight.detach().numpy()
    spec, space = spec_of(task, "suffix"), TokenSpace()
    assert len(codec_of(oracle).vocabulary(space)) > 20_000
    prompts = [standard_normal(("rows", i), LENGTH * 576).reshape(LENGTH, 576) for i in range(50)]
    for text in codec_of(oracle).project(prompts, "suffix", space):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert len(ids) == codec_of(oracle).token_count(text) == LENGTH
        rows = codec_of(oracle).materialize(Embedded(text), spec)
        np.testing.assert_array_equal(rows, embedding[ids])
        assert codec_of(oracle).project([rows], "suffix", space) == [text]
    text = " Route this message to a team"
    rows = codec_of(oracle).materialize(Embedded(text), spec)
    assert codec_of(oracle).project([rows + 0.01 * prompts[0]], "suffix", space) == [text]


def test_a_few_steps_of_zot_lower_the_training_loss(oracle: LossOracle, task: Task) -> None:
    spec, batch = spec_of(task, "suffix"), task.batch("train")
    steps = 12
    zot = build_optimizer(ZotConfig(learning_rate=5.0), dim=LENGTH * 576, key=(0, "test"), steps=steps)

    def loss() -> float:
        return float(oracle.evaluate(Request((zot.recommend(),), batch, spec)).losses[0])

    before = loss()
    for _ in range(steps):
        zot.tell(oracle.evaluate(Request(tuple(zot.ask()), batch, spec)).losses)
    assert loss() < 0.95 * before


def test_check_says_what_the_texts_take_and_when_they_do_not_fit(converted: Path) -> None:
    space = Path(__file__).resolve().parents[2] / "search_spaces" / "quickstart.yaml"
    (ample,) = prepare(space, []).notes
    assert ample.startswith("the texts' keys and values take ") and "more than" not in ample
    (scarce,) = prepare(space, ["oracle.text_cache_gib=0.001"]).notes
    assert "more than oracle.text_cache_gib: 0.001 lets them" in scarce
    assert prepare(space, ["prompt.layout=prefix"]).notes == []


def test_gradients_in_bfloat16_point_where_those_in_float32_do(converted: Path, task: Task) -> None:
    found = []
    for dtype in ("float32", "bfloat16"):
        config = TransformersOracleConfig(kind="transformers", dtype=dtype, device="cpu", threads=1, gradients=True)
        spec = spec_of(task, "prefix")
        request = Request((Point(np.zeros(LENGTH * 576, dtype=np.float32)),), task.batch("train"), spec, gradient=True)
        gradients = oracles.build(config).evaluate(request).gradients
        assert gradients is not None
        found.append(gradients[0] / np.linalg.norm(gradients[0]))
    assert float(found[0] @ found[1]) > 0.98
