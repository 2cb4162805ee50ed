"""A frozen model of transformers as two functions: hidden states of a flat sequence, and label-word logits of some.

Through transformers' public interface alone: inputs_embeds, position_ids, a replaceable attention function and the
output embeddings. Which rows a sequence is made of is the caller's; how attention sees them is attention.py's.
"""

import inspect
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distributed_tuner.config.oracle import TransformersOracleConfig
from distributed_tuner.oracles.local.attention import (
    NAME,
    Block,
    Segments,
    SharedCache,
    SharedTokens,
    block_on,
    register,
)
from distributed_tuner.oracles.local.cpu_linear import Linear, fastest, pack_linears, unpack_linears
from distributed_tuner.oracles.local.fused_layers import Make, fuse_layers, shape_of
from distributed_tuner.oracles.local.loading import (
    OWN_ATTENTION,
    cache_directory,
    first_position,
    is_masked,
    reads_ids,
    why_whole,
)
from distributed_tuner.oracles.local.output_head import OutputHead
from distributed_tuner.oracles.local.packing import BlockPlan, plan_even
from distributed_tuner.oracles.local.row_limits import context_of
from distributed_tuner.oracles.local.shared_weights import fingerprint, shared
from distributed_tuner.oracles.tokens.continuations import Mask

if TYPE_CHECKING:
    import torch
    from torch import Tensor

log = logging.getLogger(__name__)

CANARY_HEAD, CANARY_ROWS = (3, 5, 7), ((11, 13), (17, 19))  # token ids: what two rows share, and their own
FAR_LEAST, FAR_MOST = 8, 2**17  # places that the second of these rows may end at
REST = "rest."  # in front of the names of weights outside the layers
LAID_OUT_TOLERANCE = {"float32": 1e-4, "bfloat16": 0.05, "float16": 0.01}
"""Of the hidden states' norm, by which another way to compute layers may differ."""


class Trunk:
    """Runs one model on one device. Not thread-safe.

    ``files``: those that the model was read from, as it is; empty where that is not known.
    """

    def __init__(self, model: Any, files: Sequence[Path] = ()) -> None:
        self._model = model.requires_grad_(False).eval()
        self._base = _base_of(model)
        self._files = files
        self._embedding = model.get_input_embeddings()
        self.masked = is_masked(model.config)
        self.device: torch.device = self._embedding.weight.device
        self.dtype: torch.dtype = model.dtype
        self._settings = model.config.get_text_config()
        self._first = first_position(model.config)
        self._last = max(FAR_LEAST, min(FAR_MOST, context_of(model.config))) - 1
        self._added: Tensor | None = None
        self.whole = why_whole(model.config)
        """Why rows cannot share a sequence; empty where they may."""
        self.reads_ids = reads_ids(model.config)
        """Whether layers read the tokens' ids in addition to their embeddings."""
        self.no_rows = ""
        """Why the model takes no rows that are no token's; empty where it does."""
        self.mixes = False
        """The last pass had layers that did not attend, and so may have mixed tokens without asking whose they are."""
        self.head = OutputHead(model, self._base, self.masked, bool(self.whole), len(self.table))
        """From hidden states to logits."""
        if self.masked and hasattr(self._base, "embeddings"):
            self._base.embeddings.register_forward_hook(self._add)
        self.linear: Linear = "plain"
        """Method of the layers' products."""
        self.fused = 0
        """Number of rewritten layers (fused_layers.py)."""
        self.laid_out = False
        if not self.whole:
            model.set_attn_implementation(register())

    @property
    def name(self) -> str:
        """The model's class."""
        return type(self._model).__name__

    @property
    def weights(self) -> int:
        """Of what a token is multiplied with, about."""
        return int(sum(weight.numel() for weight in self._base.parameters()) - self.table.numel())

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
            out = self._base(
                inputs_embeds=embeds_N_D[None],
                position_ids=positions_N[None] + self._first,
                segments=segments,
                **({} if self.masked else {"use_cache": False}),
            )
        finally:
            self._added = None
        self.mixes = segments.layers < self._settings.num_hidden_layers
        hidden: Tensor = out.last_hidden_state[0]
        return hidden if self.fused or segments.answers is None else hidden[segments.answers]

    def alone(self, embeds_B_T_D: "Tensor", place: int, added_B_T_D: "Tensor | None" = None) -> "Tensor":
        """Return what ``head`` reads at a place of sequences of one length (B, ...), by the model's own forward
        pass: nothing of it is replaced except linear layers."""
        import torch

        seen = torch.ones(embeds_B_T_D.shape[:2], dtype=torch.long, device=self.device)
        self._added = added_B_T_D
        try:
            return self._own(place, inputs_embeds=embeds_B_T_D, attention_mask=seen)
        finally:
            self._added = None

    def last(self, embeds_B_T_D: "Tensor", count: int) -> "Tensor":
        """Return the same (B, count, ...) at the last places of a causal model's sequences."""
        import torch

        seen = torch.ones(embeds_B_T_D.shape[:2], dtype=torch.long, device=self.device)
        return self._own(slice(-count, None), inputs_embeds=embeds_B_T_D, attention_mask=seen)

    @property
    def end_ids(self) -> tuple[int, ...]:
        """The tokens that end what the model generates, by its settings for that; none where these name none."""
        known = getattr(getattr(self._model, "generation_config", None), "eos_token_id", None)
        several = known if isinstance(known, list | tuple) else [known]
        return tuple(int(token) for token in several if token is not None)

    def generate(self, embeds_B_T_D: "Tensor", most: int, chooser: Any) -> None:
        """Generate by the model's own ``generate``, at most so many tokens.

        ``chooser``: is called with each step's logits and returns scores whose largest is the token to take;
        ``chooser.goes_on`` says which sequences do. The model's own settings for generation are left aside.
        """
        import torch
        from transformers import GenerationConfig

        def over(_ids: "Tensor", _scores: Any, **_more: Any) -> "Tensor":
            return torch.tensor([not one for one in chooser.goes_on], device=self.device)

        settings = GenerationConfig(max_new_tokens=most, do_sample=False, pad_token_id=0)
        theirs = self._model.generation_config
        seen = torch.ones(embeds_B_T_D.shape[:2], dtype=torch.long, device=self.device)
        try:
            self._model.generation_config = settings
            with self._own_attention():
                self._model.generate(
                    inputs_embeds=embeds_B_T_D,
                    attention_mask=seen,
                    generation_config=settings,
                    logits_processor=[chooser],
                    stopping_criteria=[over],
                )
        finally:
            self._model.generation_config = theirs

    def by_ids(self, ids: Sequence[int], place: int) -> "Tensor":
        """Return the same (1, ...) of a text by its tokens' ids."""
        import torch

        return self._own(place, input_ids=torch.tensor([list(ids)], device=self.device))

    def _own(self, place: int | slice, **given: "Tensor") -> "Tensor":
        model = self._model if self.head.own else self._base
        taken = inspect.signature(model.forward).parameters
        more: dict[str, Any] = {} if self.masked else {"use_cache": False}
        if "logits_to_keep" in taken and (kept := _kept_logits(place)):
            more["logits_to_keep"] = kept
        every = any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values())
        with self._own_attention():
            out = model(**{name: value for name, value in (given | more).items() if every or name in taken})
        read: Tensor = out.logits if self.head.own else out.last_hidden_state
        return read[:, place]

    @contextmanager
    def _own_attention(self) -> Iterator[None]:
        if self.whole:  # it was never replaced
            yield
            return
        self._model.set_attn_implementation(OWN_ATTENTION)
        try:
            yield
        finally:
            self._model.set_attn_implementation(NAME)

    def block(
        self, plan: BlockPlan, shared: SharedTokens | SharedCache | None = None, seen: Mask | None = None
    ) -> Block:
        """Put a planned block on the device; causal unless the model reads both ways, or ``seen`` says otherwise."""
        return block_on(plan, self.device, self.dtype, not self.masked, shared, seen)

    def keep_whole(self, why: str) -> None:
        """Compute rows whole from now on."""
        if not self.whole:
            self._model.set_attn_implementation(OWN_ATTENTION)
        self.whole = why

    def stays(self, config: TransformersOracleConfig) -> bool:
        """Compile what is to be compiled; tell whether the layers stay as they are."""
        from transformers.modeling_layers import GradientCheckpointingLayer

        if config.compile:
            for module in self._base.modules():
                if isinstance(module, GradientCheckpointingLayer):  # transformers' base of one layer of the stack
                    module.compile(dynamic=True)
        return self.device.type != "cpu" or config.compile or config.gradients or config.given

    def lay_out(
        self, config: TransformersOracleConfig, canaries: "Callable[[], Tensor]", rewritten: bool = True
    ) -> None:
        """Choose how a CPU computes products, and rewrite layers where they can be.

        Where the ``canaries`` get something else then, everything is put back. Rewritten layers take no whole rows.
        """
        self.laid_out = True
        self.linear = fastest(self._base) if config.linear == "auto" else config.linear
        layers = None if self.masked or self.whole or not rewritten else getattr(self._base, "layers", None)
        if layers is None or not self._rewrite(layers, canaries):
            self._pack(canaries)

    def _pack(self, canaries: "Callable[[], Tensor]") -> None:
        """Pack the products; put everything back where the model computes something else then."""
        wanted = canaries()
        if not pack_linears(self._base, self.linear):
            return
        try:
            if self._near(canaries(), wanted):
                return
        except (AttributeError, RuntimeError) as error:  # somebody reads a weight past its layer
            log.debug("packed linear layers of %s: %s", self.name, error)
        unpack_linears(self._base)
        self.linear = "plain"
        log.warning("the linear layers of %s stay as they are: packed, they give something else", self.name)

    def _near(self, got: "Tensor", wanted: "Tensor") -> bool:
        return near(got, wanted, LAID_OUT_TOLERANCE[str(self.dtype).removeprefix("torch.")])

    def _rewrite(self, layers: Any, canaries: "Callable[[], Tensor]") -> bool:
        """Rewrite the layers where they can be; put everything back where the model computes something else then."""
        if any(shape_of(layer) is None for layer in layers):
            return False
        original, wanted = list(layers), canaries()
        weights = [(weight, weight.data) for weight in self._model.parameters()]
        self.fused = fuse_layers(layers, self.linear, self._kept)
        if self.fused and not self._near(canaries(), wanted):
            log.warning("the layers of %s are not rewritten: they compute something else", self.name)
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
        inside = {id(weight) for weight in self._base.layers.parameters()}
        rest = {name: weight for name, weight in self._model.named_parameters() if id(weight) not in inside}

        def make_all() -> "dict[str, Tensor]":
            return make() | {f"{REST}{name}": weight.detach().clone() for name, weight in rest.items()}

        weights = shared(cache_directory() / "layers", fingerprint(self._files, str(self.dtype)), make_all)
        for name, weight in rest.items():
            weight.data = weights[f"{REST}{name}"]
        return weights

    def _add(self, _module: Any, _inputs: Any, output: "Tensor") -> "Tensor":
        return output if self._added is None else output + self._added

    def canaries(self) -> "Tensor":
        """Return what is read at some short rows' own tokens, computed in one sequence where they may share one.

        The second row stands at the end of the context, since layers may treat far places otherwise.
        """
        import torch

        if self.whole:
            with torch.inference_mode():
                rows_2_T_D = self.embed([[*CANARY_HEAD, *row] for row in CANARY_ROWS])
                return torch.cat([self.alone(rows_2_T_D, place) for place in (-2, -1)]).float()
        head, width, rows = len(CANARY_HEAD), len(CANARY_ROWS[0]), len(CANARY_ROWS)
        close, far = range(head, head + width), range(self._last - width + 1, self._last + 1)
        if self.masked:  # nothing can be shared
            ids = [*(t for row in CANARY_ROWS for t in (*CANARY_HEAD, *row))]
            block = self.block(plan_even(rows, 1, head + width))
            hidden = self._canary(ids, [*range(head), *close, *range(head), *far], [block])
            return hidden.view(rows, head + width, -1)[:, head:].flatten(0, 1)
        ids = [*CANARY_HEAD, *(t for row in CANARY_ROWS for t in row)]
        shared = self.block(plan_even(1, rows, width, head), SharedTokens(0, head))
        return self._canary(ids, [*range(head), *close, *far], [self.block(plan_even(1, 1, head)), shared])[head:]

    def _canary(self, ids: list[int], positions: list[int], blocks: list[Block]) -> "Tensor":
        import torch

        with torch.inference_mode():
            known = torch.tensor(ids, device=self.device) % len(self.table)
            at = torch.tensor(positions, device=self.device)
            return self.forward(self.embed(known), at, Segments(tuple(blocks))).float()


def _kept_logits(place: int | slice) -> int:
    """Return of how many last places logits are wanted; 0: of others."""
    if isinstance(place, slice):
        return -int(place.start)
    return 1 if place == -1 else 0


def near(got: "Tensor", wanted: "Tensor", tolerance: float) -> bool:
    """Tell whether a tensor differs from another by no more than so much of its norm; a NaN does."""
    return bool((got - wanted).norm() <= tolerance * wanted.norm())


def _base_of(model: Any) -> Any:
    """Return the part of a model that makes hidden states; some do not name it as transformers expects.

    The model itself where there is no such part.
    """
    named = (model.base_model, model.get_decoder(), getattr(model, "model", None))
    return next((part for part in named if part is not None and part is not model), model)
