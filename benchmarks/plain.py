"""The loss of a soft prompt as BBT, ZOT and MeZO compute it: what the oracle is compared with.

One candidate a forward pass, its rows concatenated to every row of the batch, rows padded to the longest with an
attention mask, all positions through the head of the whole vocabulary. Nothing here comes from our oracle.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from distributed_tuner.seeds import standard_normal
from distributed_tuner.values import Array, Batch, Example, Layout

if TYPE_CHECKING:
    from torch import Tensor

FILLER = 1000  # "add" puts the rows on the embeddings of the tokens 1000, 1001, ...
SCALE = 0.1  # of a candidate's rows: about as wide as an embedding matrix


@dataclass(frozen=True, slots=True)
class Line:
    """The token ids of an example ``before`` and ``after`` the prompt, and the place of its answer among them."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    answer: int

    def __len__(self) -> int:
        return len(self.before) + len(self.after)


class Plain:
    """A transformers model, causal or masked, asked the plain way on the device where it lies."""

    def __init__(self, model: Any, tokenizer: Any, batch: Batch) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._batch = batch
        self._masked = any(example.tail for example in batch.examples)
        self._label_ids = [self._encode(word)[0] for word in batch.label_words]

    def example_losses(self, rows_L_D: Array, layout: Layout, examples: int | None = None) -> Array:
        """Return the cross-entropy of the label words, (E,), of the first ``examples`` examples (None: of all)."""
        import torch

        chosen = self._batch.examples[:examples]
        lines = [self._line(example, layout) for example in chosen]
        device = self._model.device
        with torch.inference_mode():
            prompt_L_D = torch.from_numpy(rows_L_D).to(device, self._model.dtype)
            rows = [self._embedded(line, prompt_L_D, layout) for line in lines]
            embeds = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
            lengths = torch.tensor([len(row) for row in rows], device=device)
            mask = (torch.arange(embeds.shape[1], device=device)[None] < lengths[:, None]).long()
            with self._adding(prompt_L_D, [len(line.before) for line in lines], embeds, layout):
                logits = self._model(inputs_embeds=embeds, attention_mask=mask).logits
            answers = torch.tensor([len(prompt_L_D) + line.answer for line in lines], device=device)
            words = logits[torch.arange(len(lines), device=device), answers][:, self._label_ids].float()
            labels = torch.tensor([example.label for example in chosen], device=device)
            losses: Array = torch.nn.functional.cross_entropy(words, labels, reduction="none").cpu().numpy()
        return losses

    def lengths(self, layout: Layout) -> tuple[int, ...]:
        """Return the tokens of each example beside the prompt's rows."""
        return tuple(len(self._line(example, layout)) for example in self._batch.examples)

    def cue_tokens(self) -> tuple[int, ...]:
        """Return the tokens of each example's cue."""
        return tuple(len(self._encode(example.cue)) for example in self._batch.examples)

    def _line(self, example: Example, layout: Layout) -> Line:
        if self._masked:
            return self._masked_line(example)
        match layout:
            case "prefix":
                parts = self._encode(""), self._encode(example.text + example.cue, special=True)
            case "suffix":
                parts = self._encode(example.text, special=True), self._encode(example.cue)
            case "add":
                parts = self._encode("", special=True), self._encode(example.text + example.cue)
        return Line(*parts, sum(map(len, parts)) - 1)

    def _masked_line(self, example: Example) -> Line:
        """The prompt stands after the special tokens that a text begins with; the mask takes its space with it."""
        tokenizer = self._tokenizer
        text = f"{example.text}{example.cue} {tokenizer.mask_token}{example.tail}"
        ids = self._encode(text, special=True)
        start = next(i for i, token in enumerate(ids) if token not in tokenizer.all_special_ids)
        return Line(ids[:start], ids[start:], ids.index(tokenizer.mask_token_id))

    def _embedded(self, line: Line, prompt_L_D: "Tensor", layout: Layout) -> "Tensor":
        import torch

        before, after = self._embed(line.before), self._embed(line.after)
        if layout != "add":
            return torch.cat([before, prompt_L_D, after])
        vocabulary = self._model.get_input_embeddings().weight.shape[0]
        row = torch.cat([before, self._embed([(FILLER + i) % vocabulary for i in range(len(prompt_L_D))]), after])
        if not self._masked:
            row[: len(prompt_L_D)] += prompt_L_D
        return row

    @contextmanager
    def _adding(
        self, prompt_L_D: "Tensor", starts: list[int], embeds_E_S_D: "Tensor", layout: Layout
    ) -> Iterator[None]:
        """Add the rows where BBT's code adds a masked model's: on the fillers, behind the embedding layer's norm."""
        if not self._masked or layout != "add":
            yield
            return
        added = embeds_E_S_D.new_zeros(embeds_E_S_D.shape)
        for row, start in zip(added, starts, strict=True):
            row[start : start + len(prompt_L_D)] = prompt_L_D
        hook = self._model.base_model.embeddings.register_forward_hook(lambda _module, _inputs, output: output + added)
        try:
            yield
        finally:
            hook.remove()

    def _embed(self, ids: Any) -> "Tensor":
        import torch

        embedded: Tensor = self._model.get_input_embeddings()(
            torch.as_tensor(ids, dtype=torch.long, device=self._model.device)
        )
        return embedded

    def _encode(self, text: str, special: bool = False) -> tuple[int, ...]:
        return tuple(self._tokenizer(text, add_special_tokens=special)["input_ids"])


def candidate_rows(index: int, length: int, width: int) -> Array:
    """Return the rows (L, D) of a benchmark's candidate."""
    rows = standard_normal(("benchmark", index), length * width).reshape(length, width)
    return np.asarray(SCALE * rows, dtype=np.float32)
