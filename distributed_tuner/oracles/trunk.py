"""A frozen model of transformers as two functions: hidden states of a flat sequence, and label-word logits of some.

Through transformers' public interface alone: inputs_embeds, position_ids, a replaceable attention function and the
output embeddings. Which rows a sequence is made of is the caller's; how attention sees them is attention.py's.
"""

import logging
from typing import TYPE_CHECKING, Any

from distributed_tuner.config.oracle import TransformersOracleConfig
from distributed_tuner.errors import ModelError
from distributed_tuner.oracles.attention import Block, Segments, SharedCache, SharedTokens, block_on
from distributed_tuner.oracles.cpu_linear import pack_linears
from distributed_tuner.oracles.models import first_position, is_masked
from distributed_tuner.oracles.packing import BlockPlan, plan_even
from distributed_tuner.values import Array

if TYPE_CHECKING:
    import torch
    from torch import Tensor

log = logging.getLogger(__name__)

CANARY_HEAD, CANARY_ROWS = (3, 5, 7), ((11, 13), (17, 19))  # token ids: what two rows share, and their own
CANARY_TOLERANCE = 0.1  # of the hidden states' norm; rounding to bfloat16 takes some hundredths of it


class Trunk:
    """Runs one model on one device. Not thread-safe.

    Raises:
        ModelError: the model's attention cannot be replaced, or its head is not understood.
    """

    def __init__(self, model: Any, config: TransformersOracleConfig) -> None:
        from transformers.modeling_layers import GradientCheckpointingLayer

        self._model = model.requires_grad_(False).eval()
        self._embedding = model.get_input_embeddings()
        self.masked = is_masked(model.config)
        self.device: torch.device = self._embedding.weight.device
        self.dtype: torch.dtype = model.dtype
        self._first = first_position(model.config)
        self._added: Tensor | None = None
        self._head = _masked_head(model) if self.masked else model.get_output_embeddings()
        if self.masked:
            model.base_model.embeddings.register_forward_hook(self._add)
        packable = self.device.type == "cpu" and not config.compile and not config.gradients
        self.packed = pack_linears(model.base_model) if packable else 0
        if config.compile:
            for module in model.base_model.modules():
                if isinstance(module, GradientCheckpointingLayer):  # transformers' base of one layer of the stack
                    module.compile(dynamic=True)
        self._require_rows_apart()

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
        """Return the hidden states (N, H) after the last norm.

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
        return hidden

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

    def _add(self, _module: Any, _inputs: Any, output: "Tensor") -> "Tensor":
        return output if self._added is None else output + self._added

    def _require_rows_apart(self) -> None:
        """Check that rows have the same hidden states alone and in one sequence, where they share their beginning.

        A model whose attention is not the registered one, or that mixes tokens elsewhere, would answer, and wrongly.
        """
        import torch

        head, width = len(CANARY_HEAD), len(CANARY_ROWS[0])
        whole = plan_even(1, 1, head + width)
        together: list[Block] = []
        if self.masked:  # nothing can be shared
            ids = [*(t for row in CANARY_ROWS for t in (*CANARY_HEAD, *row))]
            positions = [*range(head + width)] * len(CANARY_ROWS)
            together.append(self.block(plan_even(len(CANARY_ROWS), 1, head + width)))
        else:
            ids = [*CANARY_HEAD, *(t for row in CANARY_ROWS for t in row)]
            positions = [*range(head), *[*range(head, head + width)] * len(CANARY_ROWS)]
            together.append(self.block(plan_even(1, 1, head)))
            together.append(self.block(plan_even(1, len(CANARY_ROWS), width, head), SharedTokens(0, head)))
        with torch.inference_mode():
            try:
                alone = [
                    self._canary([*CANARY_HEAD, *row], [*range(head + width)], [self.block(whole)])
                    for row in CANARY_ROWS
                ]
                got = self._canary(ids, positions, together)
            except TypeError as error:
                raise ModelError(
                    f"the oracle needs a model whose attention can be replaced, but {type(self._model).__name__} takes"
                    f" no arguments for it ({error}); choose GPT-2, OPT, LLaMA, Qwen2, Mistral, RoBERTa or BERT"
                ) from error
        wanted = torch.cat([hidden[-width:] for hidden in alone])
        if self.masked:
            got = got.view(len(CANARY_ROWS), head + width, -1)[:, -width:].flatten(0, 1)
        if not (got[-len(wanted) :] - wanted).norm() <= CANARY_TOLERANCE * wanted.norm():
            raise ModelError(
                f"the oracle needs a model that keeps rows of one sequence apart, but {type(self._model).__name__}"
                " mixes them (its attention does not follow transformers' attention interface); choose GPT-2, OPT,"
                " LLaMA, Qwen2, Mistral, RoBERTa or BERT"
            )

    def _canary(self, ids: list[int], positions: list[int], blocks: list[Block]) -> "Tensor":
        import torch

        known = torch.tensor(ids, device=self.device) % len(self.table)
        at = torch.tensor(positions, device=self.device)
        return self.forward(self.embed(known), at, Segments(tuple(blocks))).float()


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
