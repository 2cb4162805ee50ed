"""A vLLM engine as two functions: log-probabilities of tokens behind each of many sequences, and tokens that it writes.

The only place that knows vLLM.
The engine lives in this process, so that it ends with it, and only a GPU's tensor parallelism has processes of its own.
"""

import importlib.util
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import numpy as np

from distributed_tuner.config.oracle import VllmOracleConfig
from distributed_tuner.errors import ModelError
from distributed_tuner.oracles.generation import TOP_P
from distributed_tuner.oracles.local.loading import locate
from distributed_tuner.oracles.local.machine import dtype_here
from distributed_tuner.values import Array, Decoding, Sampling

if TYPE_CHECKING:
    from torch import Tensor

Sequenced: TypeAlias = Union["Tensor", list[int]]
"""Embeddings (T, D), or token ids."""

MOST_LABELS = 128  # tokens that vLLM gives the log-probabilities of in one request
CPU_BLOCK = 32  # tokens of a block of the prefix cache: what vLLM's CPU kernels like, and not longer than a prompt
SETTINGS = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine in this process
    "VLLM_NO_USAGE_STATS": "1",  # no usage statistics
    "VLLM_LOGGING_LEVEL": "ERROR",  # warnings come by the tensor
}


class VllmEngine:
    """One model in vLLM. Not thread-safe.

    Raises:
        ModelError: vLLM is not installed here, cannot load the model, or has no room for it.
    """

    def __init__(self, config: VllmOracleConfig) -> None:
        _require_vllm()
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)
        import torch
        import vllm
        from vllm.platforms import current_platform

        self.version: str = vllm.__version__
        self.device: str = current_platform.device_type
        self._prefix_caching = config.prefix_caching
        torch.set_num_threads(config.thread_count)
        if config.enforce_eager:  # vLLM compiles some functions of its sampler even so, a minute's work
            import torch._dynamo

            torch._dynamo.config.disable = True
        try:
            self._llm = vllm.LLM(**_arguments(config, self.device))
        except (ValueError, OSError, RuntimeError) as error:
            raise ModelError(
                f"vLLM must be able to serve the model, but {config.model!r} could not be loaded ({_reason(error)});"
                " see the actor's log in Ray, or set oracle.kind: transformers"
            ) from error
        model = self._llm.model_config
        self.dtype = str(model.dtype).removeprefix("torch.")
        self.context: int = model.max_model_len - 1  # one token is written

    def log_probabilities(self, sequences: Sequence[Sequenced], token_ids: Sequence[int]) -> Array:
        """Return the log-probabilities (N, V) of some tokens behind each sequence, float32."""
        return np.array(self.log_probabilities_each(sequences, [token_ids] * len(sequences)), dtype=np.float32)

    def log_probabilities_each(
        self, sequences: Sequence[Sequenced], token_ids: Sequence[Sequence[int]]
    ) -> list[list[float]]:
        """Return the log-probabilities behind each sequence of tokens of its own.

        vLLM tells those of ``MOST_LABELS`` tokens a request: for more, sequences are asked again. Nothing is kept for
        the next call: what the prefix cache holds would change its rounding.
        """
        from vllm import SamplingParams

        found: list[list[float]] = [[] for _ in sequences]
        for at in range(0, max(map(len, token_ids), default=0), MOST_LABELS):
            cut = [tuple(map(int, ids[at : at + MOST_LABELS])) for ids in token_ids]
            part = {place: ids for place, ids in enumerate(cut) if ids}
            asked = {
                ids: SamplingParams(max_tokens=1, temperature=0.0, logprob_token_ids=list(ids), detokenize=False)
                for ids in part.values()
            }
            answers = self._generate([sequences[place] for place in part], [asked[ids] for ids in part.values()])
            for (place, ids), answer in zip(part.items(), answers, strict=True):
                found[place] += _told(answer.logprobs, list(ids))
        return found

    def texts(
        self, sequences: Sequence[Sequenced], decoding: Decoding, seeds: Sequence[int], end_ids: Sequence[int]
    ) -> list[list[int]]:
        """Return the tokens that are generated behind each sequence, up to one of ``end_ids`` (the last one then).

        ``seeds``: of each sequence's samples.
        """
        from vllm import SamplingParams

        asked = [
            SamplingParams(
                max_tokens=decoding.max_new_tokens,
                temperature=decoding.temperature,
                seed=seed if decoding.temperature > 0 else None,
                stop_token_ids=list(end_ids),
                detokenize=False,
            )
            for seed in seeds
        ]
        return [list(answer.token_ids) for answer in self._generate(sequences, asked)]

    def write(self, ids: list[int], sampling: Sampling, end_ids: Sequence[int]) -> list[int]:
        """Return the tokens that are written behind some others, up to one of ``end_ids`` (which is the last then)."""
        from vllm import SamplingParams

        asked = SamplingParams(
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            top_p=TOP_P if sampling.temperature > 0 else 1.0,
            seed=sampling.seed,
            stop_token_ids=list(end_ids),
            detokenize=False,
        )
        (answer,) = self._generate([ids], [asked])
        return list(answer.token_ids)

    def _generate(self, sequences: Sequence[Sequenced], asked: Sequence[Any]) -> list[Any]:
        """Return the one completion of each sequence, by its own settings. What the prefix cache holds from before is
        forgotten.

        Raises:
            ModelError: log-probabilities of embeddings are asked for, for which vLLM would tell nothing without a word.
        """
        if any(
            settings.prompt_logprobs is not None and not isinstance(one, list)
            for one, settings in zip(sequences, asked, strict=True)
        ):
            raise ModelError(
                "vLLM tells no log-probabilities of a prompt that is given as embeddings; ask for those of the tokens"
                " behind it (logprob_token_ids), or give token ids"
            )
        if self._prefix_caching:
            self._llm.reset_prefix_cache()
        try:
            answers = self._llm.generate([_prompt(one) for one in sequences], list(asked), use_tqdm=False)
        except BaseException:
            self._drop()
            raise
        return [answer.outputs[0] for answer in answers]

    def _drop(self) -> None:
        """Give up what is left of a failed call; its answers would be taken for the next one's."""
        engine = self._llm.llm_engine
        engine.abort_request(list(engine.output_processor.request_states), internal=True)


def _told(logprobs: Any, ids: list[int]) -> list[float]:
    """Return the log-probabilities of some tokens from an answer's first position.

    Raises:
        ModelError: some are not there.
    """
    scores = logprobs[0] if logprobs else None
    lacking = [i for i in ids if not scores or i not in scores]
    if lacking:
        raise ModelError(
            f"vLLM must tell the log-probabilities of all {len(ids)} tokens that it is asked for, but {len(lacking)}"
            f" are not in its answer (token {lacking[0]} is the first); take a version of requirements-vllm.txt, or"
            " oracle.kind: transformers"
        )
    assert scores is not None
    return [scores[i].logprob for i in ids]


def _prompt(sequence: Sequenced) -> dict[str, Any]:
    return {"prompt_token_ids": sequence} if isinstance(sequence, list) else {"prompt_embeds": sequence}


def _arguments(config: VllmOracleConfig, device: str) -> dict[str, Any]:
    """Return what the engine is made with.

    The head computes in float32: in bfloat16 a logit of 16 would be rounded to eighths. What is told is its softmax.
    """
    here: dict[str, Any] = {"gpu_memory_utilization": config.gpu_memory_utilization}
    if device == "cpu":
        here = {"kv_cache_memory_bytes": int(config.kv_cache_gib * 2**30), "block_size": CPU_BLOCK}
    return here | {
        "model": locate(config.model),
        "revision": config.revision,
        "skip_tokenizer_init": True,
        "use_tqdm_on_load": False,
        "trust_remote_code": config.trust_remote_code,
        "dtype": dtype_here(device, config.dtype),
        "hf_overrides": {"head_dtype": "float32"},
        "logprobs_mode": "raw_logprobs",
        "generation_config": "vllm",
        "enable_prompt_embeds": True,
        "enable_prefix_caching": config.prefix_caching,
        "enforce_eager": config.enforce_eager,
        "max_model_len": config.max_model_len,
        "max_num_seqs": config.max_num_seqs,
        "max_num_batched_tokens": config.max_num_batched_tokens,
        "tensor_parallel_size": config.tensor_parallel_size,
        "distributed_executor_backend": "uni" if config.tensor_parallel_size == 1 else "mp",
        "async_scheduling": False,
    }


def _require_vllm() -> None:
    spec = importlib.util.find_spec("vllm")
    if spec is None or spec.origin is None:  # nothing, or a mere folder of that name
        raise ModelError(
            f"oracle.kind 'vllm' needs vLLM, which is not installed for {sys.executable}; make an environment for it"
            " (`make vllm` on a CPU, requirements-vllm.txt on a GPU) and set oracle.python to its Python, or run"
            " tune.py with it"
        )


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:3])[:300] if lines else type(error).__name__
