"""Models of published shapes with random weights, made where they are used, and a tokenizer that goes with them.

How fast a model computes does not depend on what its weights are, so nothing has to be downloaded.
"""

from typing import Any, Literal, TypeAlias

from benchmarks.texts import vocabulary

ShapeName: TypeAlias = Literal["llama-7b", "roberta-large"]
ATTENTION = "sdpa"  # what transformers takes by itself


def shape(name: ShapeName, small: bool) -> Any:
    """Return the configuration of a model, or of a tiny one of the same architecture."""
    from transformers import LlamaConfig, RobertaConfig

    if name == "llama-7b":
        size = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96, vocab_size=2000)
        if not small:
            size = dict(
                hidden_size=4096,
                num_hidden_layers=32,
                num_attention_heads=32,
                intermediate_size=11008,
                vocab_size=32000,
            )
        return LlamaConfig(**size, max_position_embeddings=2048, pad_token_id=1, bos_token_id=0, eos_token_id=2)
    size = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96, vocab_size=2000)
    if not small:
        size = dict(
            hidden_size=1024,
            num_hidden_layers=24,
            num_attention_heads=16,
            intermediate_size=4096,
            vocab_size=50265,
        )
    return RobertaConfig(**size, max_position_embeddings=514, type_vocab_size=1, pad_token_id=1)


def make_model(config: Any, device: str, dtype: str) -> Any:
    """Return a model with random weights, made on the device in the dtype, so that the host never holds them."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    family = AutoModelForMaskedLM if config.model_type == "roberta" else AutoModelForCausalLM
    torch.manual_seed(0)
    with torch.device(device):
        model = family.from_config(config, dtype=getattr(torch, dtype), attn_implementation=ATTENTION)
    return model.eval().requires_grad_(False)


def make_tokenizer(masked: bool) -> Any:
    """Return a byte-level BPE tokenizer for which every word of the benchmarks' texts is one token.

    A causal model's text begins with <s>; a masked model's stands between <s> and </s>.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    mask = AddedToken("<mask>", lstrip=True, special=True)  # takes the space before it along, as RoBERTa's does
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        min_frequency=2,
        special_tokens=["<s>", "<pad>", "</s>", mask],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator([f"{word}\n {word}\n" for word in vocabulary()] * 3, trainer)
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>" if masked else "<s> $A",
        special_tokens=[(token, inner.token_to_id(token)) for token in ("<s>", "</s>")],
    )
    marks = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, **marks, **({"mask_token": mask} if masked else {}))


def weights_of_trunk(model: Any) -> int:
    """Return the number of weights that every token is multiplied with: no tables, no head."""
    import torch

    trunk = model.base_model
    tables = sum(m.weight.numel() for m in trunk.modules() if isinstance(m, torch.nn.Embedding))
    return int(sum(p.numel() for p in trunk.parameters()) - tables)
