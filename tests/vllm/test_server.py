"""vLLM behind HTTP: soft and text candidates through the openai oracle, with the losses of the transformers oracle."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from benchmarks.backends import client_config
from benchmarks.serving import serving
from distributed_tuner import oracles
from distributed_tuner.oracles.base import LossOracle
from distributed_tuner.oracles.local.loading import SMOLLM2
from distributed_tuner.tasks.base import Task
from distributed_tuner.values import Center, Embedded, Perturbation, PromptSpec, Request, Text

pytestmark = [pytest.mark.vllm, pytest.mark.extended]  # the engine in process stands for the one behind a server
LENGTH = 12
MORE = (
    *("--max-model-len", "1024", "--block-size", "32", "--kv-cache-memory-bytes", str(2**29)),
    *("--dtype", "float32"),  # in bfloat16 rounding would hide what is small, and differs from processor to processor
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LossOracle]:
    with serving(SMOLLM2, tmp_path_factory.mktemp("server") / "log", MORE) as url:
        yield oracles.build(client_config(SMOLLM2, url))


@pytest.mark.parametrize("layout", ["prefix", "suffix", "add"])
def test_losses_over_http_are_the_transformers_oracles(
    layout: str, task: Task, served: LossOracle, transformers_oracle: Callable[[str], LossOracle]
) -> None:
    assert served.info.soft
    center = Center("c", np.random.default_rng(3).standard_normal(LENGTH * served.info.width).astype(np.float32))
    pair = (Perturbation(center, ("a",), 1, 1.0), Perturbation(center, ("a",), -1, 1.0))
    spec = PromptSpec(LENGTH, "zeros" if layout == "add" else "text", task.manual_prompt, layout, "embedding")  # type: ignore[arg-type]
    request = Request(
        (*pair, Embedded("Route the message"), Text(task.manual_prompt)), task.batch("train", range(6)), spec
    )
    found, wanted = served.evaluate(request), transformers_oracle("float32").evaluate(request)
    apart = np.abs(found.losses - wanted.losses)
    assert apart.max() < 0.01  # embeddings travel in bfloat16
    assert apart[-1] < 1e-4  # words do not
    assert np.ptp(wanted.losses) > 0.05
    assert found.cost.queries == wanted.cost.queries and found.cost.forwards == wanted.cost.forwards
