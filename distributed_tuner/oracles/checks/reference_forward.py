"""The plain forward pass of a model that is served, in a process of its own that is gone afterwards."""

import multiprocessing
import os
from multiprocessing.connection import Connection
from typing import Any

from distributed_tuner.config.oracle import (
    OpenAIOracleConfig,
    OracleConfig,
    TransformersOracleConfig,
    VllmOracleConfig,
)
from distributed_tuner.errors import ModelError, OracleError, TunerError
from distributed_tuner.values import Array, OracleInfo, Request

MOST_PARAMETERS = 2e9  # a larger one would take too long, and too much memory next to the served one
THREADS = 2
SECONDS = 600.0


def plain_config(config: OracleConfig, info: OracleInfo) -> TransformersOracleConfig | None:
    """Return the settings of the plain model behind an oracle; None where it is not known or gives other scores.

    A chat's template and an answer in words are the server's own, which no plain pass repeats.
    """
    dtype = info.dtype if info.dtype in ("bfloat16", "float32") else "float32"
    settings: dict[str, Any] = {"kind": "transformers", "dtype": dtype, "device": "cpu", "threads": THREADS}
    match config:
        case VllmOracleConfig():
            named = {"model": config.model, "revision": config.revision, "trust_remote_code": config.trust_remote_code}
        case OpenAIOracleConfig(api="completions", scores="logprobs", embeddings=str(model)):
            named = {"model": model}
        case _:
            return None
    return TransformersOracleConfig.model_validate(settings | named)


def plain_logits(config: TransformersOracleConfig, request: Request) -> Array:
    """Return the label words' logits (C, E, W) of a request, from files of this machine alone.

    Raises:
        ModelError: the model is not here, is too large, or cannot be asked this.
        OracleError: the process died or took too long.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(there, config, request), daemon=True)
    process.start()
    there.close()
    try:
        if not here.poll(SECONDS):
            raise OracleError(f"the plain forward pass must take less than {SECONDS:.0f} s, but has not ended")
        answer = here.recv()
    except EOFError:
        raise OracleError("the process of the plain forward pass died, perhaps for lack of memory") from None
    finally:
        process.terminate()
        process.join()
        here.close()
    if isinstance(answer, TunerError):
        raise answer
    logits: Array = answer
    return logits


def _answer(there: Connection, config: TransformersOracleConfig, request: Request) -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    from distributed_tuner.oracles.local.loading import load_model_config, locate
    from distributed_tuner.oracles.local.oracle import TransformersOracle

    try:
        locate(config.model)  # says what is wrong with a name, in less time than transformers takes to load
        parameters = _parameters(load_model_config(config))
        if parameters > MOST_PARAMETERS:
            raise ModelError(
                f"a plain forward pass is for up to {MOST_PARAMETERS / 1e9:g} billion parameters, but"
                f" {config.model!r} has about {parameters / 1e9:.1f}"
            )
        there.send(TransformersOracle(config).evaluate(request).logits)
    except TunerError as error:
        there.send(error)


def _parameters(model_config: Any) -> float:
    """Return about how many parameters a transformer has: 12 H^2 a layer, and the embeddings."""
    text = model_config.get_text_config()
    hidden = int(text.hidden_size)
    return 12.0 * int(text.num_hidden_layers) * hidden**2 + int(text.vocab_size) * hidden
