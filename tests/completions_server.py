"""A real server on the loopback that speaks completions and chat completions, and misbehaves when it is told to."""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

USAGE = {"prompt_tokens": 20, "completion_tokens": 1, "total_tokens": 21}


@dataclass(frozen=True)
class Asked:
    """One request as it came in."""

    path: str
    body: dict[str, Any]
    key: str | None

    @property
    def prompt(self) -> str:
        """The prompt, or a chat's message."""
        if "messages" in self.body:
            return str(self.body["messages"][-1]["content"])
        return str(self.body["prompt"])


@dataclass(frozen=True)
class Reply:
    """What a request is answered with. ``cut``: more bytes are announced than sent. ``hang``: no answer at all.

    ``drips``: seconds between two bytes of it.
    """

    body: str | bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False
    hang: bool = False
    drips: float = 0.0


HANGS = Reply("", hang=True)


def answered(
    asked: Asked,
    top: dict[str, float] | None,
    text: str | None = " great",
    finish: str = "stop",
    reasoning_content: str | None = None,
    **more: Any,
) -> Reply:
    """Return a sound answer in the form that was asked for, with these tokens' logarithmic probabilities."""
    if asked.path.endswith("/chat/completions"):
        listed = [{"token": token, "logprob": value, "bytes": None} for token, value in (top or {}).items()]
        content = [listed[0] | {"top_logprobs": listed}] if listed else []
        message = {"role": "assistant", "content": text}
        if reasoning_content is not None:
            message["reasoning_content"] = reasoning_content
        choice: dict[str, Any] = {"message": message, "logprobs": {"content": content}}
    else:
        choice = {"text": text, "logprobs": {"top_logprobs": [top]}}
    if top is None:
        choice["logprobs"] = None
    return Reply(
        json.dumps({"id": "x", "choices": [{"index": 0, "finish_reason": finish} | choice], "usage": USAGE} | more)
    )


def refusal(
    status: int, message: str = "no", param: str | None = None, code: str | None = None, **headers: str
) -> Reply:
    """Return an error as OpenAI's servers send it; ``retry_after`` becomes Retry-After."""
    body = {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}
    return Reply(json.dumps(body), status, {name.replace("_", "-"): value for name, value in headers.items()})


def opinion(asked: Asked) -> Reply:
    """Find films great whose review says "good", and the more so the longer the prompt; the others terrible."""
    sure = 1.0 + 0.01 * len(asked.prompt)
    good, bad = (-0.1, -0.1 - sure) if "good" in asked.prompt else (-0.1 - sure, -0.1)
    return answered(asked, {" great": good, " terrible": bad, " the": -9.0})


class _Http(ThreadingHTTPServer):
    request_queue_size = 128  # of five, a burst of connections waits a second for its next try


class CompletionsServer:
    """Answers with ``answer``. ``asked``: what came in. It can be stopped and started again on the same port."""

    def __init__(self) -> None:
        self.answer: Callable[[Asked], Reply] = opinion
        self.asked: list[Asked] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self.changed = threading.Condition()
        self._stopping = threading.Event()
        self._http: ThreadingHTTPServer | None = None
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def up(self) -> bool:
        return self._http is not None

    def start(self) -> None:
        self._stopping.clear()
        self._http = _Http(("127.0.0.1", self._port), self._handler())
        self._port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self) -> None:
        http, self._http = self._http, None
        self._stopping.set()
        if http is not None:
            http.shutdown()
            http.server_close()

    def begin(self, asked: Asked) -> None:
        with self.changed:
            self.asked.append(asked)
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            self.changed.notify_all()

    def end(self) -> None:
        with self.changed:
            self.in_flight -= 1
            self.changed.notify_all()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        state = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                asked = Asked(self.path, body, self.headers["Authorization"])
                state.begin(asked)
                try:
                    self._send(state.answer(asked))
                finally:
                    state.end()

            def _send(self, reply: Reply) -> None:
                if reply.hang:
                    state._stopping.wait(30)
                    return
                body = reply.body
                data = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body
                self.send_response(reply.status)
                for name, value in ({"Content-Type": "application/json"} | reply.headers).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data) + (100 if reply.cut else 0)))
                self.end_headers()
                for at in range(len(data)) if reply.drips else ():
                    self.wfile.write(data[at : at + 1])
                    state._stopping.wait(reply.drips)
                if not reply.drips:
                    self.wfile.write(data)

            def log_message(self, *arguments: Any) -> None:
                pass

        return Handler
