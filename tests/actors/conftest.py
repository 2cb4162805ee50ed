"""The tiny LLaMA and the reviews that the runs of this suite are about."""

from pathlib import Path
from typing import Any

import pytest
from tiny_models import save_tiny
from tuner_runs import write_reviews


@pytest.fixture(scope="session")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with train.jsonl and test.jsonl."""
    directory = tmp_path_factory.mktemp("reviews")
    write_reviews(directory)
    return directory


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the oracle settings of a tiny random LLaMA."""
    directory = save_tiny("llama", tmp_path_factory.mktemp("llama"))
    return {"kind": "transformers", "model": str(directory), "dtype": "float32", "device": "cpu"}
