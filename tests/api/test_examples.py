"""The examples that are Python: each runs, and gives what it says."""

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_models import save_tiny

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"


def example(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_whole_of_zot_in_one_file_lowers_the_loss() -> None:
    before, after = example("zot_loop").main()
    assert after < 0.5 * before


@pytest.mark.model
def test_a_model_of_ones_own_and_its_head_with_plain_transformers(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = save_tiny("llama", tmp_path / "model")
    own = example("own_model")
    result = own.main(str(folder), budget=60)
    assert result.head.config.kind == "vocabulary"
    kept = result.save(tmp_path / "kept")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    label = example("plain_head").label
    told = [label(kept / "best", model, tokenizer, text) for text in own.TEXTS]
    assert told == result.predict(own.TEXTS).tolist()


def test_an_oracle_of_ones_own_as_an_object() -> None:
    from distributed_tuner import SoftPrompt, tune

    own, oracle = example("own_model"), example("own_oracle").HashedWords()
    prompt = SoftPrompt(length=2, init="zeros")
    result = tune(oracle, (own.TEXTS, own.LABELS), prompt=prompt, head="label_words", budget=60, progress=False)
    assert result.predict(own.TEXTS).shape == (16,)


@pytest.mark.slow
def test_the_notebook_runs_from_its_first_cell_to_its_last(monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *filter(None, sys.path)]))
    notebook = nbformat.read(EXAMPLES / "quickstart.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources={}).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("<Result: done" in output.get("data", {}).get("text/plain", "") for output in shown)
