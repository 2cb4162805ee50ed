"""A tuned prompt and its head without this project: transformers, numpy and safetensors alone.

    python examples/plain_head.py RUN_DIR MODEL "a text" ...

Of a prompt of rows in front of the text (layout: prefix) or in words, read by a ``vocabulary`` head.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer


def label(best: Path, model: Any, tokenizer: Any, text: str) -> str:
    """Return the label of a text as the model reads it: worded by the template, without its cue."""
    facts, fit = json.loads((best / "head.json").read_text()), load_file(best / "head.safetensors")
    prompt = json.loads((best / "prompt.json").read_text())
    cue = prompt["template"]["cue"]
    words = [tokenizer.encode(cue + word, add_special_tokens=False)[-1] for word in facts["words"]]
    ids = torch.tensor([tokenizer.encode(text + cue)])
    embeddings = model.get_input_embeddings()(ids)
    if prompt["words"] is None:
        rows = torch.from_numpy(load_file(best / "prompt.safetensors")["prompt_embeddings"])
        embeddings = torch.cat([rows[None].to(embeddings), embeddings], dim=1)
    else:
        ids = torch.tensor([tokenizer.encode(prompt["words"] + "\n" + text + cue)])
        embeddings = model.get_input_embeddings()(ids)
    with torch.inference_mode():
        scores = model(inputs_embeds=embeddings).logits[0, -1, words].float().numpy()
    return str(facts["labels"][int(np.argmax(scores @ fit["weights"] + fit["intercept"]))])


if __name__ == "__main__":
    run_dir, name, *texts = sys.argv[1:]
    model, tokenizer = AutoModelForCausalLM.from_pretrained(name), AutoTokenizer.from_pretrained(name)
    for text in texts:
        print(label(Path(run_dir, "best"), model, tokenizer, text), text, sep="\t")
