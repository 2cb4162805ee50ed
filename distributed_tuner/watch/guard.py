"""Who may see the page: who has its token, asks for this machine by a name of its own, and posts from the page itself.

A page of another site could otherwise have a visitor's browser ask a server on loopback, by a name that it lets point
there (DNS rebinding), or post to it (request forgery).
"""

import hmac
import ipaddress
import socket
from collections.abc import Collection
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Guard:
    """ASGI middleware. names: host names that this server may be asked by, besides addresses and localhost."""

    def __init__(self, app: ASGIApp, token: str, cookie: str, names: Collection[str]) -> None:
        self._app = app
        self._token = token
        self._cookie = cookie
        self._names = {"localhost", *(name.lower() for name in names)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # no websockets; the lifespan goes through
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                known = {name.lower() for name, _ in message["headers"]}
                more = {name.lower().encode(): value.encode() for name, value in HEADERS.items()}
                message["headers"] = [*message["headers"], *((k, v) for k, v in more.items() if k not in known)]
            await send(message)

        refusal = self._refusal(scope, headers)
        if refusal is None:
            await self._app(scope, receive, sending)
        else:
            await PlainTextResponse(refusal, status_code=403)(scope, receive, sending)

    def _refusal(self, scope: Scope, headers: Headers) -> str | None:
        """Return why a request is refused; None where it is not."""
        host = headers.get("host", "")
        if not self._is_ours(host):
            return "This page must be asked for by localhost, an address or this machine's own name."
        query = parse_qs(scope["query_string"].decode("latin-1"))
        given = query.get("token", [""])[0] or cookie_parser(headers.get("cookie", "")).get(self._cookie, "")
        if not hmac.compare_digest(given.encode(), self._token.encode()):
            return "This page needs its token: open the address that the command has printed, as a whole."
        if scope["method"] not in ("GET", "HEAD"):
            origin = headers.get("origin", "")
            if urlsplit(origin).netloc != host or headers.get("sec-fetch-site", "same-origin") != "same-origin":
                return "Requests that change something must come from this page itself."
        return None

    def _is_ours(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return name in self._names or _is_address(name)


def own_names(host: str) -> list[str]:
    """Return the names that a server on ``host`` may be asked by: the name itself, and the machine's."""
    own = socket.gethostname()
    return [host, own, own.partition(".")[0], socket.getfqdn()]


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
