"""A server on the loopback that speaks OpenAI's API as far as the peers use it, and counts what they spend.

Chat completions and completions, not streamed. Two fields are vLLM's: ``structured_outputs: {"choice": [...]}`` has the
model answer with the likeliest of some words (one forward, no sampling), ``chat_template`` says how it reads messages.
Requests for a choice that wait together are computed together.
"""

import json
import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from benchmarks.peers.meter import CapReached, Meter, Spent
from benchmarks.peers.model import Speaker, continued
from distributed_tuner.errors import TunerError

GATHER_SECONDS = 0.02  # within which a burst of requests comes in
MOST_TOKENS = 256  # that an answer has where the request does not say
MOST_BYTES = 4_000_000


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: its text, the tokens that it took, and the choices' logarithmic probabilities where there were any."""

    text: str
    prompt_tokens: int
    output_tokens: int
    finish: str = "stop"
    logprobs: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, slots=True)
class Task:
    """A request on its way to the model: ``choices`` to choose from, or none."""

    prompt: str
    choices: tuple[str, ...]
    max_tokens: int
    temperature: float
    seed: int | None
    reply: "Future[Reply]"


class BadRequest(Exception):
    """A request that this server does not understand."""


class Engine:
    """One thread that owns the model. Whoever asks gets a future."""

    def __init__(self, speaker: Speaker, meter: Meter) -> None:
        self.speaker = speaker
        self.meter = meter
        self._tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def ask(self, task: Task) -> "Future[Reply]":
        """Queue a request."""
        self._tasks.put(task)
        return task.reply

    def close(self) -> None:
        """Answer what waits, and stop."""
        self._tasks.put(None)
        self._thread.join()

    def _work(self) -> None:
        more = True
        while more:
            waiting = [self._tasks.get()]
            time.sleep(GATHER_SECONDS)
            while not self._tasks.empty():
                waiting.append(self._tasks.get())
            more = None not in waiting
            self._answer([task for task in waiting if task is not None])

    def _answer(self, waiting: Sequence[Task]) -> None:
        by_words: dict[tuple[str, ...], list[tuple[Task, int]]] = {}
        writing = []
        for task in waiting:
            tokens = self.speaker.tokens(task.prompt)
            words = continued(task.prompt, task.choices)
            try:
                if words:
                    self.meter.charge(Spent(requests=1, forwards=1, prompt_tokens=tokens, output_tokens=1))
                    by_words.setdefault(words, []).append((task, tokens))
                else:
                    self.meter.charge(Spent(requests=1, written=1, prompt_tokens=tokens))
                    writing.append((task, tokens))
            except CapReached as reached:
                task.reply.set_exception(reached)
        for words, tasks in by_words.items():
            self._choose(tasks, words)
        for task, tokens in writing:
            self._write(task, tokens)

    def _choose(self, tasks: Sequence[tuple[Task, int]], words: tuple[str, ...]) -> None:
        try:
            logits_E_W = self.speaker.choose([task.prompt for task, _ in tasks], words).astype(np.float64)
        except Exception as error:
            if len(tasks) > 1:  # one that does not fit costs none of the others
                for one in tasks:
                    self._choose([one], words)
                return
            tasks[0][0].reply.set_exception(error)
            return
        for (task, tokens), logits_W in zip(tasks, logits_E_W, strict=True):
            logprobs_W = logits_W - np.logaddexp.reduce(logits_W)
            listed = dict(zip(task.choices, logprobs_W.tolist(), strict=True))
            task.reply.set_result(Reply(task.choices[int(np.argmax(logits_W))], tokens, 1, logprobs=listed))

    def _write(self, task: Task, tokens: int) -> None:
        try:
            answer = self.speaker.write(task.prompt, task.max_tokens, task.temperature, task.seed)
        except Exception as error:
            task.reply.set_exception(error)
            return
        self.meter.add(Spent(output_tokens=answer.output_tokens))
        finish = "length" if answer.output_tokens >= task.max_tokens else "stop"
        task.reply.set_result(Reply(answer.text, tokens, answer.output_tokens, finish))


def task_of(body: dict[str, Any], chat: bool, speaker: Speaker) -> Task:
    """Return a request's body as a task.

    Raises:
        BadRequest: it asks for what this server does not do.
    """
    if body.get("stream") or body.get("n", 1) != 1:
        raise BadRequest("this server sends one answer, whole: leave out stream and n")
    prompt = body.get("prompt")
    if chat:
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            raise BadRequest("a chat completion needs messages")
        prompt = speaker.render(messages, body.get("chat_template"))
    if not isinstance(prompt, str) or not prompt:
        raise BadRequest("a prompt must be one string that is not empty")
    choices = tuple((body.get("structured_outputs") or {}).get("choice") or ())
    max_tokens = body.get("max_completion_tokens") or body.get("max_tokens") or MOST_TOKENS
    temperature = body.get("temperature")
    return Task(
        prompt, choices, int(max_tokens), 1.0 if temperature is None else float(temperature), body.get("seed"), Future()
    )


def answered(reply: Reply, model: str, chat: bool) -> dict[str, Any]:
    """Return a reply as OpenAI's servers send it."""
    choice: dict[str, Any] = {"index": 0, "finish_reason": reply.finish, "logprobs": None}
    top = [{"token": word, "logprob": value, "bytes": None} for word, value in reply.logprobs.items()]
    if chat:
        choice["message"] = {"role": "assistant", "content": reply.text}
        if top:
            chosen = next(one for one in top if one["token"] == reply.text)
            choice["logprobs"] = {"content": [{**chosen, "top_logprobs": top}]}
    else:
        choice["text"] = reply.text
        if top:
            choice["logprobs"] = {"tokens": [reply.text], "top_logprobs": [reply.logprobs]}
    usage = {
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.output_tokens,
        "total_tokens": reply.prompt_tokens + reply.output_tokens,
    }
    kind = "chat.completion" if chat else "text_completion"
    return {"id": "peers", "object": kind, "created": 0, "model": model, "choices": [choice], "usage": usage}


class CountingServer:
    """Serves a model under ``name`` on a free loopback port for as long as a block of code runs."""

    def __init__(self, speaker: Speaker, meter: Meter, name: str) -> None:
        self.meter = meter
        self.name = name
        self.engine = Engine(speaker, meter)
        self._http = _Http(("127.0.0.1", 0), _handler(self))

    @property
    def url(self) -> str:
        """The address up to /v1."""
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def __enter__(self) -> "CountingServer":
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self.engine.close()


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a client may keep its connection open
    request_queue_size = 128  # of five, a burst of connections waits a second for its next try


def _handler(server: CountingServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.path == "/v1/models":
                self._send(200, {"object": "list", "data": [{"id": server.name, "object": "model"}]})
            else:
                self._refuse(404, f"no such page: {self.path}")

        def do_POST(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            if size > MOST_BYTES:
                self.close_connection = True
                self._refuse(413, f"a request may have {MOST_BYTES:,} bytes, but has {size:,}")
                return
            text = self.rfile.read(size)
            if self.path not in ("/v1/chat/completions", "/v1/completions"):
                self._refuse(404, f"no such page: {self.path}")
                return
            chat = self.path.endswith("/chat/completions")
            try:
                reply = server.engine.ask(task_of(json.loads(text), chat, server.engine.speaker)).result()
            except (BadRequest, CapReached, TunerError, ValueError) as error:
                self._refuse(400, str(error))
            except Exception as error:
                self._refuse(500, f"{type(error).__name__}: {error}")
            else:
                self._send(200, answered(reply, server.name, chat))

        def _refuse(self, status: int, message: str) -> None:
            self._send(status, {"error": {"message": message, "type": "invalid_request_error", "code": None}})

        def _send(self, status: int, body: dict[str, Any]) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler
