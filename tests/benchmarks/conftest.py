"""A tiny model that takes the benchmarks' texts."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a random model whose logits differ by units, with a tokenizer that begins with <s>."""
    import torch

    from benchmarks.random_models import make_model, make_tokenizer, shape

    directory = tmp_path_factory.mktemp("tiny-llama")
    model = make_model(shape("llama-7b", small=True), "cpu", "float32")
    stream = torch.Generator().manual_seed(7)
    for name, weight in model.named_parameters():
        weight.copy_((1.0 if "norm" in name else 0.0) + 0.2 * torch.randn(weight.shape, generator=stream))
    model.save_pretrained(directory)
    make_tokenizer(masked=False).save_pretrained(directory)
    return directory
