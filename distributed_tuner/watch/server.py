"""The server of the page: a port, a token, and the address that opens it."""

import secrets
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from distributed_tuner.errors import ConfigError
from distributed_tuner.runs.stopping import request_stop
from distributed_tuner.watch.hub import Hub
from distributed_tuner.watch.places import watched_place

if TYPE_CHECKING:
    import uvicorn
    from starlette.applications import Starlette

HOST, PORT = "127.0.0.1", 8970
_CLOSE_SECONDS = 5  # for open pages to see that the server ends


def serve(
    place: str, say: Callable[[str], None], *, host: str = HOST, port: int = PORT, read_only: bool = False
) -> None:
    """Serve the page of the runs at a place until Ctrl-C. ``say``: gets the address that opens it.

    Raises:
        ConfigError: starlette or uvicorn is missing, or the port cannot be had.
        RunDirectoryError: there is no run.
        StorageError: a store cannot be reached.
    """
    try:
        import uvicorn  # noqa: F401  (tells early that it is missing)

        from distributed_tuner.watch.app import build_app
        from distributed_tuner.watch.guard import own_names
    except ImportError as error:
        raise ConfigError(
            f"the page needs starlette, uvicorn and plotly, but {error.name} is missing; install them with pip install"
            " starlette uvicorn plotly"
        ) from None
    hub = Hub(watched_place(place))
    with bound(host, port) as opened:
        at = opened.getsockname()[1]
        token = secrets.token_urlsafe(24)
        over = threading.Event()
        app = build_app(
            hub,
            None if read_only else request_stop,
            token=token,
            cookie=f"watch-{at}",
            names=own_names(host),
            over=over,
        )
        say(f"http://{shown_host(host)}:{at}/?token={token}")
        with suppress(KeyboardInterrupt):  # the way to end it
            server_of(app, over).run(sockets=[opened])


def server_of(app: "Starlette", over: threading.Event) -> "uvicorn.Server":
    """Return the server of the application; it sets ``over`` when it begins to end."""
    import uvicorn

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            over.set()
            await super().shutdown(sockets)

    return Server(
        uvicorn.Config(
            app, log_level="warning", server_header=False, timeout_graceful_shutdown=_CLOSE_SECONDS, lifespan="off"
        )
    )


def bound(host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0: any free one.

    Raises:
        ConfigError: the port is taken, or the host is none of this machine.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        said = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"the page needs a free port of this machine, but {host}:{port} cannot be had ({said}); choose another with"
            " --port, or --port 0 for any"
        ) from None


def shown_host(host: str) -> str:
    """Return a host as it stands in an address that this machine's browser opens."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{shown}]" if ":" in shown else shown
