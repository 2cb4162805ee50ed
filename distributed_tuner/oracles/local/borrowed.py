"""Models and oracles that a Python program hands in as objects: what they must be, and how they are lent."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from distributed_tuner.config.oracle import TransformersOracleConfig
from distributed_tuner.errors import ModelError
from distributed_tuner.oracles.local.oracle import TransformersOracle
from distributed_tuner.oracles.wrappers.base import WrappedOracle
from distributed_tuner.values import Evaluation, Request

DTYPES = ("float32", "bfloat16", "float16")
DEVICES = ("cpu", "cuda", "mps")


def config_of(model: Any) -> TransformersOracleConfig:
    """Return the settings of an oracle of a model of transformers that is at hand, on the device where it is.

    Raises:
        ModelError: it lies on several devices or on none, or has a dtype that is not computed in.
    """
    import torch

    places = sorted({str(weight.device) for weight in model.parameters()})
    device = places[0].partition(":")[0]
    if len(places) > 1 or device not in DEVICES:
        raise ModelError(
            f"the model must lie on one device, of the kinds {', '.join(DEVICES)}, but its weights are on"
            f" {', '.join(places)}; move it with model.to(device), or give its hub id or directory instead"
        )
    dtype = str(model.dtype).removeprefix("torch.")
    if dtype not in DTYPES:
        raise ModelError(
            f"the model must compute in {', '.join(DTYPES)}, but is {dtype}; convert it, as in model.float()"
        )
    name = getattr(model, "name_or_path", "") or type(model).__name__
    return TransformersOracleConfig.model_validate(
        {
            "kind": "transformers",
            "model": name,
            "device": device,
            "dtype": dtype,
            "threads": torch.get_num_threads(),
            "actors": 1,
            "linear": "plain",
            "given": True,
        }
    )


class BorrowedModel(WrappedOracle):
    """A model of transformers that stays its owner's: between two questions it is as it was found.

    Its layers are not rewritten; what is replaced while a question is answered (attention, the head of a masked model,
    which parameters want gradients, training mode) is put back.
    """

    def __init__(self, config: TransformersOracleConfig, model: Any, tokenizer: Any) -> None:
        self._model = model
        owners = _Ways.of(model)
        try:
            super().__init__(TransformersOracle(config, model, tokenizer))
            self._ours = _Ways.of(model)
        finally:
            owners.put_back(model)

    def evaluate(self, request: Request, timeout: float = float("inf")) -> Evaluation:
        with self._borrowed():
            return super().evaluate(request, timeout)

    @contextmanager
    def _borrowed(self) -> Iterator[None]:
        owners = _Ways.of(self._model)
        self._ours.put_back(self._model)
        try:
            yield
        finally:
            owners.put_back(self._model)


@dataclass(frozen=True, eq=False, slots=True)
class _Ways:
    """State of a model that an oracle changes."""

    training: tuple[bool, ...]
    wants_gradients: tuple[bool, ...]
    attention: str | None
    head: Any

    @classmethod
    def of(cls, model: Any) -> "_Ways":
        return cls(
            tuple(module.training for module in model.modules()),
            tuple(weight.requires_grad for weight in model.parameters()),
            getattr(model.config, "_attn_implementation", None),
            model.get_output_embeddings(),
        )

    def put_back(self, model: Any) -> None:
        if self.attention is not None and model.config._attn_implementation != self.attention:
            model.set_attn_implementation(self.attention)
        if model.get_output_embeddings() is not self.head:
            model.set_output_embeddings(self.head)
        for module, training in zip(model.modules(), self.training, strict=False):
            module.training = training
        for weight, wants in zip(model.parameters(), self.wants_gradients, strict=False):
            weight.requires_grad_(wants)
