"""Architectures of transformers as tiny random models, and how far the oracle's losses are from the plain pass of each.

    python -m benchmarks.families [FAMILY ...] [--json FILE]

The plain pass is transformers' own, with the attention that it writes out ("eager"): one row at a time, the prompt's
rows in front of the text or behind it, nothing shared. Weights are large enough for losses that differ by units, and
the texts reach over the windows, chunks and changes of the rotary embedding of those models that have any.
"""

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.random_models import make_tokenizer
from benchmarks.tables import table
from distributed_tuner.config.oracle import TransformersOracleConfig
from distributed_tuner.errors import ModelError
from distributed_tuner.maths.losses import cross_entropy
from distributed_tuner.oracles.base import LossOracle
from distributed_tuner.oracles.codec import codec_of
from distributed_tuner.oracles.local.oracle import TransformersOracle
from distributed_tuner.seeds import standard_normal
from distributed_tuner.values import (
    Array,
    Array64,
    Batch,
    Decoding,
    Example,
    LabelRule,
    Layout,
    Point,
    PromptSpec,
    Request,
    Text,
)

CONTEXT, WINDOW, ORIGINAL = 256, 16, 40
LENGTH = 5  # of the prompt
CUE, TAIL = " It was", " ."
TEXTS = ("a good film", "the plot is so dull", "", "this movie has a cast that one feels is always too strange " * 5)
PROMPT = "the story of a film"
SPREAD = 0.25  # of the random weights
PHRASES = (" not so dull", " good", " not a good film")
RULES: tuple[LabelRule, ...] = ("sum", "mean")

Settings = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Family:
    """An architecture: its ``model_type`` in transformers, and settings beside the common ones.

    ``masked``: it fills in masks. ``base``: the common settings that it takes.
    """

    model_type: str
    settings: Settings
    masked: bool = False
    base: str = "llama"


SIZES: Settings = dict(
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    max_position_embeddings=CONTEXT,
    pad_token_id=1,
    bos_token_id=0,
    eos_token_id=2,
)
GROUPED: Settings = dict(num_key_value_heads=2)
HEADS: Settings = GROUPED | dict(head_dim=8)
EXPERTS: Settings = dict(num_experts_per_tok=2, moe_intermediate_size=16)
SLIDING: Settings = dict(sliding_window=WINDOW, layer_types=["sliding_attention", "full_attention"])
LATENT: Settings = dict(q_lora_rank=16, kv_lora_rank=16, qk_rope_head_dim=8, qk_nope_head_dim=8, v_head_dim=8)
LONGROPE: Settings = dict(
    rope_type="longrope",
    rope_theta=10000.0,
    short_factor=[1.0] * 4,
    long_factor=[4.0, 3.0, 2.0, 8.0],
    original_max_position_embeddings=ORIGINAL,
)


def _rope(**parameters: Any) -> Settings:
    return {"rope_parameters": {"rope_theta": 10000.0} | parameters}


FAMILIES: dict[str, Family] = {
    "LLaMA": Family("llama", GROUPED),
    "LLaMA 3 (scaled rope)": Family(
        "llama",
        GROUPED
        | _rope(
            rope_type="llama3",
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=32,
        ),
    ),
    "LLaMA with YaRN": Family(
        "llama", GROUPED | _rope(rope_type="yarn", factor=4.0, original_max_position_embeddings=64)
    ),
    "LLaMA with dynamic rope": Family("llama", GROUPED | _rope(rope_type="dynamic", factor=2.0)),
    "LLaMA with LongRoPE": Family(
        "llama", GROUPED | {"rope_parameters": LONGROPE} | dict(original_max_position_embeddings=ORIGINAL)
    ),
    "Mistral": Family("mistral", GROUPED | dict(sliding_window=None)),
    "Mistral with a window": Family("mistral", GROUPED | dict(sliding_window=WINDOW)),
    "Mixtral": Family("mixtral", GROUPED | dict(num_local_experts=4, num_experts_per_tok=2)),
    "Ministral": Family("ministral", HEADS | SLIDING),
    "Qwen2": Family("qwen2", GROUPED),
    "Qwen2-MoE": Family(
        "qwen2_moe", GROUPED | EXPERTS | dict(num_experts=4, shared_expert_intermediate_size=16, decoder_sparse_step=1)
    ),
    "Qwen3": Family("qwen3", HEADS),
    "Qwen3-MoE": Family("qwen3_moe", HEADS | EXPERTS | dict(num_experts=4)),
    "Gemma": Family("gemma", HEADS),
    "Gemma 2": Family("gemma2", HEADS | SLIDING | dict(query_pre_attn_scalar=8, attn_logit_softcapping=2.0)),
    "Gemma 3 text": Family("gemma3_text", HEADS | SLIDING | dict(query_pre_attn_scalar=8)),
    "Gemma 3 multimodal": Family("gemma3", HEADS | SLIDING | dict(query_pre_attn_scalar=8), base="gemma3"),
    "Gemma 4 text": Family(
        "gemma4_text",
        HEADS | SLIDING | dict(global_head_dim=8, hidden_size_per_layer_input=0, num_kv_shared_layers=0),
    ),
    "Phi": Family("phi", GROUPED),
    "Phi-3": Family("phi3", GROUPED | dict(sliding_window=None)),
    "Phi-3 with LongRoPE": Family(
        "phi3", GROUPED | {"rope_parameters": LONGROPE} | dict(original_max_position_embeddings=ORIGINAL)
    ),
    "Phi-3.5-MoE": Family("phimoe", GROUPED | dict(num_local_experts=4, num_experts_per_tok=2)),
    "Cohere": Family("cohere", GROUPED),
    "Cohere 2": Family("cohere2", GROUPED | SLIDING),
    "DeepSeek-V2": Family(
        "deepseek_v2",
        LATENT
        | dict(num_key_value_heads=4, moe_intermediate_size=16, n_routed_experts=4, n_shared_experts=1)
        | dict(num_experts_per_tok=2, n_group=1, topk_group=1, first_k_dense_replace=1),
    ),
    "DeepSeek-V3": Family(
        "deepseek_v3",
        LATENT
        | dict(num_key_value_heads=4, moe_intermediate_size=16, n_routed_experts=4, n_shared_experts=1)
        | dict(num_experts_per_tok=2, n_group=1, topk_group=1, first_k_dense_replace=1),
    ),
    "Granite": Family("granite", GROUPED | dict(embedding_multiplier=3.0, logits_scaling=2.0, residual_multiplier=0.5)),
    "Granite-MoE": Family("granitemoe", GROUPED | dict(num_local_experts=4, num_experts_per_tok=2)),
    "OLMo": Family("olmo", GROUPED),
    "OLMo 2": Family("olmo2", GROUPED),
    "OLMo 3": Family("olmo3", GROUPED | SLIDING),
    "OLMoE": Family("olmoe", GROUPED | dict(num_experts=4, num_experts_per_tok=2)),
    "StarCoder 2": Family("starcoder2", GROUPED),
    "StarCoder 2 with a window": Family("starcoder2", GROUPED | dict(sliding_window=WINDOW)),
    "SmolLM3": Family("smollm3", GROUPED),
    "GLM": Family("glm", HEADS),
    "GLM-4": Family("glm4", HEADS),
    "GLM-4-MoE": Family(
        "glm4_moe",
        HEADS
        | EXPERTS
        | dict(n_routed_experts=4, n_shared_experts=1, n_group=1, topk_group=1, first_k_dense_replace=1),
    ),
    "EXAONE 4": Family("exaone4", HEADS | SLIDING),
    "Helium": Family("helium", HEADS),
    "Seed-OSS": Family("seed_oss", HEADS),
    "Arcee": Family("arcee", HEADS),
    "ERNIE 4.5": Family("ernie4_5", HEADS),
    "Apertus": Family("apertus", GROUPED),
    "Hunyuan": Family("hunyuan_v1_dense", HEADS),
    "BitNet": Family("bitnet", GROUPED),
    "nanochat": Family("nanochat", GROUPED),
    "MiniMax-M2": Family("minimax_m2", HEADS | dict(num_local_experts=4, num_experts_per_tok=2, rotary_dim=8)),
    "Persimmon": Family("persimmon", {}),
    "GPT-2": Family("gpt2", dict(scale_attn_by_inverse_layer_idx=True), base="gpt2"),
    "GPT-BigCode": Family("gpt_bigcode", {}, base="gpt2"),
    "GPT-NeoX": Family("gpt_neox", {}),
    "CTRL": Family("ctrl", dict(dff=48), base="gpt2"),
    "OPT": Family("opt", dict(ffn_dim=48, word_embed_proj_dim=16)),
    "GPT-OSS": Family(
        "gpt_oss", HEADS | SLIDING | dict(num_local_experts=4, num_experts_per_tok=2) | _rope(rope_type="default")
    ),
    "GPT-Neo": Family(
        "gpt_neo", dict(num_layers=2, num_heads=4, attention_types=[[["global", "local"], 1]], window_size=WINDOW)
    ),
    "GPT-J": Family("gptj", dict(rotary_dim=4), base="gpt2"),
    "CodeGen": Family("codegen", dict(rotary_dim=4), base="gpt2"),
    "Falcon": Family("falcon", dict(new_decoder_architecture=True, num_kv_heads=2)),
    "Falcon with ALiBi": Family("falcon", dict(alibi=True, new_decoder_architecture=False, multi_query=True)),
    "StableLM": Family("stablelm", GROUPED),
    "BLOOM": Family("bloom", dict(n_layer=2, n_head=4)),
    "MPT": Family("mpt", dict(d_model=32, n_layers=2, n_heads=4, max_seq_len=CONTEXT), base="none"),
    "XGLM": Family("xglm", dict(d_model=32, ffn_dim=48, num_layers=2, attention_heads=4), base="none"),
    "Mamba": Family("mamba", dict(state_size=4, num_hidden_layers=2, hidden_size=32), base="none"),
    "RecurrentGemma": Family(
        "recurrent_gemma",
        HEADS | dict(lru_width=32, attention_window_size=WINDOW, block_types=["recurrent", "attention"]),
    ),
    "LFM2": Family("lfm2", GROUPED | dict(layer_types=["conv", "full_attention"])),
    "Llama 4 text": Family(
        "llama4_text",
        HEADS
        | dict(num_local_experts=4, num_experts_per_tok=1, intermediate_size_mlp=48, interleave_moe_layer_step=2)
        | dict(attention_chunk_size=WINDOW, layer_types=["chunked_attention", "full_attention"]),
    ),
    "Ministral 3": Family(
        "ministral3",
        HEADS
        | _rope(rope_type="yarn", factor=4.0, original_max_position_embeddings=64, llama_4_scaling_beta=0.1)
        | dict(sliding_window=None),
    ),
    "JetMoE": Family("jetmoe", GROUPED | dict(num_local_experts=4, num_experts_per_tok=2, kv_channels=8)),
    "ERNIE 4.5 MoE": Family("ernie4_5_moe", HEADS | dict(moe_num_experts=4, moe_k=2, moe_intermediate_size=16)),
    "Hunyuan-MoE": Family("hunyuan_v1_moe", HEADS | dict(num_experts=4, moe_topk=2)),
    "InternLM3": Family("internlm3", HEADS),
    "Nemotron": Family("nemotron", HEADS),
    "MiniCPM3": Family("minicpm3", LATENT | dict(num_key_value_heads=4, head_dim=16)),
    "DiffLlama": Family("diffllama", GROUPED),
    "ModernBERT decoder": Family("modernbert-decoder", dict(local_attention=WINDOW, global_attn_every_n_layers=2)),
    "OLMo hybrid": Family("olmo_hybrid", HEADS),
    "MiniMax-01": Family("minimax", HEADS | dict(num_local_experts=4, num_experts_per_tok=2)),
    "Qwen3-Next": Family(
        "qwen3_next",
        HEADS | EXPERTS | dict(num_experts=4, shared_expert_intermediate_size=16),
    ),
    "Jamba": Family("jamba", GROUPED | dict(num_experts=4, num_experts_per_tok=2, mamba_d_state=4)),
    "RWKV": Family("rwkv", dict(attention_hidden_size=32, context_length=CONTEXT)),
    "BERT": Family("bert", {}, masked=True),
    "RoBERTa": Family("roberta", dict(max_position_embeddings=CONTEXT + 2), masked=True),
    "XLM-R": Family("xlm-roberta", dict(max_position_embeddings=CONTEXT + 2), masked=True),
    "CamemBERT": Family("camembert", dict(max_position_embeddings=CONTEXT + 2), masked=True),
    "MPNet": Family("mpnet", dict(max_position_embeddings=CONTEXT + 2), masked=True),
    "ALBERT": Family("albert", dict(embedding_size=16), masked=True),
    "DistilBERT": Family("distilbert", dict(dim=32, n_layers=2, n_heads=4, hidden_dim=48), masked=True, base="none"),
    "ELECTRA": Family("electra", dict(embedding_size=16), masked=True),
    "DeBERTa": Family("deberta", dict(relative_attention=True, pos_att_type=["c2p", "p2c"]), masked=True),
    "DeBERTa v3": Family(
        "deberta-v2",
        dict(relative_attention=True, pos_att_type=["c2p", "p2c"], position_buckets=8, share_att_key=True)
        | dict(norm_rel_ebd="layer_norm", position_biased_input=False, type_vocab_size=0),
        masked=True,
    ),
    "ModernBERT": Family("modernbert", dict(local_attention=WINDOW, global_attn_every_n_layers=2), masked=True),
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a family: by layout the largest difference of an example's loss from the plain pass (in words:
    "text"), or why it is refused. ``apart``: how far two prompts' losses are at least, so that the comparison says
    something. ``packed``: whether rows share a sequence: "yes", "up to N tokens" or "no"."""

    family: str
    differences: dict[str, float]
    apart: float
    packed: str
    refused: str = ""


def layouts(family: Family) -> tuple[Layout, ...]:
    """Return the layouts that a family takes."""
    return ("prefix", "add") if family.masked else ("prefix", "suffix", "add")


@cache
def tokenizer(masked: bool) -> Any:
    """Return the tokenizer that all of them share."""
    return make_tokenizer(masked)


def config_of(family: Family) -> Any:
    """Return the configuration of a tiny model."""
    from transformers import AutoConfig, SiglipVisionConfig

    vocabulary = dict(vocab_size=len(tokenizer(family.masked)))
    match family.base:
        case "llama":
            settings = SIZES | vocabulary | family.settings
        case "gpt2":
            renamed = dict(n_embd=32, n_layer=2, n_head=4, n_positions=CONTEXT, bos_token_id=0, eos_token_id=2)
            settings = renamed | vocabulary | family.settings
        case "gemma3":
            eye = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2)
            settings = dict(
                text_config=SIZES | vocabulary | family.settings | dict(model_type="gemma3_text"),
                vision_config=SiglipVisionConfig(**eye, image_size=28, patch_size=14).to_dict(),
                **dict(mm_tokens_per_image=4, boi_token_index=5, eoi_token_index=6, image_token_index=7),
            )
        case _:
            marks = dict(pad_token_id=1, bos_token_id=0, eos_token_id=2)
            settings = marks | vocabulary | family.settings
    return AutoConfig.for_model(family.model_type, **settings)


def make(family: Family, folder: Path, change: Callable[[Any], None] = lambda config: None) -> Path:
    """Save a tiny random model of a family with its tokenizer, its configuration changed before it is made."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    config = config_of(family)
    change(config)
    torch.manual_seed(0)
    model = (AutoModelForMaskedLM if family.masked else AutoModelForCausalLM).from_config(config, dtype=torch.float32)
    stream = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            middle = 1.0 if "norm" in name.lower() or "ln_" in name else 0.0
            weight.copy_(middle + SPREAD * torch.randn(weight.shape, generator=stream))
    model.save_pretrained(folder)
    tokenizer(family.masked).save_pretrained(folder)
    return folder


def batch(family: Family) -> Batch:
    """Return the texts, the longest of which reaches over every window."""
    tail = TAIL if family.masked else ""
    examples = tuple(Example(f"train-{i}", text, CUE, i % 2, tail) for i, text in enumerate(TEXTS))
    return Batch(examples, (" bad", " good"), "train")


def measure(name: str, folder: Path, **settings: Any) -> Outcome:
    """Return what the oracle makes of a model in ``folder``, beside what its plain pass does."""
    family = FAMILIES[name]
    settings = {"dtype": "float32", "device": "cpu", "threads": 1} | settings
    try:
        oracle = TransformersOracle(TransformersOracleConfig(kind="transformers", model=str(folder), **settings))
    except ModelError as error:
        return Outcome(name, {}, 0.0, "", str(error))
    plain = Plain(family, folder)
    asked = batch(family)
    found: dict[str, float] = {}
    apart = np.inf
    for layout in layouts(family):
        spec = PromptSpec(LENGTH, "zeros", "", layout, "embedding")
        points = tuple(Point(standard_normal(("family", i), LENGTH * oracle.info.width)) for i in range(2))
        got = oracle.evaluate(Request(points, asked, spec)).example_losses
        wanted = np.stack([plain.losses(codec_of(oracle).materialize(point, spec), layout, asked) for point in points])
        found[layout] = float(np.abs(got - wanted).max())
        apart = min(apart, float(np.abs(wanted[0] - wanted[1]).max()))
    if not family.masked:
        each = [_phrases_off(oracle, plain, asked, layout, rule) for layout in layouts(family) for rule in RULES]
        found["phrases"] = max(each)
    spec = PromptSpec(LENGTH, "zeros", "", "prefix", "embedding")
    text = oracle.evaluate(Request((Text(PROMPT),), asked, spec)).example_losses[0]
    found["text"] = float(np.abs(text - plain.losses_with_words(PROMPT, asked)).max())
    return Outcome(name, found, apart, _packed(oracle))


def _phrases_off(oracle: LossOracle, plain: "Plain", asked: Batch, layout: Layout, rule: LabelRule) -> float:
    """Return the largest difference of a loss of label phrases, as a share of the largest loss where that is above 1.

    Such a loss is made of many logits, and may be tens of nats.
    """
    phrased = replace(asked, label_words=PHRASES, label_rule=rule)
    point = Point(standard_normal(("phrases",), LENGTH * oracle.info.width))
    spec = PromptSpec(LENGTH, "zeros", "", layout, "embedding")
    got = oracle.evaluate(Request((point,), phrased, spec)).example_losses[0]
    wanted = plain.phrase_losses(codec_of(oracle).materialize(point, spec), layout, phrased)
    return float(np.abs(got - wanted).max() / max(1.0, np.abs(wanted).max()))


def other_texts(name: str, folder: Path, tokens: int, **settings: Any) -> dict[str, int]:
    """Return how many answers are not those of the plain pass, token by token, by layout; in words: "text".

    Raises:
        ModelError: the family does not generate.
    """
    settings = {"dtype": "float32", "device": "cpu", "threads": 1} | settings
    oracle = TransformersOracle(TransformersOracleConfig(kind="transformers", model=str(folder), **settings))
    plain = Plain(FAMILIES[name], folder)
    asked = replace(batch(FAMILIES[name]), label_words=(), decoding=Decoding(tokens, stop=()))
    found: dict[str, int] = {}
    for layout in layouts(FAMILIES[name]):
        spec = PromptSpec(LENGTH, "zeros", "", layout, "embedding")
        points = tuple(Point(standard_normal(("family", i), LENGTH * oracle.info.width)) for i in range(2))
        got = oracle.evaluate(Request(points, asked, spec)).texts
        rows = [codec_of(oracle).materialize(point, spec) for point in points]
        wanted = [plain.texts(one, layout, asked, tokens) for one in rows]
        found[layout] = int((np.array(got) != np.array(wanted)).sum())
    spec = PromptSpec(LENGTH, "zeros", "", "prefix", "embedding")
    (got_in_words,) = oracle.evaluate(Request((Text(PROMPT),), asked, spec)).texts
    found["text"] = int((np.array(got_in_words) != np.array(plain.texts_with_words(PROMPT, asked, tokens))).sum())
    return found


def _packed(oracle: LossOracle) -> str:
    reach = int(oracle.info.extra["reach"])
    return "no" if reach == 0 else "yes" if reach >= oracle.info.context else f"up to {reach} tokens"


class Plain:
    """A model as transformers loads it, asked one row at a time."""

    def __init__(self, family: Family, folder: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

        kind = AutoModelForMaskedLM if family.masked else AutoModelForCausalLM
        self._model = kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._masked = family.masked
        self._added: Any = None
        if family.masked:
            self._model.base_model.embeddings.register_forward_hook(
                lambda module, given, made: made if self._added is None else made + self._added
            )

    def losses(self, rows_L_D: Array, layout: Layout, asked: Batch) -> Array64:
        """Return the cross-entropies of the label words, (E,), with a soft prompt."""
        return self._losses(asked, lambda example: self._soft(rows_L_D, layout, example))

    def phrase_losses(self, rows_L_D: Array, layout: Layout, asked: Batch) -> Array64:
        """Return the cross-entropies of label phrases, (E,), by the log-probabilities of all their tokens."""
        import torch

        phrases = [self._ids(word, False) for word in asked.label_words]
        embed = self._model.get_input_embeddings()
        scores = np.empty((len(asked.examples), len(phrases)))
        for j, example in enumerate(asked.examples):
            for w, tokens in enumerate(phrases):
                with torch.inference_mode():
                    whole = torch.cat([self._line(rows_L_D, layout, example), embed(torch.tensor(tokens))])
                    logits = self._model(inputs_embeds=whole[None], use_cache=False).logits[0, -len(tokens) - 1 : -1]
                each = torch.log_softmax(logits.double(), dim=-1)[range(len(tokens)), tokens]
                scores[j, w] = float(each.sum() if asked.label_rule == "sum" else each.mean())
        return cross_entropy(scores, np.array([example.label for example in asked.examples]))

    def texts(self, rows_L_D: Array, layout: Layout, asked: Batch, tokens: int) -> list[str]:
        """Return what a causal model generates behind a soft prompt: so many tokens, greedy, one row at a time."""
        return [self._generated(tokens, self._line(rows_L_D, layout, example)[None]) for example in asked.examples]

    def texts_with_words(self, prompt: str, asked: Batch, tokens: int) -> list[str]:
        """Return the same with a prompt in words."""
        import torch

        embed = self._model.get_input_embeddings()
        ids = [self._ids_with_words(prompt, example) for example in asked.examples]
        return [self._generated(tokens, embed(torch.tensor([line]))) for line in ids]

    def _generated(self, tokens: int, line_1_T_D: Any) -> str:
        """Return the text of the likeliest tokens, each found by a pass over all before it: no cache, nothing kept."""
        import torch

        ids: list[int] = []
        embed, ends = self._model.get_input_embeddings(), self._model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        with torch.inference_mode():
            while len(ids) < tokens and not (ids and ids[-1] in ends):
                ids.append(int(self._forward(line_1_T_D[0].clone(), -1).argmax()))
                line_1_T_D = torch.cat([line_1_T_D, embed(torch.tensor([ids[-1:]]))], dim=1)
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True)
        return text.strip()

    def losses_with_words(self, prompt: str, asked: Batch) -> Array64:
        """Return the cross-entropies with a prompt in words."""
        return self._losses(asked, lambda example: self._words(prompt, example))

    def _losses(self, asked: Batch, answer: Callable[[Example], Any]) -> Array64:
        import torch

        ids = [self._ids(word, False)[0] for word in asked.label_words]
        with torch.inference_mode():
            logits = np.stack([answer(example)[ids].float().numpy() for example in asked.examples])
        return cross_entropy(logits, np.array([example.label for example in asked.examples]))

    def _soft(self, rows_L_D: Array, layout: Layout, example: Example) -> Any:
        import torch

        if self._masked:
            rows, embed = torch.from_numpy(rows_L_D), self._model.get_input_embeddings()
            filler = torch.tensor([(1000 + i) % len(embed.weight) for i in range(len(rows))])
            ids = self._ids(f"{example.text}{example.cue} {self._tokenizer.mask_token}{example.tail}", True)
            line = embed(torch.tensor(ids))
            middle = embed(filler) if layout == "add" else rows
            place = ids.index(self._tokenizer.mask_token_id) + len(rows)
            added = torch.zeros(len(line) + len(rows), rows.shape[1])
            added[1 : 1 + len(rows)] = rows
            self._added = added[None] if layout == "add" else None
            return self._forward(torch.cat([line[:1], middle, line[1:]]), place)
        return self._forward(self._line(rows_L_D, layout, example), -1)

    def _line(self, rows_L_D: Array, layout: Layout, example: Example) -> Any:
        """Return what a causal model reads of a soft prompt with an example (T, D)."""
        import torch

        rows, embed = torch.from_numpy(rows_L_D), self._model.get_input_embeddings()
        filler = torch.tensor([(1000 + i) % len(embed.weight) for i in range(len(rows))])
        if layout == "suffix":
            text, cue = self._ids(example.text, True), self._ids(example.cue, False)
            return torch.cat([embed(torch.tensor(text)), rows, embed(torch.tensor(cue))])
        text = self._ids(example.text + example.cue, layout == "prefix")
        head = rows
        if layout == "add":  # on the first tokens, the special one included
            head = embed(torch.tensor([*self._ids("", True), *filler.tolist()]))
            head[: len(rows)] += rows
        return torch.cat([head, embed(torch.tensor(text))])

    def _words(self, prompt: str, example: Example) -> Any:
        import torch

        self._added = None
        if self._masked:
            text = f"{prompt}\n{example.text}{example.cue} {self._tokenizer.mask_token}{example.tail}"
            ids = self._ids(text, True)
            return self._model(input_ids=torch.tensor([ids])).logits[0, ids.index(self._tokenizer.mask_token_id)]
        ids = self._ids_with_words(prompt, example)
        return self._model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]

    def _ids_with_words(self, prompt: str, example: Example) -> list[int]:
        return [*self._ids(f"{prompt}\n", True), *self._ids(example.text + example.cue, False)]

    def _forward(self, line_T_D: Any, place: int) -> Any:
        more = {} if self._masked else {"use_cache": False}
        return self._model(inputs_embeds=line_T_D[None], **more).logits[0, place]

    def _ids(self, text: str, special: bool) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=special)["input_ids"]
        return ids


def lines(outcomes: Sequence[Outcome]) -> list[str]:
    """Return the table."""
    ways = ("prefix", "suffix", "add", "text", "phrases")
    headings = ("family", *ways, "rows share a sequence")
    rows = [
        (
            outcome.family,
            *(f"{outcome.differences[way]:.0e}" if way in outcome.differences else "-" for way in ways),
            outcome.packed or f"refused: {outcome.refused}",
        )
        for outcome in outcomes
    ]
    return table(headings, rows)


def main(
    names: Annotated[list[str] | None, typer.Argument(help="families; all when left out")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="write what was measured")] = None,
) -> None:
    """Print how far the oracle's losses are from the plain pass of each family."""
    outcomes = []
    for name in names or FAMILIES:
        with tempfile.TemporaryDirectory() as folder:
            outcomes.append(measure(name, make(FAMILIES[name], Path(folder))))
            print("\n".join(lines(outcomes[-1:])[2 if len(outcomes) > 1 else 0 :]), flush=True)
    worst = max((value for outcome in outcomes for value in outcome.differences.values()), default=0.0)
    print(f"\nlargest difference of a loss: {worst:.1e}")
    if json_file is not None:
        json_file.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
