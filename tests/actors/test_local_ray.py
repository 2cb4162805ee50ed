"""A Ray that a run starts for itself has the processes that the run needs, and they end with it."""

import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from patience import PATIENCE

from actors.ray_internals.light_setup_worker import main
from actors.ray_internals.local_ray import AGENT, guard_token, sessions_folder

ROOT = Path(__file__).resolve().parents[2]
CODE = """
import json
import os
import stat
from pathlib import Path

import psutil
import ray
from actors.cluster import cluster
from distributed_tuner.config.oracle import AnalyticOracleConfig

HOME = Path.home() / ".ray"
with cluster(AnalyticOracleConfig(kind="analytic"), None):
    plain = ray.get(ray.remote(lambda: __import__("os").environ.get("ASKED")).remote())
    asked = ray.remote(runtime_env={"env_vars": {"ASKED": "1"}})(lambda: __import__("os").environ["ASKED"])
    answer = ray.get(asked.remote())
    own = psutil.Process().children(recursive=True)
    lines = [" ".join(one.cmdline()) for one in own]
    session = ray._private.worker._global_node.get_session_dir_path()
    modes = [stat.S_IMODE(os.stat(path).st_mode) for path in (Path(session).parent.parent, HOME, HOME / "auth_token")]
gone, alive = psutil.wait_procs(own, timeout=60)
print(json.dumps([[plain, answer], lines, len(alive), session, modes]))
"""


@pytest.mark.ray
def test_it_has_no_dashboard_no_autoscaler_and_no_reader_of_logs_and_is_its_owners_alone(tmp_path: Path) -> None:
    (tmp_path / ".ray").mkdir(mode=0o755)
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    answer, lines, alive, session, modes = json.loads(done.stdout.splitlines()[-1])
    assert modes == [0o700, 0o700, 0o600]
    assert answer == [None, "1"]
    for part in ("gcs_server", "raylet/raylet", "runtime_env/agent", str(AGENT)):
        assert any(part in line for line in lines), part
    for part in ("dashboard/dashboard.py", "monitor.py", "log_monitor.py"):
        assert not any(part in line for line in lines), part
    assert alive == 0
    assert "Traceback" not in (Path(session) / "logs" / "raylet.err").read_text()


def test_the_agent_s_stand_in_says_that_it_listens_nowhere_and_ends_with_its_parent(tmp_path: Path) -> None:
    """The parent is a shell that starts it and is killed; the pipe to it is closed before that."""
    options = f"--node-id=abc --session-dir={tmp_path} --minimal"
    line = f"{sys.executable} -S -E {AGENT} agent.py {options} < /dev/null & echo $!; read"
    with subprocess.Popen(["bash", "-c", line], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        agent = int(parent.stdout.readline())
        ports = [tmp_path / f"{name}_abc" for name in ("metrics_agent_port", "dashboard_agent_listen_port")]
        until = time.monotonic() + PATIENCE
        while not all(port.is_file() for port in ports):
            assert time.monotonic() < until
            time.sleep(0.05)
        assert {port.read_text() for port in ports} == {"-1"}
        assert lives(agent)
        parent.kill()
    while lives(agent):
        assert time.monotonic() < until
        time.sleep(0.1)


def test_the_stand_in_ends_what_is_left_of_a_session_whose_leader_has_ended(tmp_path: Path) -> None:
    line = (
        f"{sys.executable} -S -E {AGENT} agent.py --node-id=abc --session-dir={tmp_path} & sleep 1000 & echo $!; read"
    )
    leader = subprocess.Popen(
        ["bash", "-c", line], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert leader.stdout is not None
    left = int(leader.stdout.readline())
    until = time.monotonic() + PATIENCE
    while not (tmp_path / "metrics_agent_port_abc").is_file():
        assert time.monotonic() < until
        time.sleep(0.05)
    assert lives(left)
    leader.kill()
    leader.wait()
    while lives(left):
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.parametrize("mode", [0o755, 0o600])
def test_a_token_of_before_is_no_longer_for_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    guard_token()
    assert list(tmp_path.iterdir()) == [], "and nothing is made"
    (tmp_path / ".ray").mkdir(mode=0o755)
    token = tmp_path / ".ray" / "auth_token"
    token.touch()
    token.chmod(mode)
    guard_token()
    assert [stat.S_IMODE(path.stat().st_mode) & 0o077 for path in (token, token.parent)] == [0, 0]


@pytest.mark.parametrize("what", ["open", "link", "file"])
def test_a_folder_for_sessions_that_is_not_ours_alone_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    place = sessions_folder().parent
    assert (place.parent, stat.S_IMODE(place.stat().st_mode)) == (tmp_path, 0o700)
    assert sessions_folder().parent == place
    place.rmdir()
    if what == "link":
        place.symlink_to(tmp_path)
    elif what == "file":
        place.touch()
    else:
        place.mkdir()
        place.chmod(0o777)
    with pytest.raises(PermissionError, match="closed to other users"):
        sessions_folder()


def asked(language: str = "PYTHON", **context: object) -> list[str]:
    named = json.dumps({"command_prefix": [], "java_jars": [], "override_worker_entrypoint": None} | context)
    context_option = ["--serialized-runtime-env-context", named]
    return ["/ray/default_worker.py", "--port=1", f"--language={language}", *context_option, "--a", "b=c"]


def test_a_worker_with_variables_is_started_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTHER", "2")
    monkeypatch.delenv("ASKED", raising=False)
    line = main(asked(env_vars={"ASKED": "1", "OTHER": ""}, py_executable=sys.executable))
    assert line == [sys.executable, "/ray/default_worker.py", "--port=1", "--a", "b=c"]
    assert (os.environ["ASKED"], os.environ["OTHER"]) == ("1", "")
    monkeypatch.delenv("ASKED")
    assert main(["/ray/default_worker.py", "--language", "PYTHON"]) == [sys.executable, "/ray/default_worker.py"]


@pytest.mark.parametrize(
    "arguments",
    [
        asked(command_prefix=["cd /tmp &&"]),
        asked(py_executable="/other/python"),
        asked(override_worker_entrypoint="/there.py"),
        asked(env_vars={"ASKED": "${HOME}/x"}),
        asked("JAVA", env_vars={"ASKED": "1"}),
        asked(something_new={"a": 1}),
    ],
)
def test_what_is_more_than_variables_is_left_to_ray(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ASKED", raising=False)
    assert main(arguments) == [sys.executable, "/ray/setup_worker.py", *arguments]
    assert "ASKED" not in os.environ


def lives(process: int) -> bool:
    status = Path(f"/proc/{process}/stat")
    return status.is_file() and status.read_text().rpartition(")")[2].split()[0] != "Z"
