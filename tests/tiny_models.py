"""Small random models of several architectures, made on the spot, and the plain way to ask them.

Weights are large enough for logits that differ by units: a wrong mask or position shows.
"""

from pathlib import Path
from typing import Any

import numpy as np

from distributed_tuner.testing.oracles import MIXED, SPEC, TEXTS, batch_of
from distributed_tuner.values import Array, Batch

__all__ = ["MIXED", "SPEC", "TEXTS", "batch_of"]

ARCHITECTURES = ("llama", "qwen2", "mistral", "gpt2", "opt")
MASKED_ARCHITECTURES = ("roberta", "bert")
WIDTHS = {"opt": 16}  # OPT projects its embeddings up to the hidden width; the others do not
CONTEXT = 128
WORDS = """
    a an the film movie was is it It good great terrible bad thing some something dull bright really and or not review
    Classify verdict Verdict plot story I liked hated this that slow of to positive negative
""".split()  # noqa: SIM905
CLS, SEP, MASK = "<s>", "</s>", "<mask>"
FILLER = 1000


def layouts_of(architecture: str) -> tuple[str, ...]:
    """Return the layouts that a model can take."""
    return ("prefix", "add") if architecture in MASKED_ARCHITECTURES else ("prefix", "suffix", "add")


def make_tokenizer(bos: bool, masked: bool = False) -> Any:
    """Return a byte-level BPE tokenizer; every word of WORDS is one token, with and without a space before it.

    ``masked``: with a mask token, and special tokens around the text. The ids of the special tokens are RoBERTa's.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        min_frequency=2,
        special_tokens=[CLS, "<pad>", SEP, AddedToken(MASK, lstrip=True)] if masked else ["<pad>", CLS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator([f"{word}\n {word}\n" for word in WORDS] * 3, trainer)
    if masked:
        inner.post_processor = processors.TemplateProcessing(
            single=f"{CLS} $A {SEP}", special_tokens=[(CLS, inner.token_to_id(CLS)), (SEP, inner.token_to_id(SEP))]
        )
        return PreTrainedTokenizerFast(
            tokenizer_object=inner,
            pad_token="<pad>",
            bos_token=CLS,
            eos_token=SEP,
            mask_token=AddedToken(MASK, lstrip=True, special=True),
        )
    if bos:
        inner.post_processor = processors.TemplateProcessing(
            single=f"{CLS} $A", pair=f"{CLS} $A {CLS} $B", special_tokens=[(CLS, inner.token_to_id(CLS))]
        )
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", bos_token=CLS)


def model_config(architecture: str, vocabulary: int) -> Any:
    """Return a configuration of two layers."""
    from transformers import BertConfig, GPT2Config, LlamaConfig, MistralConfig, OPTConfig, Qwen2Config, RobertaConfig

    llama_like = dict(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=None,
    )
    match architecture:
        case "llama":
            return LlamaConfig(**llama_like)
        case "qwen2":
            return Qwen2Config(**llama_like, tie_word_embeddings=True)
        case "mistral":
            return MistralConfig(**llama_like, sliding_window=None)
        case "gpt2":
            return GPT2Config(
                vocab_size=vocabulary,
                n_embd=32,
                n_layer=2,
                n_head=4,
                n_positions=CONTEXT,
                bos_token_id=1,
                eos_token_id=1,
            )
        case "opt":
            return OPTConfig(
                vocab_size=vocabulary,
                hidden_size=32,
                word_embed_proj_dim=WIDTHS["opt"],
                ffn_dim=48,
                num_hidden_layers=2,
                num_attention_heads=4,
                max_position_embeddings=CONTEXT,
                pad_token_id=0,
                bos_token_id=1,
                eos_token_id=1,
            )
        case "roberta" | "bert":
            settings = dict(
                vocab_size=vocabulary,
                hidden_size=32,
                intermediate_size=48,
                num_hidden_layers=2,
                num_attention_heads=4,
                pad_token_id=1,
            )
            if architecture == "bert":
                return BertConfig(max_position_embeddings=CONTEXT, **settings)
            return RobertaConfig(max_position_embeddings=CONTEXT + 2, **settings)
    raise AssertionError(architecture)


def save_tiny(architecture: str, directory: Path, bos: bool = False) -> Path:
    """Save a random model with its tokenizer, as ``from_pretrained`` wants them."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    masked = architecture in MASKED_ARCHITECTURES
    tokenizer = make_tokenizer(bos, masked)
    family = AutoModelForMaskedLM if masked else AutoModelForCausalLM
    model = family.from_config(model_config(architecture, len(tokenizer)), dtype=torch.float32)
    stream = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            middle = 1.0 if "norm" in name.lower() or "ln_" in name else 0.0
            weight.copy_(middle + 0.2 * torch.randn(weight.shape, generator=stream))
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def plain_logits(model: Any, tokenizer: Any, rows: Array | None, layout: str, batch: Batch) -> Array:
    """Label-word logits (E, W) the plain way: one row at a time, all embedded in one sequence, the whole head.

    ``rows`` of the layout "add" are what is added to the filler tokens.
    """
    import torch

    if tokenizer.mask_token is not None:
        return plain_masked_logits(model, tokenizer, rows, layout, batch)
    label_ids = [tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in batch.label_words]
    embedding = model.get_input_embeddings()
    answers = []
    for example in batch.examples:
        if layout == "suffix":
            before = tokenizer(example.text)["input_ids"]
            after = tokenizer(example.cue, add_special_tokens=False)["input_ids"]
        else:
            before, after = (
                [],
                tokenizer(example.text + example.cue, add_special_tokens=layout == "prefix")["input_ids"],
            )
        middle = [] if rows is None else [torch.from_numpy(rows)]
        with torch.inference_mode():
            if layout == "add":  # on the first L tokens, a special one included
                filler = [*tokenizer("")["input_ids"], *filler_ids(len(middle[0]), len(embedding.weight))]
                head = embedding(torch.tensor(filler))
                head[: len(middle[0])] += middle[0]
                middle = [head]
            parts = [embedding(torch.tensor(part, dtype=torch.long)) for part in (before, after)]
            sequence = torch.cat([parts[0], *(part.to(parts[0].dtype) for part in middle), parts[1]])
            answers.append(model(inputs_embeds=sequence[None]).logits[0, -1, label_ids].float().numpy())
    return np.stack(answers)


def filler_ids(length: int, vocabulary: int) -> list[int]:
    """Return the papers' filler prompt."""
    return [(FILLER + i) % vocabulary for i in range(length)]


def plain_masked_logits(model: Any, tokenizer: Any, rows: Array, layout: str, batch: Batch, prompt: str = "") -> Array:
    """Label-word logits (E, W) of a masked model at the mask, one row at a time, the whole head.

    "add": the rows are added to what the embedding layer makes of the filler, behind its LayerNorm.
    """
    import torch

    label_ids = [tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in batch.label_words]
    base, embedding = model.base_model, model.get_input_embeddings()
    head = model.lm_head if hasattr(model, "lm_head") else model.cls
    answers = []
    for example in batch.examples:
        ids = tokenizer(f"{prompt}{example.text}{example.cue} {MASK}{example.tail}")["input_ids"]
        at = ids.index(tokenizer.mask_token_id) + len(rows)
        filler = filler_ids(len(rows), len(embedding.weight))
        with torch.inference_mode():
            sequence = embedding(torch.tensor([ids[0], *filler, *ids[1:]]))[None]
            soft = torch.from_numpy(rows)
            if layout == "prefix":
                sequence[0, 1 : 1 + len(rows)] = soft
            hidden = base.embeddings(inputs_embeds=sequence)
            if layout == "add":
                hidden[0, 1 : 1 + len(rows)] += soft
            hidden = base.encoder(hidden)[0]
            answers.append(head(hidden)[0, at, label_ids].float().numpy())
    return np.stack(answers)


def plain_text_logits(model: Any, tokenizer: Any, prompt: str, batch: Batch) -> Array:
    """Label-word logits (E, W) of a text prompt, one row at a time from its token ids."""
    import torch

    if tokenizer.mask_token is not None:
        nothing = np.zeros((0, model.config.hidden_size), dtype=np.float32)
        return plain_masked_logits(model, tokenizer, nothing, "prefix", batch, prompt + "\n" if prompt else "")
    label_ids = [tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in batch.label_words]
    head = tokenizer(prompt + "\n" if prompt else "")["input_ids"]
    answers = []
    for example in batch.examples:
        ids = head + tokenizer(example.text + example.cue, add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            answers.append(model(torch.tensor([ids])).logits[0, -1, label_ids].float().numpy())
    return np.stack(answers)


def plain_model(directory: Path | str) -> tuple[Any, Any]:
    """Load model and tokenizer with transformers alone."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    family = AutoModelForCausalLM if tokenizer.mask_token is None else AutoModelForMaskedLM
    return family.from_pretrained(directory, dtype=torch.float32, local_files_only=True).eval(), tokenizer
