#!/usr/bin/env bash
# promptolution 2.3.0: what its API client counts as tokens are words between spaces, although the server tells the tokens
# of every answer (usage), and TokenCountCallback, "stopping optimization based on the total token count", goes by that.
# Here one answer has 40 + 9 tokens by the server; it is counted as 10 + 1, the system prompt included. Texts without
# spaces count as one token however long they are. The callback looks at the classifying model alone: what the proposer
# (meta_llm) took counts for nothing.
# Source: promptolution/llms/base_llm.py (update_token_count), promptolution/utils/callbacks.py (TokenCountCallback).
# Exits 0 while this is so, 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet "promptolution==2.3.0"
cat > "$folder/probe.py" <<'PY'
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

from promptolution.llms import APILLM
from promptolution.utils.callbacks import TokenCountCallback

USAGE = {"prompt_tokens": 40, "completion_tokens": 9, "total_tokens": 49}


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        message = {"role": "assistant", "content": "<answer>terrible</answer>"}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        body = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": USAGE}
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_address[1]}/v1"
classifier, proposer = (APILLM(url, "m", "none") for _ in range(2))
classifier.get_response("Classify: incomprehensibly overdramatized counterrevolutionary melodrama")
for _ in range(100):
    proposer.get_response("Write a better prompt.")
counted = classifier.get_token_count()
callback = TokenCountCallback(20, "total_tokens")
goes_on = callback.on_step_end(SimpleNamespace(predictor=SimpleNamespace(llm=classifier), meta_llm=proposer))
print(f"the server's usage: {USAGE['prompt_tokens']} + {USAGE['completion_tokens']} tokens")
print(f"counted: {counted['input_tokens']} + {counted['output_tokens']}")
print(f"a limit of 20 tokens, after {101 * USAGE['total_tokens']:,} by the server's usage, lets the search go on: {goes_on}")
raise SystemExit(0 if (counted["input_tokens"], counted["output_tokens"]) == (10, 1) and goes_on else 1)
PY
"$folder/env/bin/python" "$folder/probe.py" 2>/dev/null
