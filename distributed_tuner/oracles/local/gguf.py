"""Conversion of GGUF files to a directory that transformers loads: weights, settings and tokenizer.

transformers knows how some of the pre-tokenizers that llama.cpp names cut a text before its merges, and takes GPT-2's
way for all others. What is known to be lost by that is put back; for the rest there is a warning, since ids that differ
from llama.cpp's give other losses than the same file has when it is served.
"""

import logging
import shutil
import tempfile
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

FORM = 2  # of what is converted
AS_GPT2 = ("gpt-2", "phi-2")
BYTE_LEVEL = "gpt2"
"""llama.cpp's name of byte-level BPE; other vocabularies have no pre-tokenizer."""


def convert(gguf: Path, target: Path) -> None:
    """Write the directory ``target``, in one piece."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    restore_splits(tokenizer, *_described(gguf))
    # The weights are plain float32 by now; without these marks transformers would refuse to save them.
    model.hf_quantizer = None
    model.is_quantized = False
    del model.config.quantization_config
    scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=".converting-"))
    try:
        model.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
        scratch.chmod(0o755)
        shutil.rmtree(target, ignore_errors=True)
        scratch.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def restore_splits(tokenizer: Any, kind: str | None, split: str | None) -> None:
    """Make a tokenizer cut texts as llama.cpp does, or warn where that is not known.

    ``kind``, ``split``: the file's ``tokenizer.ggml.model`` and ``tokenizer.ggml.pre``.
    """
    from tokenizers import pre_tokenizers
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    if kind != BYTE_LEVEL or split in AS_GPT2 or split in GGUF_PRE_TOKENIZER_SPLITS:
        return
    if split == "smollm":  # every digit by itself, then as GPT-2 does
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        return
    log.warning(
        "the tokenizer cuts texts as GPT-2's does, but the GGUF file names the pre-tokenizer %r, which transformers"
        " does not know: where the two differ, as at digits and spaces, ids and losses are not llama.cpp's",
        split,
    )


def _described(gguf: Path) -> tuple[str | None, str | None]:
    from transformers.integrations.gguf.reader import read_gguf_metadata

    metadata, _ = read_gguf_metadata(str(gguf), ())
    return metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre")
