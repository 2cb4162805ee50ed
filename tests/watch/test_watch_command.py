"""``tune.py watch``: what it refuses in one line, and that it serves until Ctrl-C."""

import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from made_runs import begun, write
from typer.testing import CliRunner

from distributed_tuner.cli import app
from distributed_tuner.watch.server import bound

ROOT = Path(__file__).resolve().parents[2]


def refused(*arguments: str) -> str:
    """Run the command, which must end with one line and status 2; return the line."""
    result = CliRunner().invoke(app, ["watch", *arguments])
    assert result.exit_code == 2 and isinstance(result.exception, SystemExit), (result.output, result.exception)
    (line,) = result.stderr.splitlines()
    return line


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("nowhere", "'nowhere' is not (No such file or directory)"),
        ("empty", "there is no ledger.jsonl in empty"),
        ("https://example.org/runs", "begins with one of"),
        ("s3://user:key@bucket/runs", "must hold no keys"),
    ],
)
def test_where_nothing_can_be_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, said: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert said in refused(place)


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    folder = write(tmp_path / "mine", *begun("zot-0"))
    with bound("127.0.0.1", 0) as taken:
        assert "--port 0 for any" in refused(str(folder), "--port", str(taken.getsockname()[1]))


def test_a_server_that_is_not_installed_is_named_with_what_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "mine", *begun("zot-0"))
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert "pip install starlette uvicorn" in refused(str(folder))


def test_it_prints_its_address_serves_and_ends_by_ctrl_c(tmp_path: Path) -> None:
    folder = write(tmp_path / "mine", *begun("zot-0"))
    command = [sys.executable, str(ROOT / "tune.py"), "watch", str(folder), "--port", "0", "--read-only"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        assert str(folder) in process.stdout.readline()
        address = process.stdout.readline().strip()
        with urllib.request.urlopen(address, timeout=60) as page:
            assert page.status == 200 and b"watch.js" in page.read()
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(address.partition("?")[0], timeout=60)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert process.stderr.read() == ""
