"""Models of transformers that a program hands in as objects: they just work, and stay as they were."""

from typing import Any

import numpy as np
import pytest
from tiny_models import make_tokenizer, model_config

from distributed_tuner import AdamW, SoftPrompt, TunerError, load, tune

pytestmark = pytest.mark.model
TEXTS = [f"the film was {word} {end}" for word in ("great", "good", "bad", "dull") for end in ("really", "it", "plot")]
LABELS = [1] * 6 + [0] * 6
WORDING: dict[str, Any] = {"label_words": {0: " bad", 1: " good"}, "template": "{text} It was{label_word}"}


def plain_llama(**changes: Any) -> tuple[Any, Any]:
    """Return a model as transformers makes it, with the attention of its own choice, and its tokenizer."""
    import torch
    from transformers import LlamaForCausalLM

    torch.manual_seed(0)
    tokenizer = make_tokenizer(bos=True)
    config = model_config("llama", len(tokenizer))
    for name, value in changes.items():
        setattr(config, name, value)
    return LlamaForCausalLM(config), tokenizer


def tuned(model: Any, **more: Any) -> Any:
    return tune(model, (TEXTS, LABELS), **{"budget": 60, "progress": False, **WORDING, **more})


def test_a_plain_model_just_works_and_is_as_it_was_afterwards(tmp_path: Any) -> None:
    import torch

    model, tokenizer = plain_llama()
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ids = tokenizer("the film was", return_tensors="pt")
    logits = model.eval()(**ids).logits
    model.train()
    result = tuned((model, tokenizer))
    assert result.status == "done"
    assert result.predict(TEXTS).shape == (12,)
    assert (model.training, model.config._attn_implementation) == (True, "sdpa")
    assert all(weight.requires_grad for weight in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(model.eval()(**ids).logits, logits)
    kept = result.save(tmp_path / "kept")
    with pytest.raises(TunerError, match="hand it in again"):
        load(kept).predict(TEXTS)
    again = load(kept, (model, tokenizer))
    np.testing.assert_array_equal(again.predict_proba(TEXTS), result.predict_proba(TEXTS))


def test_a_model_that_is_handed_in_answers_as_the_one_in_its_directory(tmp_path: Any) -> None:
    model, tokenizer = plain_llama()
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    given = tuned(model, tokenizer=tokenizer, prompt=SoftPrompt(length=4, layout="prefix"))
    oracle = {"kind": "transformers", "model": str(tmp_path / "model"), "dtype": "float32"}
    named = tuned(oracle, prompt=SoftPrompt(length=4, layout="prefix"))
    np.testing.assert_allclose(given.history["dev_loss"], named.history["dev_loss"], rtol=1e-4)


def test_gradients_of_a_model_that_is_handed_in() -> None:
    assert tuned(plain_llama(), optimizer=AdamW(), prompt=SoftPrompt(length=4, layout="prefix")).status == "done"


@pytest.mark.parametrize(
    ("rule", "head", "more"), [("mean", "vocabulary", {}), ("sum", "bias", {"optimizer": AdamW()})]
)
def test_labels_may_be_phrases(rule: str, head: str, more: Any, tmp_path: Any) -> None:
    model = plain_llama()
    words = {0: " not really good", 1: " good film"}
    with pytest.raises(TunerError, match=r'is 3: .* set label_rule="first" .* or to sum or mean to score it'):
        tuned(model, label_words=words)
    result = tuned(model, label_words=words, label_rule=rule, head=head, prompt=SoftPrompt(length=4), **more)
    assert result.status == "done"
    kept = result.save(tmp_path / "kept")
    probabilities = load(kept, model).predict_proba(TEXTS)
    np.testing.assert_array_equal(probabilities, result.predict_proba(TEXTS))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0)


def test_a_masked_model_keeps_its_head() -> None:
    import torch
    from transformers import RobertaForMaskedLM

    tokenizer = make_tokenizer(bos=False, masked=True)
    model = RobertaForMaskedLM(model_config("roberta", len(tokenizer))).eval()
    ids = tokenizer("the film was <mask>", return_tensors="pt")
    logits = model(**ids).logits
    result = tuned((model, tokenizer), settings={"task": {"model_family": "masked"}})
    assert result.predict(TEXTS).shape == (12,)
    assert torch.equal(model(**ids).logits, logits)


def test_without_a_tokenizer_nothing_can_be_asked() -> None:
    model, _ = plain_llama()
    with pytest.raises(TunerError, match="LlamaForCausalLM object needs its tokenizer"):
        tuned(model)
    with pytest.raises(TunerError, match="tokenizer must be one of transformers, but got str"):
        tuned((model, "gpt2"))


def test_a_model_must_lie_on_one_device_in_a_dtype_that_is_computed_in() -> None:
    import torch

    model, tokenizer = plain_llama()
    with pytest.raises(TunerError, match="must compute in float32, bfloat16, float16, but is float64"):
        tuned((model.double(), tokenizer))
    with torch.device("meta"):
        nowhere, _ = plain_llama()
    with pytest.raises(TunerError, match=r"must lie on one device.*weights are on meta; move it with"):
        tuned((nowhere, tokenizer))
