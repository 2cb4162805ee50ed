"""Logits of a model's words from its hidden states, in float32: those of some words, or one token's at each place.

The sum over all words, by which a logit becomes a log-probability, is taken in pieces of the vocabulary, so that the
logits of all words at all places are never there at once.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from distributed_tuner.oracles.local.cpu_linear import PackedProduct, is_linear

if TYPE_CHECKING:
    from torch import Tensor

PIECE, PLACES = 4096, 1024  # words and places whose logits are there at once
COMPARED = 64  # words whose logits stand for those of all


class OutputHead:
    """The rows of a model's output embeddings, and what it does with the logits. See ``own``.

    base: the part of the model that makes hidden states. vocabulary: rows of its embeddings.
    """

    def __init__(self, model: Any, base: Any, masked: bool, whole: bool, vocabulary: int) -> None:
        self._model = model
        self._masked = masked
        self._settings = model.config.get_text_config()
        self._vocabulary = vocabulary
        self._head: Any = None
        self._packed: PackedProduct | None = None
        if not (whole and masked):
            self._head = _cut_head(model, base) if masked else model.get_output_embeddings()
        self.own = self._head is None or base is model
        """Logits are read from the model's own head, over all words, and not from hidden states."""

    def label_logits(self, hidden: "Tensor", label_ids: tuple[int, ...]) -> "Tensor":
        """Return the label words' logits (..., W) of hidden states (..., H) or of all words' logits, in float32."""
        ids = list(label_ids)
        if self.own:
            return hidden[..., ids].float()
        if self._masked:
            self._model.get_output_embeddings().ids = ids
            logits: Tensor = self._head(hidden).float()
            return logits
        return self._finished(hidden.float() @ self._head.weight[ids].float().T, self._bias(ids))

    def every_logit(self, hidden_x_H: "Tensor") -> "Tensor":
        """Return the logits (..., V) of all words behind a causal model's hidden states, in the model's precision."""
        product = self._head if self._packed is None else self._packed
        return self._finished(product(hidden_x_H), None)

    def pack(self) -> None:
        """Keep a copy of a causal model's rows as the processor multiplies them fast, for ``every_logit``."""
        if self._packed is None and self._head is not None and is_linear(self._head):
            bias = None if self._head.bias is None else self._head.bias.detach()
            self._packed = PackedProduct(self._head.weight.detach(), bias)

    def scores(self, hidden: "Tensor") -> "Tensor":
        """Return logits of words all over the vocabulary less their mean, for comparisons."""
        ids = tuple(range(0, self._vocabulary, max(1, self._vocabulary // COMPARED)))
        logits = self.label_logits(hidden, ids)
        return logits - logits.mean(dim=-1, keepdim=True)

    def token_logits(self, hidden_x_H: "Tensor", tokens_x: "Tensor") -> "Tensor":
        """Return the logit of one token at each place (...) of a causal model."""
        if self.own:
            tokens_x = tokens_x.expand(hidden_x_H.shape[:-1])
            chosen: Tensor = hidden_x_H.gather(-1, tokens_x[..., None])[..., 0]
            return chosen.float()
        products: Tensor = (hidden_x_H.float() * self._head.weight[tokens_x].float()).sum(dim=-1)
        return self._finished(products, self._bias(tokens_x))

    def log_sums(self, hidden_x_H: "Tensor") -> "Tensor":
        """Return the logarithm of the sum of all words' exponentials at each place (...) of a causal model."""
        import torch

        if self.own:
            return torch.logsumexp(hidden_x_H.float(), dim=-1)
        parts = torch.split(hidden_x_H.flatten(0, -2), PLACES)
        return torch.cat([self._log_sums(part) for part in parts]).view(hidden_x_H.shape[:-1])

    def _log_sums(self, hidden_N_H: "Tensor") -> "Tensor":
        import torch

        sums: Tensor | None = None
        for at in range(0, len(self._head.weight), PIECE):
            piece = self._piece_sums(at)
            if torch.is_grad_enabled():  # a piece's logits are made again on the way back
                from torch.utils.checkpoint import checkpoint

                found = checkpoint(piece, hidden_N_H, use_reentrant=False)
            else:
                found = piece(hidden_N_H)
            sums = found if sums is None else torch.logaddexp(sums, found)
        assert sums is not None
        return sums

    def _piece_sums(self, at: int) -> "Callable[[Tensor], Tensor]":
        import torch

        words = slice(at, at + PIECE)

        def sums(hidden_N_H: "Tensor") -> "Tensor":
            weight = self._head.weight[words]
            with _bfloat16_inside() if weight.dtype == hidden_N_H.dtype == torch.bfloat16 else nullcontext():
                products = hidden_N_H.float() @ weight.float().T
            return torch.logsumexp(self._finished(products, self._bias(words)), dim=-1)

        return sums

    def _bias(self, words: Any) -> "Tensor | None":
        bias = getattr(self._head, "bias", None)
        return None if bias is None else bias[words].float()

    def _finished(self, logits: "Tensor", bias: "Tensor | None") -> "Tensor":
        """Return what the model makes of its head's products."""
        import torch

        settings = self._settings
        if bias is not None:
            logits = logits + bias
        if scale := getattr(settings, "logit_scale", None):  # Cohere
            logits = logits * scale
        if scaling := getattr(settings, "logits_scaling", None):  # Granite
            logits = logits / scaling
        if cap := getattr(settings, "final_logit_softcapping", None):  # Gemma
            logits = cap * torch.tanh(logits / cap)
        return logits


@contextmanager
def _bfloat16_inside() -> Iterator[None]:
    """Let a CPU multiply numbers in float32 as bfloat16, in half of the time.

    Of numbers that were bfloat16 it is the same product: they are added up, and returned, in float32.
    """
    import torch

    backend: Any = torch.backends.mkldnn
    matmul = backend.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = before


def _cut_head(model: Any, base: Any) -> Any:
    """Return the module from a masked model's hidden states to logits, its last product cut down to label words' rows.

    None where there is not exactly one such module.
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

    heads = [module for module in model.children() if module is not base]
    full = model.get_output_embeddings()
    if len(heads) != 1 or full is None:
        return None
    model.set_output_embeddings(LabelRows(full))
    return heads[0]
