"""The web application: a page, its views as server-sent events, and a request to stop. Who may ask is `guard`'s."""

import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import anyio
from anyio import to_thread
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from distributed_tuner.errors import TunerError
from distributed_tuner.shown import masked, plain
from distributed_tuner.watch.guard import Guard
from distributed_tuner.watch.hub import Hub

PAGE = Path(__file__).parent / "page"
STYLE = Path(__file__).parents[1] / "report" / "style.css"
EVENT_SECONDS = 1.0
"""Between two looks of one open page."""
MOST_PAGES = 32
"""Open pages at a time."""
ALIVE_SECONDS = 15.0  # after which a page that gets nothing new hears that the server lives
_LARGEST_POST = 4096  # bytes

Stop = Callable[[str, str | None], None]
"""Asks a run, by its path or URI, to end, or one of its trials."""


def build_app(
    hub: Hub, stop: Stop | None, *, token: str, cookie: str, names: list[str], over: Event | None = None
) -> Starlette:
    """Return the application. stop: None where runs may be read alone. cookie: its name, one for each server. over: is
    set when the server ends, so that open pages let it."""
    pages = Pages(hub, stop, token, cookie, over or Event())
    files = {
        "/watch.js": (PAGE / "watch.js", "text/javascript"),
        "/charts.js": (PAGE / "charts.js", "text/javascript"),
        "/watch.css": (PAGE / "watch.css", "text/css"),
        "/plotly.css": (PAGE / "plotly.css", "text/css"),
        "/report.css": (STYLE, "text/css"),
        "/plotly.js": (plotly_js(), "text/javascript"),
    }
    routes = [
        Route("/", pages.index),
        Route("/events", pages.events),
        Route("/stop", pages.stop, methods=["POST"]),
        *(Route(path, partial(_file, file, kind)) for path, (file, kind) in files.items()),
    ]
    return Starlette(routes=routes, middleware=[Middleware(Guard, token=token, cookie=cookie, names=names)])


class Pages:
    """Answers to requests."""

    def __init__(self, hub: Hub, stop: Stop | None, token: str, cookie: str, over: Event) -> None:
        self._hub = hub
        self._stop = stop
        self._token = token
        self._cookie = cookie
        self._over = over
        self._open = 0

    async def index(self, request: Request) -> Response:
        """Return the page, and the token as a cookie that other sites cannot have sent."""
        answer = FileResponse(PAGE / "index.html", media_type="text/html")
        answer.set_cookie(self._cookie, self._token, httponly=True, samesite="strict")
        return answer

    async def events(self, request: Request) -> Response:
        """Return a view, and what changes of it, section by section."""
        if self._open >= MOST_PAGES:
            return JSONResponse({"error": f"at most {MOST_PAGES} pages may be open at a time"}, status_code=503)
        query = request.query_params
        runs = query.getlist("run")
        views: Mapping[str, Callable[[], dict[str, Any]]] = {
            "list": self._hub.cards,
            "run": partial(self._hub.page, runs[0] if runs else ""),
            "compare": partial(self._hub.comparison, runs),
        }
        view = views.get(query.get("view", "list"), self._hub.cards)
        return StreamingResponse(self._changes(view), media_type="text/event-stream")

    async def stop(self, request: Request) -> Response:
        """Ask a run or a trial to end."""
        if self._stop is None:
            return _refused("runs may be read here alone: the page was started with --read-only", 403)
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > _LARGEST_POST:
                return _refused("a request to stop is short", 413)
        try:
            asked = json.loads(body)
            run, trial = asked["run"], asked.get("trial")
        except (ValueError, KeyError, TypeError, AttributeError):
            return _refused("a request to stop names a run", 400)
        if not isinstance(run, str) or not isinstance(trial, str | None):
            return _refused("a request to stop names a run, and perhaps a trial", 400)
        try:
            address = await to_thread.run_sync(self._hub.address, run)
            await to_thread.run_sync(self._stop, address, trial)
        except (TunerError, OSError) as error:
            return _refused(str(error), 409)
        return JSONResponse({"asked": True})

    async def _changes(self, view: Callable[[], dict[str, Any]]) -> AsyncIterator[str]:
        self._open += 1
        try:
            sent: dict[str, str] = {}
            quiet = 0.0
            yield _event("page", json.dumps({"read_only": self._stop is None}))
            while not self._over.is_set():
                began = time.monotonic()
                for name, text in (await to_thread.run_sync(_sections, view)).items():
                    if sent.get(name) != text:
                        sent[name] = text
                        quiet = 0.0
                        yield _event(name, text)
                if quiet >= ALIVE_SECONDS:
                    quiet = 0.0
                    yield ": alive\n\n"
                pause = max(EVENT_SECONDS, time.monotonic() - began)  # a run of many trials keeps half a core at most
                quiet += pause
                await anyio.sleep(pause)
        finally:
            self._open -= 1


def _sections(view: Callable[[], dict[str, Any]]) -> dict[str, str]:
    """Return the sections of a view as JSON; what is wrong with it as the section "trouble"."""
    try:
        found = view()
    except (TunerError, OSError) as error:
        return {"trouble": json.dumps(masked(plain(str(error))))}
    return {name: json.dumps(value, allow_nan=False) for name, value in (found | {"trouble": ""}).items()}


def _event(name: str, text: str) -> str:
    return f"event: {name}\ndata: {text}\n\n"  # JSON has no line breaks of its own


def _refused(message: str, status: int) -> Response:
    return JSONResponse({"error": masked(plain(message))}, status_code=status)


async def _file(path: Path, kind: str, request: Request) -> Response:
    return FileResponse(path, media_type=kind, headers={"Cache-Control": "private, max-age=3600"})


def plotly_js() -> Path:
    """Return the script of plotly, as its Python package brings it with it."""
    from importlib.resources import files

    return Path(str(files("plotly") / "package_data" / "plotly.min.js"))
