"""A frozen model of transformers as two functions: hidden states of a flat sequence, and label-word logits of some.

Through transformers' public interface alone: inputs_embeds, position_ids, a replaceable attention function and the
output embeddings. Which rows a sequence is made of is the caller's; how attention sees them is attention.py's.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distributed_tuner.config.oracle import TransformersOracleConfig
from distributed_tuner.errors import ModelError
from distributed_tuner.oracles.attention import Block, Segments, SharedCache, SharedTokens, block_on
from distributed_tuner.oracles.cpu_linear import Linear, fastest, pack_linears
from distributed_tuner.oracles.fused_layers import Make, fuse_layers
from distributed_tuner.oracles.models import cache_directory, first_position, is_masked
from distributed_tuner.oracles.packing import BlockPlan, plan_even
from distributed_tuner.oracles.shared_weights import fingerprint, shared
from distributed_tuner.values import Array

if TYPE_CHECKING:
    import torch
    from torch import Tensor

log = logging.getLogger(__name__)

CANARY_HEAD, CANARY_ROWS = (3, 5, 7), ((11, 13), (17, 19))  # token ids: what two rows share, and their own
CANARY_TOLERANCE = 0.1  # of the hidden states' norm; rounding to bfloat16 takes some hundredths of it
REST = "rest."  # in front of the names of weights outside the layers
FUSED_TOLERANCE = {"float32": 1e-4, "bfloat16": 0.05, "float16": 0.01}  # likewise, of rewritten layers


class Trunk:
    """Runs one model on one device. Not thread-safe.

    ``files``: those that the model was read from, as it is; empty where that is not known.

    Raises:
        ModelError: the model's attention cannot be replaced, or its head is not understood.
    """

    def __init__(self, model: Any, config: TransformersOracleConfig, files: Sequence[Path] = ()) -> None:
        from transformers.modeling_layers import GradientCheckpointingLayer

        self._model = model.requires_grad_(False).eval()
        self._files = files
        self._embedding = model.get_input_embeddings()
        self.masked = is_masked(model.config)
        self.device: torch.device = self._embedding.weight.device
        self.dtype: torch.dtype = model.dtype
        self._first = first_position(model.config)
        self._added: Tensor | None = None
        self._head = _masked_head(model) if self.masked else model.get_output_embeddings()
        if self.masked:
            model.base_model.embeddings.register_forward_hook(self._add)
        self.linear: Linear = "plain"
        """How the layers' products are computed."""
        self.fused = 0
        """How many layers are rewritten (fused_layers.py)."""
        self._require_rows_apart()
        if self.device.type == "cpu" and not config.compile and not config.gradients:
            self._lay_out(config)
        if config.compile:
            for module in model.base_model.modules():
                if isinstance(module, GradientCheckpointingLayer):  # transformers' base of one layer of the stack
                    module.compile(dynamic=True)

    @property
    def table(self) -> "Tensor":
        """The embedding matrix E, shape (vocabulary, D)."""
        weight: Tensor = self._embedding.weight
        return weight

    def embed(self, ids: Any) -> "Tensor":
        """Return the embeddings of token ids, shape (..., D)."""
        import torch

        embedded: Tensor = self._embedding(torch.as_tensor(ids, dtype=torch.long, device=self.device))
        return embedded

    def forward(
        self, embeds_N_D: "Tensor", positions_N: "Tensor", segments: Segments, added_N_D: "Tensor | None" = None
    ) -> "Tensor":
        """Return the hidden states (N, H) after the last norm, or those (A, H) of the segments' answers alone.

        ``positions_N`` count from 0. ``added_N_D`` is added to what a masked model's embedding layer makes of the
        input, after its LayerNorm.
        """
        self._added = added_N_D
        try:
            out = self._model.base_model(
                inputs_embeds=embeds_N_D[None],
                position_ids=positions_N[None] + self._first,
                segments=segments,
                **({} if self.masked else {"use_cache": False}),
            )
        finally:
            self._added = None
        hidden: Tensor = out.last_hidden_state[0]
        return hidden if self.fused or segments.answers is None else hidden[segments.answers]

    def block(self, plan: BlockPlan, shared: SharedTokens | SharedCache | None = None) -> Block:
        """Put a planned block on the device; causal unless the model reads both ways."""
        return block_on(plan, self.device, self.dtype, not self.masked, shared)

    def logits(self, hidden: "Tensor", label_ids: tuple[int, ...]) -> Array:
        """Return the label words' logits (..., W) of hidden states (..., H), in float32."""
        result: Array = self.label_logits(hidden, label_ids).cpu().numpy()
        return result

    def label_logits(self, hidden: "Tensor", label_ids: tuple[int, ...]) -> "Tensor":
        """Return the same on the device."""
        import torch

        if self.masked:
            rows = self._model.get_output_embeddings()
            rows.ids = list(label_ids)
            logits = self._head(hidden)
        else:
            ids = list(label_ids)
            logits = hidden.float() @ self._head.weight[ids].float().T
            if getattr(self._head, "bias", None) is not None:
                logits = logits + self._head.bias[ids].float()
            settings = self._model.config
            if scale := getattr(settings, "logit_scale", None):  # Cohere
                logits = logits * scale
            if scaling := getattr(settings, "logits_scaling", None):  # Granite
                logits = logits / scaling
            if cap := getattr(settings, "final_logit_softcapping", None):  # Gemma
                logits = cap * torch.tanh(logits / cap)
        result: Tensor = logits.float()
        return result

    def _lay_out(self, config: TransformersOracleConfig) -> None:
        """Choose how products are computed, and rewrite what can be; a rewritten model that answers otherwise is not
        used."""
        base = self._model.base_model
        self.linear = fastest(base) if config.linear == "auto" else config.linear
        if self.masked or getattr(base, "layers", None) is None or not self._rewrite(base.layers):
            pack_linears(base, self.linear)

    def _rewrite(self, layers: Any) -> bool:
        """Rewrite the layers where they can be; put everything back where the model computes something else then."""
        original, wanted = list(layers), self._canary_rows()
        weights = [(weight, weight.data) for weight in self._model.parameters()]
        self.fused = fuse_layers(layers, self.linear, self._kept)
        tolerance = FUSED_TOLERANCE[str(self.dtype).removeprefix("torch.")]
        if self.fused and not _near(self._canary_rows(), wanted, tolerance):
            log.warning("the layers of %s are not rewritten: they compute something else", type(self._model).__name__)
            self.fused = 0
            for index, layer in enumerate(original):
                layers[index] = layer
            for weight, data in weights:
                weight.data = data
        return self.fused > 0

    def _kept(self, make: Make) -> "dict[str, Tensor]":
        """Return rewritten layers' weights, shared with the other processes of this machine where that is possible.

        The model's other weights are shared as well then: nothing of the files that it was read from stays in memory.
        """
        if not self._files or self.linear != "plain":  # packed weights cannot be mapped
            return make()
        inside = {id(weight) for weight in self._model.base_model.layers.parameters()}
        rest = {name: weight for name, weight in self._model.named_parameters() if id(weight) not in inside}

        def make_all() -> "dict[str, Tensor]":
            return make() | {f"{REST}{name}": weight.detach().clone() for name, weight in rest.items()}

        weights = shared(cache_directory() / "layers", fingerprint(self._files, str(self.dtype)), make_all)
        for name, weight in rest.items():
            weight.data = weights[f"{REST}{name}"]
        return weights

    def _add(self, _module: Any, _inputs: Any, output: "Tensor") -> "Tensor":
        return output if self._added is None else output + self._added

    def _require_rows_apart(self) -> None:
        """Check that rows have the same hidden states alone and in one sequence, where they share their beginning.

        A model whose attention is not the registered one, or that mixes tokens elsewhere, would answer, and wrongly.
        """
        import torch

        length = len(CANARY_HEAD) + len(CANARY_ROWS[0])
        whole = plan_even(1, 1, length)
        try:
            got = self._canary_rows()
            alone = [
                self._canary([*CANARY_HEAD, *row], [*range(length)], [self.block(whole)])[len(CANARY_HEAD) :]
                for row in CANARY_ROWS
            ]
        except TypeError as error:
            raise ModelError(
                f"the oracle needs a model whose attention can be replaced, but {type(self._model).__name__} takes"
                f" no arguments for it ({error}); choose GPT-2, OPT, LLaMA, Qwen2, Mistral, RoBERTa or BERT"
            ) from error
        if not _near(got, torch.cat(alone), CANARY_TOLERANCE):
            raise ModelError(
                f"the oracle needs a model that keeps rows of one sequence apart, but {type(self._model).__name__}"
                " mixes them (its attention does not follow transformers' attention interface); choose GPT-2, OPT,"
                " LLaMA, Qwen2, Mistral, RoBERTa or BERT"
            )

    def _canary_rows(self) -> "Tensor":
        """Return the hidden states of some rows' own tokens, computed in one sequence."""
        head, width, rows = len(CANARY_HEAD), len(CANARY_ROWS[0]), len(CANARY_ROWS)
        if self.masked:  # nothing can be shared
            ids = [*(t for row in CANARY_ROWS for t in (*CANARY_HEAD, *row))]
            block = self.block(plan_even(rows, 1, head + width))
            hidden = self._canary(ids, [*range(head + width)] * rows, [block])
            return hidden.view(rows, head + width, -1)[:, head:].flatten(0, 1)
        ids = [*CANARY_HEAD, *(t for row in CANARY_ROWS for t in row)]
        positions = [*range(head), *[*range(head, head + width)] * rows]
        shared = self.block(plan_even(1, rows, width, head), SharedTokens(0, head))
        return self._canary(ids, positions, [self.block(plan_even(1, 1, head)), shared])[head:]

    def _canary(self, ids: list[int], positions: list[int], blocks: list[Block]) -> "Tensor":
        import torch

        with torch.inference_mode():
            known = torch.tensor(ids, device=self.device) % len(self.table)
            at = torch.tensor(positions, device=self.device)
            return self.forward(self.embed(known), at, Segments(tuple(blocks))).float()


def _near(got: "Tensor", wanted: "Tensor", tolerance: float) -> bool:
    return bool((got - wanted).norm() <= tolerance * wanted.norm())  # a NaN is not near


def _masked_head(model: Any) -> Any:
    """Return the module from hidden states to logits, its last product cut down to the label words' rows.

    Raises:
        ModelError: there is not exactly one such module.
    """
    import torch

    class LabelRows(torch.nn.Module):
        """The rows ``ids`` of the output embeddings, multiplied in float32."""

        def __init__(self, full: Any) -> None:
            super().__init__()
            self.weight, self.bias, self.ids = full.weight, full.bias, [0]

        def forward(self, hidden: "Tensor") -> "Tensor":
            logits: Tensor = hidden.float() @ self.weight[self.ids].float().T
            if self.bias is not None:
                logits = logits + self.bias[self.ids].float()
            return logits

    heads = [module for module in model.children() if module is not model.base_model]
    full = model.get_output_embeddings()
    if len(heads) != 1 or full is None:
        raise ModelError(
            f"the oracle needs a masked model with one head, but {type(model).__name__} has {len(heads)}; choose"
            " RoBERTa or BERT"
        )
    model.set_output_embeddings(LabelRows(full))
    return heads[0]
