"""The page in a real browser: it grows, it stops a trial, it shows what a run holds as text, and people can use it by
keyboard, by ear, on a telephone and at night."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from made_runs import HOSTILE, beat, begun, config, ended, evaluation, noted, restarted, step, whole, write

from distributed_tuner import Analytic, tune
from distributed_tuner.ledger import read
from distributed_tuner.runs.stopping import request_stop
from distributed_tuner.watch.app import build_app
from distributed_tuner.watch.hub import Hub
from distributed_tuner.watch.places import watched_place
from distributed_tuner.watch.server import bound

playwright = pytest.importorskip("playwright.sync_api", reason="the page's browser tests need playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="the page's browser tests need chromium: apt install chromium")

PATIENCE = 180_000
"""Milliseconds that a test waits for what is to be seen: a machine may be slow."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=CHROMIUM)
        yield found
        found.close()


@contextmanager
def served(place: Path, *, read_only: bool = False) -> Iterator[str]:
    """Serve the page; give the address that opens it."""
    import uvicorn

    with bound("127.0.0.1", 0) as opened:
        port = opened.getsockname()[1]
        app = build_app(
            Hub(watched_place(str(place))),
            None if read_only else request_stop,
            token="secret",
            cookie=f"watch-{port}",
            names=[],
        )
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off", timeout_graceful_shutdown=0))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{port}/?token=secret"
        finally:
            server.should_exit = True
            thread.join(30)


@pytest.fixture
def opened(browser: Any) -> Iterator[Callable[..., Any]]:
    """Open an address; what goes wrong in the page fails the test at its end."""
    contexts, wrong = [], []

    def open_page(address: str, **options: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: wrong.append(dialog.message))
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


def running(folder: Path, **settings: Any) -> Path:
    """Write a run that is going on."""
    rows = [*begun("zot-0"), *(step("zot-0", number) for number in range(1, 20)), evaluation("zot-0", 20, 0.75)]
    write(folder, *rows, *restarted("zot-0"), noted("a worker was lost"), **settings)
    beat(folder)
    return folder


def tile(page: Any, label: str) -> Any:
    return page.locator(".tile", has_text=label).locator(".value")


def wait_until(true: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE / 1000
    while not true():
        assert time.monotonic() < until
        time.sleep(0.1)


# --------------------------------------------------------------------------------------------------------- what is seen
def test_a_run_is_seen_growing_and_ending(tmp_path: Path, opened: Callable[..., Any]) -> None:
    folder = running(tmp_path / "mine")
    with served(tmp_path) as address:
        page = opened(address)
        page.get_by_role("link", name="mine").click()
        expect = playwright.expect
        expect(page.get_by_role("heading", name="mine")).to_be_visible(timeout=PATIENCE)
        expect(tile(page, "Dev accuracy")).to_have_text("75.0 %")
        expect(tile(page, "Oracles busy")).to_have_text("1 of 2")
        expect(tile(page, "Queue")).to_have_text("3 tiles")
        page.wait_for_selector("#plot-loss .main-svg")
        points = "document.getElementById('plot-loss').data[0].x.length"
        before = page.evaluate(points)
        write(folder, *(step("zot-0", number) for number in range(21, 40)), evaluation("zot-0", 40, 0.875))
        expect(tile(page, "Dev accuracy")).to_have_text("87.5 %", timeout=PATIENCE)
        wait_until(lambda: page.evaluate(points) > before)
        expect(page.locator("#section-restarts")).to_contain_text("Sort the messages")
        page.locator("summary").click()
        expect(page.locator("#section-answers pre").last).to_contain_text("1. Sort the messages")
        write(folder, *ended("zot-0"))
        expect(page.locator(".title .badge")).to_have_text("done", timeout=PATIENCE)
        expect(page.locator("#section-answers details")).to_have_attribute("open", "")  # it stays as it was left
        assert "token" not in page.url


def test_runs_are_chosen_and_compared(tmp_path: Path, opened: Callable[..., Any]) -> None:
    whole(tmp_path / "a", metric=0.7, rho=0.1)
    whole(tmp_path / "b", metric=0.8, rho=0.2)
    with served(tmp_path) as address:
        page = opened(address)
        for name in ("a", "b"):
            page.get_by_label(f"compare {name}").check()
        page.get_by_role("button", name="Compare 2 runs").click()
        page.wait_for_selector("#plot-costs .main-svg")
        playwright.expect(page.locator("#section-settings")).to_contain_text("stages.0.optimizer.rho")
        assert page.evaluate("document.getElementById('plot-dev').data.map(line => line.name)") == ["a", "b"]
        page.get_by_label("Cost in").select_option("seconds")
        assert page.evaluate("document.getElementById('plot-costs').layout.xaxis.title.text") == "wall-clock seconds"


def test_what_a_run_holds_is_shown_as_text(tmp_path: Path, opened: Callable[..., Any]) -> None:
    trial = f"zot-{HOSTILE}".replace("/", "")
    rows = [*begun(trial, name=HOSTILE), evaluation(trial, 9, 0.5, text=HOSTILE)]
    rows += [*restarted(trial, text=HOSTILE, answer=HOSTILE), noted(HOSTILE)]
    rows = [row.model_copy(update={"method": HOSTILE}) if row.type == "trial" else row for row in rows]
    settings = config(HOSTILE, trials=(trial,))
    settings["task"]["name"] = settings["model"]["model"] = settings["command"] = HOSTILE
    settings["experiment"]["head"] = {"kind": HOSTILE}
    name = "<img src=x onerror=window.stolen=1>"
    write(tmp_path / name, *rows, *ended(trial, status="interrupted"), settings=settings)
    whole(tmp_path / "other")
    with served(tmp_path) as address:
        page = opened(address)
        playwright.expect(page.locator("#section-list")).to_contain_text(HOSTILE)
        page.get_by_label("compare other").check()
        page.locator("input[type=checkbox]").nth(0).check()
        page.locator("input[type=checkbox]").nth(1).check()
        page.get_by_role("button", name="Compare 2 runs").click()
        page.wait_for_selector("#plot-dev .main-svg")
        playwright.expect(page.locator("#section-settings")).to_contain_text("window.stolen")
        assert page.evaluate("window.stolen") is None
        page.locator("#section-runs a").first.click()
        page.locator("#section-runs a", has_text="script").or_(page.locator("#section-log td")).first.wait_for()
        page.goto(address)
        page.locator("#section-list a", has_text="script").click()
        for section in ("head", "trials", "restarts", "answers", "log"):
            playwright.expect(page.locator(f"#section-{section}")).to_contain_text("<script>window.stolen")
        page.wait_for_selector("#plot-dev .main-svg")
        assert page.evaluate("window.stolen") is None
        assert page.evaluate("document.querySelectorAll('main img, main script').length") == 0


# ------------------------------------------------------------------------------------------------------------- stopping
def test_a_trial_of_a_run_that_works_is_stopped_from_the_page(tmp_path: Path, opened: Callable[..., Any]) -> None:
    out = tmp_path / "live"

    def work() -> None:
        tune(Analytic(seconds=0.2), {"kind": "demo"}, optimizer="zot", budget=20_000, progress=False, out=out)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    wait_until((out / "heartbeat.json").exists)
    with served(tmp_path) as address:
        page = opened(f"{address}#run/live")
        button = page.get_by_role("button", name="Stop trial")
        button.click()
        playwright.expect(button).to_have_text("Really stop?", timeout=PATIENCE)
        button.click()
        playwright.expect(page.get_by_role("status")).to_contain_text("was asked to stop", timeout=PATIENCE)
        playwright.expect(page.locator("#section-trials .badge")).to_have_text("stopped", timeout=PATIENCE)
        playwright.expect(page.locator(".title .badge")).to_have_text("done", timeout=PATIENCE)
    thread.join(PATIENCE / 1000)
    (end,) = read(out / "ledger.jsonl").trial_ends
    assert end.status == "stopped" and read(out / "ledger.jsonl").steps[-1].spent.queries < 20_000


def test_a_page_that_may_only_read_has_no_button_to_stop(tmp_path: Path, opened: Callable[..., Any]) -> None:
    running(tmp_path / "mine")
    with served(tmp_path, read_only=True) as address:
        page = opened(f"{address}#run/mine")
        page.wait_for_selector("#section-log td")
        assert page.get_by_role("button", name="Stop").count() == 0


def test_a_server_that_is_gone_is_told(tmp_path: Path, opened: Callable[..., Any]) -> None:
    running(tmp_path / "mine")
    with served(tmp_path) as address:
        page = opened(address)
        page.wait_for_selector("#section-list td")
    playwright.expect(page.get_by_role("alert")).to_contain_text("does not answer", timeout=PATIENCE)


# ----------------------------------------------------------------------------------------------------------- for people
def test_the_list_is_used_by_keyboard_and_keeps_the_focus(tmp_path: Path, opened: Callable[..., Any]) -> None:
    folder = running(tmp_path / "a")
    running(tmp_path / "b")
    with served(tmp_path) as address:
        page = opened(address)
        box = page.get_by_label("compare a")
        box.focus()
        page.keyboard.press("Space")
        write(folder, step("zot-0", 45))  # the list is drawn anew
        playwright.expect(page.locator("#section-list")).to_contain_text("90")
        playwright.expect(box).to_be_focused()
        playwright.expect(box).to_be_checked()
        page.keyboard.press("Tab")
        playwright.expect(page.get_by_role("link", name="a", exact=True)).to_be_focused()
        page.keyboard.press("Enter")
        page.wait_for_selector("#section-log td")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement !== document.body")


NAMELESS = """() => [...document.querySelectorAll('button, a, input, select, progress, [role=img], [role=region]')]
    .filter(one => !one.closest('.modebar') && one.offsetParent !== null)
    .filter(one => !(one.getAttribute('aria-label') || one.textContent.trim() || one.labels?.length))
    .map(one => one.outerHTML.slice(0, 120))"""


@contextmanager
def two_runs(tmp_path: Path) -> Iterator[str]:
    """Serve a run that is going on, "a", and one that has ended, "b"."""
    running(tmp_path / "a")
    whole(tmp_path / "b")
    with served(tmp_path) as address:
        yield address


VIEWS = {"list": "list", "run/a": "log", "compare/a/b": "settings"}
"""Views, and the section of each that comes last."""


def show(page: Any, view: str) -> None:
    """Go to a view, and wait until it is whole."""
    page.evaluate(f"location.hash = {view!r}")
    page.wait_for_selector(f"#section-{VIEWS[view]} p, #section-{VIEWS[view]} td")


def test_everything_has_a_name_for_screen_readers(tmp_path: Path, opened: Callable[..., Any]) -> None:
    with two_runs(tmp_path) as address:
        page = opened(address)
        for view in VIEWS:
            show(page, view)
            assert page.evaluate(NAMELESS) == []
            assert page.evaluate("[...document.querySelectorAll('table')].every(one => one.caption)")
            assert page.get_by_role("heading", level=1).count() == 1
            assert page.evaluate("document.documentElement.lang") == "en"


def test_a_narrow_screen_scrolls_tables_and_not_the_page(tmp_path: Path, opened: Callable[..., Any]) -> None:
    with two_runs(tmp_path) as address:
        page = opened(address, viewport={"width": 360, "height": 740})
        for view in VIEWS:
            show(page, view)
            assert page.evaluate("document.documentElement.scrollWidth") <= 360, view


CONTRASTS = """() => {
  const light = colour => {
    const [r, g, b] = colour.match(/[\\d.]+/g).map(Number).map(one => one / 255)
      .map(one => one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = one => {
    for (; one; one = one.parentElement) {
      const found = getComputedStyle(one).backgroundColor;
      if (!found.startsWith('rgba(0, 0, 0, 0')) return found;
    }
  };
  return [...document.querySelectorAll('main *')]
    .filter(one => !one.closest('.plot, svg'))
    .filter(one => [...one.childNodes].some(node => node.nodeType === 3 && node.data.trim()))
    .filter(one => !one.disabled && one.offsetParent !== null)
    .map(one => {
      const [a, b] = [light(getComputedStyle(one).color), light(ground(one))].sort((x, y) => y - x);
      return [(a + 0.05) / (b + 0.05), `${one.className} ${one.textContent.slice(0, 40)}`];
    })
    .filter(([contrast]) => contrast < 4.5);
}"""
"""Texts whose contrast is below what WCAG asks for (1.4.3)."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_by_day_and_by_night(tmp_path: Path, opened: Callable[..., Any], scheme: str) -> None:
    with two_runs(tmp_path) as address:
        page = opened(address, color_scheme=scheme)
        for view in VIEWS:
            show(page, view)
            assert page.evaluate(CONTRASTS) == []
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert ground == {"light": "rgb(244, 246, 248)", "dark": "rgb(13, 17, 23)"}[scheme]
