"""A tuned prompt leaves the house: what is read is what was written, and others' tools give the same logits."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import MIXED, SPEC, plain_model, save_tiny

from distributed_tuner import oracles
from distributed_tuner.config.head import LabelWordsHeadConfig, VocabularyHeadConfig
from distributed_tuner.config.oracle import TransformersOracleConfig
from distributed_tuner.errors import RunDirectoryError
from distributed_tuner.oracles.codec import codec_of
from distributed_tuner.prompts.export import ExportedPrompt, read, text_of, write, write_peft, write_safetensors
from distributed_tuner.prompts.head_export import ExportedHead, read_head, write_head
from distributed_tuner.prompts.spec import NO_ROWS
from distributed_tuner.seeds import standard_normal
from distributed_tuner.values import Array, Batch, Point, PromptSpec, Request, Text

PROMPT = ExportedPrompt(
    rows=standard_normal(("rows",), 12).reshape(3, 4),
    layout="prefix",
    model="org/some-model",
    trial_id="zot-0003",
    method="zot",
    nearest_tokens=[(" gr\u00f6\u00dfe", 0.75), ("\n", 0.5), ("<s>", 0.25)],
    template={"source": "{text} It was{label_word}", "label_words": [" bad", " good"]},
    scores={"dev": 0.5, "test": None},
)


@pytest.mark.parametrize("layout", ["prefix", "suffix"])
def test_what_is_read_is_what_was_written(layout: Any, tmp_path: Path) -> None:
    prompt = replace(PROMPT, layout=layout)
    write(prompt, tmp_path / "deep" / "best")
    again = read(tmp_path / "deep" / "best")
    assert again.rows.dtype == np.float32
    np.testing.assert_array_equal(again.rows, prompt.rows)
    for name in ("layout", "model", "trial_id", "method", "nearest_tokens", "template", "scores"):
        assert getattr(again, name) == getattr(prompt, name)


def test_rows_that_are_a_view_are_written_in_their_own_order(tmp_path: Path) -> None:
    view = np.arange(12, dtype=np.float32).reshape(4, 3).T
    assert not view.flags.c_contiguous
    write(replace(PROMPT, rows=view), tmp_path)
    np.testing.assert_array_equal(read(tmp_path).rows, view)
    from safetensors.numpy import load_file

    (adapter,) = load_file(tmp_path / "peft" / "adapter_model.safetensors").values()
    np.testing.assert_array_equal(adapter, view)


def test_heads_that_are_views_are_written_in_their_own_order(tmp_path: Path) -> None:
    """What is transposed, strided or reversed in memory; safetensors writes memory as it lies, without an error."""
    words = ("a", "b", "c", "d")
    state = {
        "weights": np.arange(8, dtype=np.float64).reshape(2, 4).T,
        "intercept": np.arange(4, dtype=np.float64)[::-2],
        "strength": np.arange(3, dtype=np.float64)[1:2],
    }
    head = ExportedHead(VocabularyHeadConfig(kind="vocabulary"), words, ("0", "1"), words[:2], "some", state)
    write_head(head, tmp_path)
    again = read_head(tmp_path)
    assert again is not None
    assert again.state.keys() == state.keys()
    for name, value in state.items():
        np.testing.assert_array_equal(again.state[name], value, err_msg=name)


def test_the_description_is_json_with_shape_and_text(tmp_path: Path) -> None:
    write_safetensors(PROMPT, tmp_path)
    facts = json.loads((tmp_path / "prompt.json").read_text(encoding="utf-8"))
    assert (facts["length"], facts["width"], facts["text"]) == (3, 4, " gr\u00f6\u00dfe\n<s>")
    assert "rows" not in facts


def test_the_text_is_the_nearest_tokens(tmp_path: Path) -> None:
    write(PROMPT, tmp_path)
    assert text_of(PROMPT) == " gr\u00f6\u00dfe\n<s>"
    assert (tmp_path / "prompt.txt").read_text(encoding="utf-8") == " gr\u00f6\u00dfe\n<s>\n"


def test_the_same_prompt_is_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(PROMPT, tmp_path / name)
    for file in ("prompt.safetensors", "prompt.json", "prompt.txt"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_prompt_behind_the_text_is_no_peft_adapter(tmp_path: Path) -> None:
    suffix = replace(PROMPT, layout="suffix")
    with pytest.raises(RunDirectoryError, match=r"has the layout 'suffix'; export it with --format safetensors"):
        write_peft(suffix, tmp_path / "peft")
    assert not (tmp_path / "peft").exists()
    write(suffix, tmp_path / "best")
    assert not (tmp_path / "best" / "peft").exists()


def test_a_directory_without_a_prompt_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match=r"prompt\.safetensors with prompt\.json"):
        read(tmp_path)
    write_safetensors(PROMPT, tmp_path)
    (tmp_path / "prompt.safetensors").unlink()
    with pytest.raises(RunDirectoryError):
        read(tmp_path)


# ------------------------------------------------------------------------------------------------------------- PEFT
def peft_logits(model: Any, tokenizer: Any, adapter: Path, batch: Batch) -> Array:
    """Label-word logits (E, W) as a PEFT user gets them: rows padded on the right, with their attention mask."""
    import torch
    from peft import PeftModel

    tuned = PeftModel.from_pretrained(model, str(adapter)).eval()
    tokenizer.padding_side = "right"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    rows = tokenizer([e.text + e.cue for e in batch.examples], return_tensors="pt", padding=True)
    with torch.inference_mode():
        logits = tuned(input_ids=rows["input_ids"], attention_mask=rows["attention_mask"]).logits
    length = logits.shape[1] - rows["input_ids"].shape[1]
    last = length + rows["attention_mask"].sum(dim=1) - 1
    ids = [tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in batch.label_words]
    picked: Array = logits[torch.arange(len(last)), last][:, ids].numpy()
    return picked


def assert_peft_agrees(model_name: str, plain: tuple[Any, Any], batch: Batch, spec: PromptSpec, out: Path) -> None:
    config = TransformersOracleConfig(kind="transformers", model=model_name, dtype="float32", device="cpu", threads=1)
    oracle = oracles.build(config)
    point = Point(standard_normal(("peft",), spec.length * oracle.info.width))
    rows = codec_of(oracle).materialize(point, spec)
    write_peft(replace(PROMPT, rows=rows, model=model_name), out)
    answer = oracle.evaluate(Request((point,), batch, spec))
    np.testing.assert_allclose(peft_logits(*plain, out, batch), answer.logits[0], atol=1e-4)


@pytest.mark.model
@pytest.mark.parametrize("bos", [False, True], ids=["plain", "bos"])
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt2"])
def test_peft_gives_the_oracles_logits(architecture: str, bos: bool, tmp_path: Path) -> None:
    directory = save_tiny(architecture, tmp_path / "model", bos)
    assert_peft_agrees(str(directory), plain_model(directory), MIXED, SPEC, tmp_path / "peft")


@pytest.mark.model
def test_peft_gives_the_oracles_logits_on_smollm2(tmp_path: Path) -> None:
    from distributed_tuner.config.task import DemoTaskConfig
    from distributed_tuner.oracles.local.loading import locate
    from distributed_tuner.tasks import build

    task = build(DemoTaskConfig(kind="demo", shots=1), Path())
    spec = replace(SPEC, text=task.manual_prompt, length=20)
    plain = plain_model(locate("smollm2-135m"))
    assert_peft_agrees("smollm2-135m", plain, task.batch("train"), spec, tmp_path / "peft")


def test_a_prompt_in_words_is_read_as_it_was_written(tmp_path: Path) -> None:
    words = replace(PROMPT, rows=np.zeros((0, 0), dtype=np.float32), words="Sort <the> mail", nearest_tokens=[])
    write(words, tmp_path)
    again = read(tmp_path)
    assert again.words == "Sort <the> mail" and again.rows.shape == (0, 0)
    assert again.asked() == (Text("Sort <the> mail"), NO_ROWS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["prompt.json", "prompt.txt"]
    assert (tmp_path / "prompt.txt").read_text(encoding="utf-8") == "Sort <the> mail\n"
    for writer in (write_peft, write_safetensors):
        with pytest.raises(RunDirectoryError, match="--format text"):
            writer(words, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_words_in_the_place_of_rows_leave_nothing_of_them(tmp_path: Path) -> None:
    write(PROMPT, tmp_path)
    assert (tmp_path / "peft").is_dir() and (tmp_path / "prompt.safetensors").is_file()
    words = replace(PROMPT, words="Judge.", rows=np.zeros((0, 0), dtype=np.float32), nearest_tokens=[])
    write(words, tmp_path)
    assert not (tmp_path / "peft").exists() and not (tmp_path / "prompt.safetensors").exists()
    assert read(tmp_path).words == "Judge."


def test_a_head_goes_with_its_prompt(tmp_path: Path) -> None:
    config = VocabularyHeadConfig(kind="vocabulary", words=12, answer_words=(" c", " d"))
    state = {"weights": np.arange(8.0).reshape(4, 2), "intercept": np.ones(2), "strength": np.array([0.3])}
    head = ExportedHead(config, (" a", " b", " c", " d"), ("0", "1"), (" a", " b"), PROMPT.model, state, "first")
    write(replace(PROMPT, head=head), tmp_path)
    back = read(tmp_path).head
    assert back is not None
    assert (back.config, back.words, back.labels, back.label_rule) == (config, head.words, head.labels, "first")
    assert {name: value.tolist() for name, value in back.state.items()} == {
        name: value.tolist() for name, value in state.items()
    }
    assert np.array_equal(back.head().predict(np.eye(4)), head.head().predict(np.eye(4)))
    write(replace(PROMPT, head=replace(head, config=LabelWordsHeadConfig(kind="label_words"), state={})), tmp_path)
    assert not (tmp_path / "head.safetensors").exists(), "nothing was fitted"
