"""The oracle actor: one process, one frozen model, one device; answers tiles one at a time."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray

from actors.cluster import MARKET, NODE
from actors.pool.messages import Opener, Reply, Tiles, reply
from distributed_tuner import oracles
from distributed_tuner.config.oracle import OracleConfig, TransformersOracleConfig, VllmOracleConfig
from distributed_tuner.errors import TunerError
from distributed_tuner.oracles.codec import codec_of
from distributed_tuner.oracles.generation import writer
from distributed_tuner.oracles.local.device_memory import free_bytes, within_memory
from distributed_tuner.values import (
    Answer,
    OracleInfo,
    Request,
    Sampling,
)


class OracleWorker:
    """Builds the oracle where it lives and answers for it."""

    def __init__(self, config: OracleConfig) -> None:
        self._config = config
        self._title = (ray.get_runtime_context().get_actor_name() or "oracle").rpartition("/")[2]
        self._oracle = oracles.build(config)
        self._title += f"({Path(self._oracle.info.model).name} on {self._oracle.info.device})"
        self._opener = Opener()

    def __repr__(self) -> str:
        """Return what Ray calls the actor in log lines and on its dashboard: "oracle-3(smollm2-135m on cuda)".

        Ray asks for it where the model cannot be loaded, too.
        """
        return self._title

    def info(self) -> OracleInfo:
        """Return the facts of the model; answers once it is loaded."""
        return self._oracle.info

    def compute_as(self, other: OracleInfo) -> None:
        """Compute products as another actor of the pool does, which chose the way by a measurement of its own.

        Their bits would differ otherwise. Loads the model anew where the ways differ.
        """
        linear = other.extra.get("linear")
        if isinstance(self._config, TransformersOracleConfig) and linear != self._oracle.info.extra.get("linear"):
            self._oracle = oracles.build(self._config.model_copy(update={"linear": linear}))

    def node(self) -> str:
        """Return the id of the machine that the actor is on; answers once the model is loaded."""
        node: str = ray.get_runtime_context().get_node_id()
        return node

    def free_bytes(self) -> int | None:
        """Return the free bytes of the device that the model is on; None where it does not tell."""
        return free_bytes(self._oracle.info.device)

    def evaluate(self, tiles: Tiles) -> list[Reply | TunerError]:
        """Answer tiles, one after the other: each with its answer, or the error that it met.

        An OracleMemoryError: the tile does not fit into the device's memory.
        """
        return [self._answer(request) for request in self._opener.open(tiles)]

    def _answer(self, request: Request) -> Reply | TunerError:
        try:
            return reply(within_memory(lambda: self._oracle.evaluate(request)))
        except TunerError as error:
            return error.with_traceback(None)  # its frames would hold the computation's tensors

    def ask(self, method: str, *arguments: Any) -> Any:
        """Answer a question to the model's codec: what its ``method`` returns."""
        return getattr(codec_of(self._oracle), method)(*arguments)

    def write(self, instruction: str, sampling: Sampling) -> Answer:
        """Have the model answer an instruction in words.

        Raises:
            ProposerError: there is no answer.
            ModelError: the oracle does not write.
        """
        return writer(self._oracle).write(instruction, sampling)


OracleActor = ray.remote(OracleWorker)
RESTARTS = 3  # of one actor; the pool has another started in its place then, unless it never came up


def start_oracle(config: OracleConfig, name: str, avoid: Sequence[str] = ()) -> Any:
    """Ask Ray for an actor, which is restarted when it dies. It waits for its resources where there are none yet.

    ``avoid``: ids of machines where it must not be.
    """
    return OracleActor.options(
        num_cpus=config.thread_count,
        num_gpus=config.gpus,
        max_restarts=RESTARTS,
        max_task_retries=0,  # the dispatcher sends a lost tile elsewhere
        name=name,
        runtime_env=_environment(config),
        **_placement(config, avoid),
    ).remote(config)


def _placement(config: OracleConfig, avoid: Sequence[str]) -> dict[str, Any]:
    """Return Ray's label selector for the machines of a worker; without preferences no label is requested."""
    elsewhere = {NODE: f"!in({','.join(avoid)})"} if avoid else {}
    spot, on_demand = ({"label_selector": {MARKET: market, **elsewhere}} for market in ("spot", "on-demand"))
    match config.market:
        case None:
            return {"label_selector": elsewhere} if avoid else {}
        case "spot":
            return {**spot, "fallback_strategy": [on_demand]}
        case "on-demand":
            return on_demand


def _environment(config: OracleConfig) -> dict[str, Any]:
    """Return the actors' variables, and their Python where the settings name one of their own.

    A path is made absolute but not resolved: the link in a virtual environment is what makes it one.
    """
    environment: dict[str, Any] = {"env_vars": _thread_settings(config.thread_count)}
    if isinstance(config, VllmOracleConfig) and config.python is not None:
        named = config.python
        environment["py_executable"] = shlex.quote(os.path.abspath(named) if os.sep in named else named)
    return environment


def _thread_settings(threads: int) -> dict[str, str]:
    """Return what keeps a process on so many cores. numpy's own threads would spin on after a product (a projection)
    and take the cores from torch's, so it gets none."""
    return {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": "1"}
