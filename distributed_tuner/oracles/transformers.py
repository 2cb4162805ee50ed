"""A frozen causal language model of Hugging Face transformers as a loss oracle.

Only the label words' logits at one position matter, so only those are computed: the head runs for the label rows at the
answer position alone, in float32. What candidates or examples share is computed once and its keys and values reused:

- prefix layout: the prompt's keys and values once a candidate; the rows, packed without padding, attend to them;
- suffix layout: the texts' keys and values once a run, kept on the device in a bounded cache; every candidate adds
  only its prompt rows and the cue.

Through transformers' public interface alone (inputs_embeds, position_ids, a 4-dimensional attention mask and a
DynamicCache), so any causal model with these works. What a sequence looks like is encoding.py's; how rows share a
pass is packing.py's.
"""

import math
import time
from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from distributed_tuner.config.oracle import TransformersOracleConfig
from distributed_tuner.errors import ModelError
from distributed_tuner.oracles.base import evaluation, priced
from distributed_tuner.oracles.encoding import Encoder
from distributed_tuner.oracles.models import load_model, load_tokenizer
from distributed_tuner.oracles.packing import pack
from distributed_tuner.prompts.recipes import Recipes
from distributed_tuner.seeds import generator
from distributed_tuner.values import Array, Batch, Candidate, Cost, Evaluation, OracleInfo, PromptSpec, Request, Text

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    KeyValues: TypeAlias = list[tuple[Tensor, Tensor]]

FILLER = 1000  # the papers' filler prompt is the tokens 1000, 1001, ... (algorithm notes of BBT and ZOT)
FORWARD_TOKENS = 8192  # tokens a forward pass may hold; splits a large tile, the same way every time


class TransformersOracle:
    """Answers loss queries of one model on one device. Not thread-safe: one request at a time."""

    def __init__(self, config: TransformersOracleConfig) -> None:
        import torch

        torch.set_num_threads(config.threads)
        self._config = config
        self._model, self._device = load_model(config)
        self._tokenizer = load_tokenizer(config)
        self._encoder = Encoder(self._tokenizer, context_of(self._model.config))
        embedding: Tensor = self._model.get_input_embeddings().weight
        std = float(embedding.float().std())
        self._recipes = Recipes(std)
        self._bases: dict[PromptSpec, Array] = {}
        self._texts: OrderedDict[tuple[int, ...], KeyValues] = OrderedDict()
        self._texts_bytes = 0
        vocabulary, width = embedding.shape
        dtype = str(self._model.dtype).removeprefix("torch.")
        self._info = OracleInfo(config.model, width, vocabulary, self._encoder.context, std, dtype, self._device.type)

    @property
    def info(self) -> OracleInfo:
        return self._info

    def cost(self, request: Request) -> Cost:
        return priced(self._encoder.cost(request), self._config.price)

    def evaluate(self, request: Request, timeout: float = math.inf) -> Evaluation:
        import torch

        began = time.perf_counter()
        with torch.inference_mode():
            logits = np.empty(
                (len(request.candidates), len(request.batch.examples), len(request.batch.label_words)), np.float32
            )
            label_ids = self._encoder.label_ids(request.batch)
            soft = [i for i, candidate in enumerate(request.candidates) if not isinstance(candidate, Text)]
            if soft:
                rows = [torch.from_numpy(self.materialize(request.candidates[i], request.prompt)) for i in soft]
                rows_C_L_D = torch.stack(rows).to(self._device, self._model.dtype)
                self._encoder.require_fit(request.batch, request.prompt)
                layout = self._prefix if request.prompt.layout == "prefix" else self._suffix
                logits[soft] = self._head(layout(rows_C_L_D, request.batch), label_ids)
            for i, candidate in enumerate(request.candidates):
                if isinstance(candidate, Text):
                    logits[i] = self._head(self._text(candidate, request.batch), label_ids)[0]
        counted = self._encoder.cost(request)
        cost = priced(replace(counted, seconds=time.perf_counter() - began), self._config.price)
        return evaluation(logits, request.batch, cost)

    def materialize(self, candidate: Candidate, prompt: PromptSpec) -> Array:
        base_L_D = self._base(prompt)
        unit = self._info.embedding_std if prompt.units == "embedding" else 1.0
        x_L_D = self._recipes.coordinates(candidate, base_L_D.size, unit).reshape(base_L_D.shape)
        return base_L_D + np.float32(unit) * x_L_D

    def nearest_tokens(self, rows: Array) -> list[tuple[str, float]]:
        import torch

        embedding = self._model.get_input_embeddings().weight.float()
        with torch.inference_mode():
            normed = torch.nn.functional.normalize(embedding, dim=1)
            wanted = torch.nn.functional.normalize(torch.from_numpy(rows).to(embedding.device), dim=1)
            cosines, ids = (wanted @ normed.T).max(dim=1)
        return [(self._tokenizer.decode([int(i)]), float(c)) for i, c in zip(ids, cosines, strict=True)]

    # ------------------------------------------------------------------------------------------------ prompts
    def _base(self, prompt: PromptSpec) -> Array:
        """Return the rows at x = 0, shape (L, D)."""
        if prompt not in self._bases:
            if prompt.init == "zeros":
                base = np.zeros((prompt.length, self._info.width), dtype=np.float32)
            else:
                base = self._embed(self._base_ids(prompt)).float().cpu().numpy()
            self._bases[prompt] = base
        return self._bases[prompt]

    def _base_ids(self, prompt: PromptSpec) -> list[int]:
        if prompt.init == "filler":
            return [(FILLER + i) % self._info.vocabulary for i in range(prompt.length)]
        if prompt.init == "vocab":
            stream = generator(("prompt", prompt.seed))
            return [int(i) for i in stream.integers(self._info.vocabulary, size=prompt.length)]
        return fit_ids(self._encoder.ids(prompt.text, False), prompt.length)

    def _embed(self, ids: Any) -> "Tensor":
        import torch

        embedded: Tensor = self._model.get_input_embeddings()(
            torch.as_tensor(ids, dtype=torch.long, device=self._device)
        )
        return embedded

    # ------------------------------------------------------------------------------------------------ layouts
    def _prefix(self, rows_C_L_D: "Tensor", batch: Batch) -> "Tensor":
        return self._packed(rows_C_L_D, [self._encoder.line(example, True) for example in batch.examples])

    def _text(self, candidate: Text, batch: Batch) -> "Tensor":
        prompt = self._encoder.prompt(candidate.text)
        self._encoder.require_words(batch)
        lines = [self._encoder.line(example, False) for example in batch.examples]
        total = len(prompt) + max(map(len, lines))
        if total > self._encoder.context:
            raise ModelError(
                f"prompt and text must fit into the model's context of {self._encoder.context} tokens, but the text"
                f" prompt {candidate.text[:40]!r}... with the longest example makes {total}; shorten it"
            )
        return self._packed(self._embed(prompt)[None] if prompt else None, lines)

    def _packed(self, prompt_C_L_D: "Tensor | None", lines: list[tuple[int, ...]]) -> "Tensor":
        """Return the last hidden states (C, E, D) of lines that each follow the prompt, with no row padded."""
        import torch

        count, length = (1, 0) if prompt_C_L_D is None else prompt_C_L_D.shape[:2]
        packs = pack([len(line) for line in lines])
        groups, slots = packs.shape
        ids = np.zeros((groups, slots), dtype=np.int64)
        real = packs.row >= 0
        ids[real] = [lines[r][o] for r, o in zip(packs.row[real], packs.offset[real], strict=True)]
        row_G_S, offset_G_S = (torch.from_numpy(a).to(self._device) for a in (packs.row, packs.offset))
        mask = torch.cat(
            [torch.ones(groups, slots, length, dtype=torch.bool, device=self._device), _same_row(row_G_S)], dim=2
        )
        text_G_S_D, positions = self._embed(ids), length + offset_G_S
        prompt_kv = None if prompt_C_L_D is None else self._forward(prompt_C_L_D)[1]
        step = max(1, FORWARD_TOKENS // (groups * slots))
        hidden = []
        for at in range(0, count, step):
            n = min(step, count - at)
            past = None if prompt_kv is None else [_repeated(kv, at, n, groups) for kv in prompt_kv]
            out, _ = self._forward(text_G_S_D.repeat(n, 1, 1), positions.repeat(n, 1), mask.repeat(n, 1, 1), past)
            hidden.append(out.reshape(n, groups * slots, -1)[:, torch.from_numpy(packs.end)])
        return torch.cat(hidden)

    def _suffix(self, rows_C_L_D: "Tensor", batch: Batch) -> "Tensor":
        """Return the last hidden states (C, E, D) of [text][prompt][cue], all candidates of a row in one sequence."""
        import torch

        by_cue: dict[str, list[int]] = {}
        for j, example in enumerate(batch.examples):
            by_cue.setdefault(example.cue, []).append(j)
        hidden = rows_C_L_D.new_empty((len(rows_C_L_D), len(batch.examples), rows_C_L_D.shape[2]))
        for cue, chosen in by_cue.items():
            cue_C_c_D = self._embed(list(self._encoder.ids(cue, False))).expand(len(rows_C_L_D), -1, -1)
            sequence = torch.cat([rows_C_L_D, cue_C_c_D], dim=1) if cue else rows_C_L_D
            texts = [self._encoder.ids(batch.examples[j].text, True) for j in chosen]
            step = max(1, FORWARD_TOKENS // (sequence.shape[0] * sequence.shape[1]))
            for at in range(0, len(chosen), step):
                keep = batch.split != "test"
                hidden[:, chosen[at : at + step]] = self._after_texts(sequence, texts[at : at + step], keep)
        return hidden

    def _after_texts(self, sequence_C_S_D: "Tensor", texts: list[tuple[int, ...]], keep: bool) -> "Tensor":
        import torch

        count, slots, width = sequence_C_S_D.shape
        lengths = torch.tensor([len(text) for text in texts], device=self._device)
        past = self._text_key_values(texts, keep)
        longest = max(1, int(lengths.max()))  # texts may be blank
        seen = torch.arange(longest, device=self._device)[None, :] < lengths[:, None]
        candidate = torch.arange(count, device=self._device).repeat_interleave(slots)[None]
        mask = torch.cat(
            [
                seen[:, None, :].expand(-1, count * slots, -1),
                _same_row(candidate).expand(len(texts), -1, -1),
            ],
            dim=2,
        )
        positions = lengths[:, None] + torch.arange(slots, device=self._device).repeat(count)[None]
        inputs = sequence_C_S_D.reshape(1, count * slots, width).expand(len(texts), -1, -1)
        out, _ = self._forward(inputs, positions, mask, past)
        return out.reshape(len(texts), count, slots, width)[:, :, -1].transpose(0, 1)

    def _text_key_values(self, texts: list[tuple[int, ...]], keep: bool) -> "KeyValues":
        """Return keys and values of the texts, padded on the right to the longest.

        Texts that are kept are computed alone, so that what else is in the batch cannot change their bits. Texts that
        are seen once (test) are computed together; padding comes after a text, where a causal model never looks.
        """
        import torch

        longest = max(1, *map(len, texts))
        if not keep:
            ids = np.zeros((len(texts), longest), dtype=np.int64)
            for r, text in enumerate(texts):
                ids[r, : len(text)] = text
            return self._forward(self._embed(ids))[1]
        each = [self._one_text(text) for text in texts]
        padded: KeyValues = []
        for layer in zip(*each, strict=True):
            keys, values = (
                torch.cat(
                    [torch.nn.functional.pad(pair[part], (0, 0, 0, longest - pair[part].shape[2])) for pair in layer]
                )
                for part in (0, 1)
            )
            padded.append((keys, values))
        return padded

    def _one_text(self, text: tuple[int, ...]) -> "KeyValues":
        if text in self._texts:
            self._texts.move_to_end(text)
            return self._texts[text]
        _, computed = self._forward(self._embed([text or (0,)]))
        computed = [(keys[:, :, : len(text)], values[:, :, : len(text)]) for keys, values in computed]
        self._texts[text] = computed
        self._texts_bytes += _bytes(computed)
        while self._texts_bytes > self._config.text_cache_gib * 2**30 and self._texts:
            self._texts_bytes -= _bytes(self._texts.popitem(last=False)[1])
        return computed

    # ------------------------------------------------------------------------------------------------ the model
    def _forward(
        self,
        embeds: "Tensor",
        positions: "Tensor | None" = None,
        mask: "Tensor | None" = None,
        past: "KeyValues | None" = None,
    ) -> "tuple[Tensor, KeyValues]":
        """Run the trunk. embeds (b, q, D), positions (b, q), mask (b, q, k) True where a query may look, past a layer.

        Returns the hidden states (b, q, D) after the final norm, and the keys and values of past and new positions.
        """
        import torch
        from transformers import DynamicCache

        cache = DynamicCache()
        for layer, (keys, values) in enumerate(past or []):
            cache.update(keys, values, layer)
        if mask is not None:
            additive = torch.zeros(mask.shape, dtype=embeds.dtype, device=embeds.device)
            mask = additive.masked_fill_(~mask, torch.finfo(embeds.dtype).min)[:, None]
        if positions is None:
            positions = torch.arange(embeds.shape[1], device=embeds.device).expand(embeds.shape[0], -1)
        out = self._model.base_model(
            inputs_embeds=embeds, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        )
        return out.last_hidden_state, [(layer.keys, layer.values) for layer in out.past_key_values.layers]

    def _head(self, hidden_C_E_D: "Tensor", label_ids: tuple[int, ...]) -> Array:
        """Return the label words' logits (C, E, W) in float32."""
        import torch

        head = self._model.get_output_embeddings()
        logits = hidden_C_E_D.float() @ head.weight[list(label_ids)].float().T
        if getattr(head, "bias", None) is not None:
            logits = logits + head.bias[list(label_ids)].float()
        config = self._model.config
        if scale := getattr(config, "logit_scale", None):  # Cohere
            logits = logits * scale
        if scaling := getattr(config, "logits_scaling", None):  # Granite
            logits = logits / scaling
        if cap := getattr(config, "final_logit_softcapping", None):  # Gemma
            logits = cap * torch.tanh(logits / cap)
        result: Array = logits.cpu().numpy()
        return result


def context_of(model_config: Any) -> int:
    """Return the number of positions that the model knows; no more than its sliding window, which is not applied."""
    names = ("max_position_embeddings", "n_positions", "sliding_window")
    return min((int(n) for name in names if (n := getattr(model_config, name, None))), default=2**31)


def fit_ids(ids: tuple[int, ...], length: int) -> list[int]:
    """Fit a text to ``length`` rows: repeated from its end backwards, so that its end stands next to the example.

    Raises:
        ModelError: the text has no tokens.
    """
    if not ids:
        raise ModelError(
            "prompt.init 'text' needs a text, but prompt.text and the task's manual_prompt are empty; write one, or set"
            " prompt.init to vocab, filler or zeros"
        )
    repeated = list(ids) * (length // len(ids) + 1)
    return repeated[-length:]


def _same_row(row: "Tensor") -> "Tensor":
    """Return the causal mask (b, q, q) of positions that belong to the same row; row (b, q)."""
    import torch

    slots = row.shape[1]
    earlier = torch.ones(slots, slots, dtype=torch.bool, device=row.device).tril()
    return (row[:, :, None] == row[:, None, :]) & earlier


def _repeated(pair: "tuple[torch.Tensor, torch.Tensor]", at: int, n: int, groups: int) -> "tuple[Tensor, Tensor]":
    keys, values = (part[at : at + n].repeat_interleave(groups, dim=0) for part in pair)
    return keys, values


def _bytes(pairs: "KeyValues") -> int:
    return sum(part.nbytes for pair in pairs for part in pair)
