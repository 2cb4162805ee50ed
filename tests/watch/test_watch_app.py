"""The web application: who is let in, what a view sends, requests to stop."""

import json
import re
import socket
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from made_runs import begun, step, write
from starlette.testclient import TestClient

from distributed_tuner.errors import ConfigError, RunDirectoryError
from distributed_tuner.watch.app import MOST_PAGES, PAGE, Pages, build_app
from distributed_tuner.watch.guard import own_names
from distributed_tuner.watch.hub import Hub
from distributed_tuner.watch.places import LocalPlace
from distributed_tuner.watch.server import bound, shown_host

TOKEN, COOKIE = "secret", "watch-1"
HERE = "http://127.0.0.1:8970"


class Asked:
    """A run that notes who asks it to stop. refusal: why it does not."""

    def __init__(self) -> None:
        self.stops: list[tuple[str, str | None]] = []
        self.refusal = ""

    def __call__(self, place: str, trial: str | None) -> None:
        if self.refusal:
            raise RunDirectoryError(self.refusal)
        self.stops.append((place, trial))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "runs" / "mine", *begun("zot-0"), step("zot-0", 1))


def client(folder: Path, stop: Asked | None = None, host: str = "127.0.0.1", base: str = HERE) -> TestClient:
    app = build_app(Hub(LocalPlace(folder.parent)), stop, token=TOKEN, cookie=COOKIE, names=own_names(host))
    return TestClient(app, base_url=base)


def known(folder: Path, stop: Asked | None = None) -> TestClient:
    """Return a client that has opened the page."""
    browser = client(folder, stop)
    assert browser.get(f"/?token={TOKEN}").status_code == 200
    return browser


# ------------------------------------------------------------------------------------------------------------ who asks
@pytest.mark.parametrize("path", ["/", "/watch.js", "/events?view=list", "/?token=other", "/plotly.js"])
def test_without_the_token_there_is_nothing(folder: Path, path: str) -> None:
    answer = client(folder).get(path)
    assert answer.status_code == 403 and "token" in answer.text


def test_the_address_with_the_token_opens_the_page_and_the_cookie_the_rest(folder: Path) -> None:
    browser = client(folder)
    page = browser.get(f"/?token={TOKEN}")
    assert page.status_code == 200 and "<script" in page.text
    cookie = page.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie
    for path in ("/watch.js", "/charts.js", "/watch.css", "/report.css", "/plotly.css", "/plotly.js"):
        assert browser.get(path).status_code == 200, path


def test_the_page_holds_no_script_of_its_own_and_its_policy_allows_none(folder: Path) -> None:
    page = known(folder).get("/")
    policy = page.headers["content-security-policy"]
    assert "script-src 'self'" in policy and "unsafe" not in policy and "default-src 'none'" in policy
    assert not re.search(r"<script[^>]*>[^<]|\sstyle=|\son\w+=", page.text)
    assert page.headers["x-content-type-options"] == "nosniff" and page.headers["referrer-policy"] == "no-referrer"
    for script in PAGE.glob("*.js"):
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", script.read_text("utf-8")
        )


@pytest.mark.parametrize(
    ("host", "let_in"),
    [
        ("127.0.0.1:8970", True),
        ("localhost:9000", True),  # a tunnel
        ("[::1]:8970", True),
        ("10.1.2.3:8970", True),
        (socket.gethostname(), True),
        ("evil.example", False),
        ("localhost.evil.example:8970", False),
        ("127.0.0.1.evil.example", False),
        ("", False),
        ("[::1", False),
    ],
)
def test_a_name_that_another_site_may_point_here_is_refused(folder: Path, host: str, let_in: bool) -> None:
    answer = client(folder).get(f"/?token={TOKEN}", headers={"Host": host})
    assert answer.status_code == (200 if let_in else 403)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:8971"},
        {"Origin": HERE, "Sec-Fetch-Site": "cross-site"},
    ],
)
def test_a_post_of_another_page_stops_nothing(folder: Path, headers: dict[str, str]) -> None:
    stop = Asked()
    answer = known(folder, stop).post("/stop", json={"run": "mine"}, headers=headers)
    assert answer.status_code == 403 and stop.stops == []


# ---------------------------------------------------------------------------------------------------------------- stop
@pytest.mark.parametrize("trial", [None, "zot-0"])
def test_a_post_of_the_page_asks_the_run_or_the_trial_to_stop(folder: Path, trial: str | None) -> None:
    stop = Asked()
    answer = known(folder, stop).post("/stop", json={"run": "mine", "trial": trial}, headers={"Origin": HERE})
    assert answer.json() == {"asked": True} and stop.stops == [(str(folder), trial)]


def test_what_cannot_be_stopped_is_one_line(folder: Path) -> None:
    stop = Asked()
    stop.refusal = "only a run that is working can be stopped"
    browser = known(folder, stop)
    answer = browser.post("/stop", json={"run": "mine"}, headers={"Origin": HERE})
    assert answer.status_code == 409 and answer.json() == {"error": stop.refusal}
    unknown = browser.post("/stop", json={"run": "../../etc"}, headers={"Origin": HERE})
    assert unknown.status_code == 409 and "one of the list" in unknown.json()["error"]


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"{", 400), (b"[]", 400), (b'{"run": 7}', 400), (b'{"run": "mine", "trial": []}', 400), (b" " * 5000, 413)],
)
def test_a_post_that_is_no_request_is_refused(folder: Path, body: bytes, status: int) -> None:
    stop = Asked()
    answer = known(folder, stop).post("/stop", content=body, headers={"Origin": HERE})
    assert answer.status_code == status and stop.stops == []


def test_a_page_that_may_only_read_stops_nothing(folder: Path) -> None:
    answer = known(folder).post("/stop", json={"run": "mine"}, headers={"Origin": HERE})
    assert answer.status_code == 403 and "--read-only" in answer.json()["error"]


# --------------------------------------------------------------------------------------------------------------- views
def events(pages: Pages, view: Any, count: int, between: Any = lambda: None) -> list[tuple[str, Any]]:
    """Return the first events of a view; ``between`` is called after the first look."""

    async def read() -> list[tuple[str, Any]]:
        found: list[tuple[str, Any]] = []
        stream: AsyncIterator[str] = pages._changes(view)
        async for text in stream:
            name, data = text.rstrip("\n").split("\n")
            found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
            if found[-1][0] == "trouble" and len(found) < count:
                between()
            if len(found) >= count:
                break
        await stream.aclose()  # type: ignore[attr-defined]
        return found

    return anyio.run(read)


def test_a_view_sends_all_and_then_the_sections_that_change(folder: Path) -> None:
    hub = Hub(LocalPlace(folder.parent))
    pages = Pages(hub, None, TOKEN, COOKIE, threading.Event())
    found = events(pages, lambda: hub.page("mine"), 11, lambda: write(folder, step("zot-0", 2)))
    names = [name for name, _ in found]
    assert names[:9] == ["page", "head", "curves", "trials", "restarts", "answers", "warnings", "log", "trouble"]
    assert found[0][1] == {"read_only": True} and found[1][1]["queries"] == "2"
    assert set(names[9:]) <= {"head", "curves", "trials"} and found[9][1]["queries"] == "4"


def test_what_goes_wrong_is_a_line_of_the_view(folder: Path) -> None:
    hub = Hub(LocalPlace(folder.parent))
    found = events(Pages(hub, None, TOKEN, COOKIE, threading.Event()), lambda: hub.page("gone"), 2)
    assert found[1][0] == "trouble" and "one of the list" in found[1][1]


def test_so_many_pages_may_be_open(folder: Path) -> None:
    browser = client(folder)
    pages = Pages(Hub(LocalPlace(folder.parent)), None, TOKEN, COOKIE, threading.Event())
    pages._open = MOST_PAGES

    class Request:
        query_params = browser.params

    answer = anyio.run(pages.events, Request())
    assert answer.status_code == 503


# -------------------------------------------------------------------------------------------------------------- server
def test_a_port_that_is_taken_is_one_line() -> None:
    with bound("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port} cannot be had") as refused:
            bound("127.0.0.1", port)
    assert "\n" not in str(refused.value) and "--port" in str(refused.value)


def test_a_host_of_another_machine_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r"192\.0\.2\.1:0 cannot be had"):
        bound("192.0.2.1", 0)


@pytest.mark.parametrize(("host", "shown"), [("0.0.0.0", "127.0.0.1"), ("::1", "[::1]"), ("node7", "node7")])
def test_the_address_is_one_that_a_browser_opens(host: str, shown: str) -> None:
    assert shown_host(host) == shown
