"""A real server on the loopback that speaks chat completions, and misbehaves when it is told to."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Reply:
    """What one request is answered with. ``body``: sent as it is. ``hang``: no answer before the server stops.

    ``drips``: seconds between two bytes of it.
    """

    body: str
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    hang: bool = False
    drips: float = 0.0


def completion(content: Any, **more: Any) -> Reply:
    """Return a sound answer."""
    message = {"role": "assistant", "content": content}
    return raw(choices=[{"index": 0, "message": message, "finish_reason": "stop"}], **more)


def raw(**more: Any) -> Reply:
    """Return an answer of these fields and no choices but those given."""
    usage = {"prompt_tokens": 2000, "completion_tokens": 300, "total_tokens": 2300}
    answer = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "usage": usage}
    return Reply(json.dumps(answer | more))


def refusal(status: int, message: str = "no", param: str | None = None, **headers: str) -> Reply:
    """Return an error as OpenAI's servers send it; ``retry_after`` becomes Retry-After."""
    body = {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": None}}
    return Reply(json.dumps(body), status, {name.replace("_", "-"): value for name, value in headers.items()})


HANGS = Reply("", hang=True)


@dataclass
class ChatServer:
    """Answers from ``replies``, the last one for ever. ``bodies`` and ``keys``: what it was sent."""

    replies: list[Reply] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    url: str = ""
    stopping: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, body: dict[str, Any], key: str | None) -> Reply:
        with self.lock:
            self.bodies.append(body)
            self.keys.append(key)
            return self.replies[min(len(self.bodies), len(self.replies)) - 1]


@contextmanager
def chat_server() -> Iterator[ChatServer]:
    """Serve for a while."""
    state = ChatServer()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            reply = state.take(body, self.headers["Authorization"])
            if reply.hang:
                state.stopping.wait(60)
                return
            data = reply.body.encode("utf-8", "surrogatepass")
            self.send_response(reply.status)
            for name, value in ({"Content-Type": "application/json"} | reply.headers).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            for at in range(len(data)) if reply.drips else ():
                self.wfile.write(data[at : at + 1])
                state.stopping.wait(reply.drips)
            if not reply.drips:
                self.wfile.write(data)

        def log_message(self, *arguments: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        state.stopping.set()
        http.shutdown()
        http.server_close()
