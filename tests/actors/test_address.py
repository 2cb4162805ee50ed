"""Addresses of clusters that a run joins: where they come from, and no waiting for a cluster that is not there."""

import http.server
import socket
import threading
from collections.abc import Iterator

import pytest

from actors import address
from actors.address import Address
from distributed_tuner.errors import ClusterError


@pytest.mark.parametrize(
    ("asked", "named", "found"),
    [
        (None, None, None),
        (None, "", None),
        (None, "local", None),
        ("local", "127.0.0.1:1", None),
        (None, "127.0.0.1:1", Address("127.0.0.1:1", "RAY_ADDRESS")),
        ("auto", "127.0.0.1:1", Address("127.0.0.1:1", "RAY_ADDRESS")),
        ("auto", None, Address("auto", "--address")),
        ("ray://here:10001", "127.0.0.1:1", Address("ray://here:10001", "--address")),
    ],
)
def test_who_named_the_cluster(
    monkeypatch: pytest.MonkeyPatch, asked: str | None, named: str | None, found: Address | None
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if named is not None:
        monkeypatch.setenv("RAY_ADDRESS", named)
    assert Address.of(asked) == found


@pytest.fixture
def web_server() -> Iterator[int]:
    """Something that listens and is no Ray; yields its port."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("text", ["127.0.0.1:{closed}", "ray://127.0.0.1:{closed}"])
def test_where_nobody_listens(text: str) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(ClusterError, match="no server listens there: Connection refused") as told:
            Address(text.format(closed=closed.getsockname()[1]), "RAY_ADDRESS").require_there()
    assert told.value.exit_code == 2


@pytest.mark.parametrize("text", ["127.0.0.1:{port}", "ray://127.0.0.1:{port}"])
def test_where_somebody_else_listens(web_server: int, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(address, "ANSWER_SECONDS", 1.0)
    with pytest.raises(ClusterError, match="the server there is not Ray"):
        Address(text.format(port=web_server), "--address").require_there()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("http://127.0.0.1:8265", "a web page or of a job server"),
        ("here", "no host and port"),
        ("here:there", "no host and port"),
        ("here:99999", "no host and port"),
        (":6379", "no host and port"),
        ("no-such-host.invalid:6379", "no server listens there"),
    ],
)
def test_what_is_no_address(text: str, says: str) -> None:
    with pytest.raises(ClusterError, match=says) as told:
        Address(text, "RAY_ADDRESS").require_there()
    assert "unset RAY_ADDRESS" in str(told.value)
